//! The bodies of the dialect as types. Bodies are read as these types; JSON Schema for the dialect's description and
//! the known keys of [`Part`](super::Part) come from them too (docs/decisions/0011-wire-decoding.md).
//!
//! A field that is a [`Value`] is ignored, or read by itself: an item of a list, or a field that counts only where
//! another one is missing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

use super::{WireStatus, forms, symbols};
use crate::document::v1::rules;
use crate::document::{Continent, Region};
use crate::model::{
    AddressRange, Asn, Bandwidth, Endpoint, Extension, Host, InterfaceName, LinkLocal, Mtu,
    NodeType, PeerIpv6, PeeringPolicy, Port, PresharedKey, PublicKey, Secret, TunnelType, Uid,
};

/// A number, also as a text of digits.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Digits<T>(pub T);

impl<T: JsonSchema> JsonSchema for Digits<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrDigits", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let number = T::json_schema(generator);
        json_schema!({
            "anyOf": [number, {"type": "string", "pattern": "^[0-9]{1,20}$"}],
            "description": "The number, also as a text of digits.",
        })
    }
}

/// A switch, also as a number or a text.
pub struct Switch;

impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words = [true.into(), false.into(), 1.into(), 0.into()];
        let texts = ["true", "false", "1", "0"].map(Value::from);
        let all: Vec<Value> = words.into_iter().chain(texts).collect();
        json_schema!({"enum": all})
    }
}

/// The sessions of a router. The list is complete: what is missing is removed.
#[derive(JsonSchema)]
pub struct Sessions {
    /// All BGP sessions of this router, also those that wait for review or removal.
    pub sessions: Vec<Session>,
}

/// A BGP session. One that is QUEUED_FOR_DELETE needs no more than `uuid` and `status`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The identity, which never changes; of one session only.
    pub uuid: Uid,
    /// 0 DISABLED, 1 ACTIVE, 2 ERROR, 3 PENDING_REVIEW, 4 QUEUED_FOR_SETUP, 5 QUEUED_FOR_DELETE.
    pub status: Digits<WireStatus>,
    /// The reason of ERROR, as the agent posted it; agents ignore it.
    #[schemars(with = "Option<String>", example = &"BIRD configuration failed")]
    pub error: Option<Value>,
    /// The neighbour's AS number; required.
    pub asn: Option<Digits<Asn>>,
    /// The name of the link. Default: `wg_` and the AS number.
    pub interface: Option<InterfaceName>,
    /// What kind of tunnel. Default: wireguard.
    #[serde(rename = "type")]
    pub tunnel_type: Option<TunnelType>,
    /// Where the peer listens; of a GRE tunnel, a name or an address.
    #[schemars(with = "Option<String>", example = &"example.com:51820")]
    pub endpoint: Option<String>,
    /// The keys of the tunnel: an object, a text with this object as JSON, or the public key. Required for WireGuard.
    #[schemars(with = "Option<CredentialForms>")]
    pub credential: Option<Credential>,
    /// The preshared key, if `credential` has none.
    #[schemars(with = "Option<String>", example = &"32 bytes in base64")]
    pub preshared_key: Option<Value>,
    /// The port to listen on. Default: 20000 and the last four digits of the AS number.
    pub listen_port: Option<Digits<Port>>,
    /// As `listenPort`, which has precedence.
    #[schemars(with = "Option<Digits<Port>>")]
    pub port: Option<Value>,
    /// MTU of the tunnel.
    pub mtu: Option<Digits<Mtu>>,
    /// The neighbour's link-local address. One of the three addresses is required.
    pub ipv6_link_local: Option<LinkLocal>,
    /// The neighbour's IPv6 address; a link-local one is as `ipv6LinkLocal`, which has precedence.
    pub ipv6: Option<PeerIpv6>,
    /// The neighbour's IPv4 address.
    #[serde(default, deserialize_with = "forms::ipv4")]
    #[schemars(example = &"172.20.16.140")]
    pub ipv4: Option<Ipv4Addr>,
    /// A text for people.
    #[schemars(example = &"Alice in Tokyo")]
    pub description: Option<String>,
    /// As `description`, which has precedence.
    #[schemars(with = "Option<String>", example = &"alice")]
    pub name: Option<Value>,
    /// BGP extensions, as an array of words or as one text with commas. Default: both.
    #[serde(default, deserialize_with = "forms::extensions")]
    #[schemars(with = "Option<Extensions>")]
    pub extensions: Option<BTreeSet<Extension>>,
    /// The relation to the neighbour. Default: full.
    pub policy: Option<PeeringPolicy>,
    /// The number of hops to the neighbour, 2..255. Default: the neighbour is on the link.
    #[serde(default, deserialize_with = "rules::hops")]
    #[schemars(with = "Option<Digits<u8>>", example = 2)]
    pub multihop: Option<u8>,
    /// The most routes to take; 0: the limit of the routing policy.
    #[schemars(with = "Option<Digits<u32>>", example = 1000)]
    pub import_limit: Option<u32>,
    /// The most routes to announce; 0: the limit of the routing policy.
    #[schemars(with = "Option<Digits<u32>>", example = 1000)]
    pub export_limit: Option<u32>,
    /// The password of the session (RFC 2385).
    #[serde(default, deserialize_with = "forms::password")]
    #[schemars(with = "Option<String>", length(min = 1, max = 80), example = &"a-password")]
    pub password: Option<Secret<String>>,
}

