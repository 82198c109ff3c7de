//! The bodies of the calls of owners.

use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::change::{Asked, ChangeError, invalid};
use super::super::overview::SessionView;
use crate::document::{Scalars, faults};
use crate::model::{
    Endpoint, Extension, LinkLocal, Mtu, ObjectName, PeerIpv6, Port, PublicKey, Secret,
};

/// What an owner may ask of a session. Null removes a field.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(in crate::fleet) struct SessionFields {
    /// The neighbour's WireGuard public key; required.
    public_key: Option<PublicKey>,
    /// The preshared key, in base64. An answer never has it.
    #[schemars(with = "Option<String>", example = &"32 bytes in base64")]
    preshared_key: Option<Secret<String>>,
    /// Where the neighbour listens: a name, or a public address. Default: the neighbour calls.
    endpoint: Option<Endpoint>,
    /// The port on which the router listens. Default: 20000 and the last four digits of the AS number.
    listen_port: Option<Port>,
    /// MTU of the tunnel.
    mtu: Option<Mtu>,
    /// The neighbour's link-local address. One of the three addresses is required.
    ipv6_link_local: Option<LinkLocal>,
    /// The neighbour's IPv6 address.
    ipv6: Option<PeerIpv6>,
    /// The neighbour's IPv4 address.
    #[schemars(example = &"172.20.16.140")]
    ipv4: Option<Ipv4Addr>,
    /// A text for people; the one field that changes without a review.
    #[schemars(length(max = 200), example = &"Alice in Tokyo")]
    description: Option<String>,
    /// BGP extensions. Default: both.
    extensions: Option<Vec<Extension>>,
    /// The password of the BGP session (RFC 2385). An answer never has it.
    #[schemars(with = "Option<String>", length(min = 1, max = 80), example = &"a-password")]
    password: Option<Secret<String>>,
}

/// A new session.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSession {
    /// The router.
    #[schemars(example = &"jp1")]
    pub(super) router: ObjectName,
    /// The name of the session on this router: `as` and the AS number, alone or with `-` and more. Default: alone.
    #[schemars(example = &"as4242421090-backup")]
    pub(super) name: Option<ObjectName>,
    /// The fields of the session.
    #[schemars(with = "SessionFields")]
    pub(super) spec: Asked,
}

/// A change of a session.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionPatch {
    /// The fields to change; the others stay as they are.
    #[schemars(with = "SessionFields")]
    pub(super) spec: Asked,
}

/// A session of an owner.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct OwnedSession {
    /// The router.
    pub(super) router: ObjectName,
    /// The name of the session on this router.
    pub(super) name: ObjectName,
    /// The fields of the session, without secrets.
    #[schemars(with = "SessionFields")]
    pub(super) spec: Map<String, Value>,
    /// The status, and what the router posted last. `status` 3 waits for review; without it, the router has confirmed the
    /// removal.
    pub(super) status: SessionView,
}

/// All sessions of an owner.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OwnedSessions {
    /// The sessions, by router and name.
    pub(super) sessions: Vec<OwnedSession>,
}

/// Checks the types of all fields.
///
/// # Errors
/// The wrong ones, by their names.
pub(super) fn check(asked: &Asked) -> Result<(), ChangeError> {
    let value = Value::Object(asked.clone());
    let faults = faults::<SessionFields>(value, &json!({}), Scalars::Typed);
    let texts: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.path.join("."), fault.reason))
        .collect();
    match texts.is_empty() {
        true => Ok(()),
        false => Err(invalid(&texts.join("; "))),
    }
}
