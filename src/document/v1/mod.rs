//! Defines the specification of each kind in `moenet.work/v1`.

mod maintenance;
mod mesh;
mod node;
mod overrides;
mod policy;
pub(crate) mod rules;
mod session;
mod status;

/// Evaluates an expression with the specification type of a kind: `with_spec!(kind, S => check::<S>(text))`.
macro_rules! with_spec {
    ($kind:expr, $spec:ident => $result:expr) => {
        $crate::document::v1::with_spec!(@ $kind, $spec => $result,
            Node => NodeSpec,
            RoutingPolicy => RoutingPolicySpec,
            Maintenance => MaintenanceSpec,
            BgpSession => BgpSessionSpec,
            MeshPeer => MeshPeerSpec,
            IbgpPeer => IbgpPeerSpec,
            Override => OverrideSpec)
    };
    (@ $kind:expr, $spec:ident => $result:expr, $($name:ident => $type:ident),+) => {
        match $kind {
            $($crate::document::Kind::$name => {
                type $spec = $crate::document::$type;
                $result
            })+
        }
    };
}
pub(crate) use with_spec;

pub use maintenance::MaintenanceSpec;
pub use mesh::{IbgpPeerSpec, MeshPeerSpec, PeerSpec};
pub use node::NodeSpec;
pub use overrides::OverrideSpec;
pub use policy::{
    Continent, Limits, Location, OwnPrefixes, Region, RoutingPolicySpec, Rpki, RpkiServer,
};
pub use session::{AddressSpec, BgpSessionSpec, BgpSpec, TunnelSpec};
pub use status::{
    BgpStatus, Condition, ConditionStatus, ConditionType, Phase, StatusBody, StatusDocument,
    TunnelStatus,
};