/// The keys of a tunnel in one of their forms.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum CredentialForms {
    /// The keys.
    Object(Credential),
    /// The public key, or the keys as JSON.
    Text(String),
}

/// The keys of a tunnel.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The peer's public key.
    #[serde(default, deserialize_with = "forms::public_key")]
    pub public_key: Option<PublicKey>,
    /// The preshared key, in base64; zeros mean none.
    #[serde(default, deserialize_with = "forms::preshared_key")]
    #[schemars(with = "Option<String>", example = &"32 bytes in base64")]
    pub preshared_key: Option<PresharedKey>,
}

/// BGP extensions in one of their forms.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Extensions {
    /// The words.
    Words(Vec<Extension>),
    /// The words in one text, with commas.
    Text(String),
}

/// The backbone of a router. The list is complete.
#[derive(JsonSchema)]
pub struct Mesh {
    /// All peers of this router's backbone tunnels.
    pub peers: Vec<MeshPeer>,
}

/// A peer of the backbone.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshPeer {
    /// The peer's number, and its identity: 1..65535, of one peer only.
    #[serde(deserialize_with = "rules::positive")]
    #[schemars(with = "Digits<u16>")]
    pub node_id: u16,
    /// The peer's name. Default: `node` and its number.
    pub name: Option<String>,
    /// As `name`, which has precedence.
    #[schemars(with = "Option<String>")]
    pub node_name: Option<Value>,
    /// The name of the link.
    pub interface: Option<InterfaceName>,
    /// Where the peer listens. Default: the peer calls.
    pub endpoint: Option<Endpoint>,
    /// The peer's public key. Without one, agents reject the peer and keep the tunnel that they may have.
    pub public_key: Option<PublicKey>,
    /// The port to listen on.
    pub listen_port: Option<Digits<Port>>,
    /// MTU of the tunnel.
    pub mtu: Option<Digits<Mtu>>,
    /// The peer's loopback address.
    #[serde(default, deserialize_with = "forms::ipv4")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The peer's loopback address.
    #[serde(default, deserialize_with = "forms::ipv6")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// Whether the peer is a route reflector.
    #[schemars(with = "Option<Switch>")]
    pub is_rr: Option<bool>,
    /// The peer's link-local address in the tunnel. Default: derived from AS number and number.
    pub link_local: Option<LinkLocal>,
    /// The peer's identity in the Control Plane.
    pub uuid: Option<Uid>,
}

/// The identity of a router.
#[derive(Deserialize, JsonSchema)]
pub struct Config {
    /// The node.
    pub node: Node,
}

/// A node. Other sections of the answer are ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The number of the node, 1..65535.
    #[serde(deserialize_with = "rules::positive")]
    #[schemars(with = "Digits<u16>")]
    pub id: u16,
    /// The name of the node.
    pub name: String,
    /// The region of the node, a text for people.
    pub region: Option<String>,
    /// The AS number of the network.
    pub asn: Digits<Asn>,
    /// The node's loopback address.
    #[serde(default, deserialize_with = "forms::ipv4")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The node's loopback address.
    #[serde(default, deserialize_with = "forms::ipv6")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// The node's link-local address in tunnels.
    pub link_local: Option<LinkLocal>,
}

/// The routing policy, and the internal BGP neighbours.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BirdConfig {
    /// Changes when the rest changes.
    pub config_hash: Option<String>,
    /// What the communities say of this node.
    pub node: Option<PolicyNode>,
    /// The policy.
    pub policy: Policy,
    /// All internal neighbours of this router; absent: as they are.
    #[schemars(with = "Option<Vec<IbgpPeer>>")]
    pub ibgp_peers: Option<Vec<Value>>,
}

