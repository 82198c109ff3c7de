//! Specifications whose kind is known only when they are there: what is left when an override is put on.

use serde_json::{Map, Value, json};

use super::words::plain;
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
        let field = format!("spec.{}", error.path());
        let text = with_nearest(&plain(&error.inner().to_string(), &field, None));
        format!("{field}: {}", without_keys(&text))
    })
}

/// Some public key; all zeroes would be none.
const ANY_KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

/// Whether a patch sets only fields that a kind has, to values that they can have: on top of the least that a
/// document of the kind can say it makes a valid specification.
///
/// # Errors
/// As [`check_spec`].
pub(crate) fn check_patch(kind: Kind, patch: &Map<String, Value>) -> Result<(), String> {
    let mut spec = match kind {
        Kind::Node => json!({"id": 1, "asn": 4_242_420_000u32}),
        Kind::BgpSession => json!({"asn": 4_242_420_000u32}),
        Kind::MeshPeer => json!({"nodeId": 1, "publicKey": ANY_KEY}),
        Kind::IbgpPeer => json!({"nodeId": 1}),
        Kind::RoutingPolicy | Kind::Maintenance | Kind::Override => json!({}),
    };
    json_patch::merge(&mut spec, &Value::Object(patch.clone()));
    check_spec(kind, &spec)
}
