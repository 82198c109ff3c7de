//! Specifications whose kind is known only when they are there: what is left when an override is put on.

use serde_json::Value;

use super::{
    BgpSessionSpec, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec, NodeSpec, OverrideSpec,
    RoutingPolicySpec, Spec, with_nearest,
};
use crate::model::without_keys;

/// Whether a value is a specification of this kind.
///
/// # Errors
/// The field and what is wrong with it, without what may be a secret.
pub(crate) fn check_spec(kind: Kind, spec: &Value) -> Result<(), String> {
    match kind {
        Kind::Node => of::<NodeSpec>(spec),
        Kind::RoutingPolicy => of::<RoutingPolicySpec>(spec),
        Kind::Maintenance => of::<MaintenanceSpec>(spec),
        Kind::BgpSession => of::<BgpSessionSpec>(spec),
        Kind::MeshPeer => of::<MeshPeerSpec>(spec),
        Kind::IbgpPeer => of::<IbgpPeerSpec>(spec),
        Kind::Override => of::<OverrideSpec>(spec),
    }
}

fn of<S: Spec>(spec: &Value) -> Result<(), String> {
    let read: Result<S, _> = serde_path_to_error::deserialize(spec.clone());
    read.map(drop).map_err(|error| {
        let text = with_nearest(&error.inner().to_string());
        format!("spec.{}: {}", error.path(), without_keys(&text))
    })
}