/// What the communities say of a node.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyNode {
    /// The number of the node; agents use that of `GET config`.
    #[schemars(with = "Option<Digits<u16>>")]
    pub id: Option<Value>,
    /// The name of the node; agents use that of `GET config`.
    #[schemars(with = "Option<String>")]
    pub name: Option<Value>,
    /// The role in the backbone. Default: edge.
    #[serde(rename = "type")]
    pub node_type: Option<NodeType>,
    /// The bandwidth of the node.
    pub bandwidth: Option<Bandwidth>,
    /// The region's number in our large communities.
    pub region_code: Option<Digits<u32>>,
    /// The continent: `LC_ORIGIN_` and AS, NA, EU, OC or OTHER.
    #[serde(default, deserialize_with = "symbols::read_continent")]
    #[schemars(with = "Option<String>", regex(pattern = "^LC_ORIGIN_[A-Z]+$"))]
    pub continent_lc: Option<Continent>,
    /// The region: `LC_REGION_` and its name.
    #[serde(default, deserialize_with = "symbols::read_subregion")]
    #[schemars(with = "Option<String>", regex(pattern = "^LC_REGION_[A-Z_]+$"))]
    pub subregion_lc: Option<Region>,
    /// DN42's region community: `DN42_REGION_` and its name.
    #[serde(default, deserialize_with = "symbols::read_community")]
    #[schemars(with = "Option<String>", regex(pattern = "^DN42_REGION_[A-Z_]+$"))]
    pub region_community: Option<Region>,
    /// DN42's bandwidth community, used without `bandwidth`: `DN42_BW_1G_PLUS`.
    #[serde(default, deserialize_with = "symbols::read_bandwidth")]
    #[schemars(
        with = "Option<String>",
        regex(pattern = "^DN42_BW_[0-9.]+[KMG]_PLUS$")
    )]
    pub bandwidth_community: Option<Bandwidth>,
    /// The country's number (ISO 3166-1), 1..999.
    #[serde(default, deserialize_with = "rules::country")]
    #[schemars(with = "Option<Digits<u16>>")]
    pub country: Option<u16>,
}

/// The routing policy.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// The AS number of the network.
    pub dn42_as: Option<Digits<Asn>>,
    /// The network's IPv4 prefix.
    pub dn42_ipv4_prefix: Option<AddressRange>,
    /// The network's IPv6 prefix.
    pub dn42_ipv6_prefix: Option<AddressRange>,
    /// Further ranges of addresses that are accepted.
    #[schemars(with = "Option<Vec<AddressRange>>")]
    pub extra_ranges: Option<Vec<Value>>,
    /// RPKI servers.
    #[schemars(with = "Option<Vec<RpkiServer>>")]
    pub rpki_servers: Option<Vec<Value>>,
    /// Whether routes without a ROA are rejected. Default: no.
    #[schemars(with = "Option<Switch>")]
    pub reject_unknown_roa: Option<bool>,
    /// The most routes to take from an external neighbour.
    #[schemars(example = 9000)]
    pub ebgp_import_limit: Option<Digits<u32>>,
    /// The most routes to announce to an external neighbour.
    #[schemars(example = 100)]
    pub ebgp_export_limit: Option<Digits<u32>>,
    /// The most routes to take from an internal neighbour.
    #[schemars(example = 50000)]
    pub ibgp_import_limit: Option<Digits<u32>>,
    /// The most routes to announce to an internal neighbour.
    #[schemars(example = 50000)]
    pub ibgp_export_limit: Option<Digits<u32>>,
    /// The longest AS path.
    #[schemars(example = 10)]
    pub as_path_max_len: Option<Digits<u32>>,
}

/// An RPKI server.
#[derive(Deserialize, JsonSchema)]
pub struct RpkiServer {
    /// Name or address.
    pub host: Host,
    /// The TCP port.
    pub port: Digits<Port>,
}

/// An internal BGP neighbour.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IbgpPeer {
    /// The neighbour's number, and its identity: 1..65535, of one neighbour only.
    #[serde(deserialize_with = "rules::positive")]
    #[schemars(with = "Digits<u16>")]
    pub node_id: u16,
    /// The neighbour's name. Default: `node` and its number.
    pub name: Option<String>,
    /// As `name`, which has precedence.
    #[schemars(with = "Option<String>")]
    pub node_name: Option<Value>,
    /// The neighbour's loopback address. One of the two is required.
    #[serde(default, deserialize_with = "forms::ipv4")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The neighbour's loopback address.
    #[serde(default, deserialize_with = "forms::ipv6")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// Whether the neighbour is a route reflector.
    #[schemars(with = "Option<Switch>")]
    pub is_rr: Option<bool>,
}
