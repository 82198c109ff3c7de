//! Defines the specification of each kind in `moenet.work/v1`.

mod maintenance;
mod mesh;
mod node;
mod overrides;
mod policy;
mod rules;
mod session;
mod status;

pub use maintenance::MaintenanceSpec;
pub use mesh::{IbgpPeerSpec, MeshPeerSpec};
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
