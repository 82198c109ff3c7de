use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::document::{Kind, Spec};
use crate::model::{
    AdminState, Asn, Endpoint, Extension, InterfaceName, LinkLocal, Mtu, PeerIpv6, PeeringPolicy,
    Port, PublicKey, TunnelType,
};

/// One external peering: a tunnel and the BGP session in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpSessionSpec {
    /// The administrative state.
    #[serde(default)]
    pub admin_state: AdminState,
    /// The peer's AS number.
    pub asn: Asn,
    /// Text for humans. Default: `AS<asn>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "Example Networks, noc@example.com")]
    pub description: Option<String>,
    /// The tunnel that carries the session.
    #[serde(default)]
    pub tunnel: TunnelSpec,
    /// The addresses in the tunnel.
    #[serde(default)]
    pub address: AddressSpec,
    /// The BGP session.
    #[serde(default)]
    pub bgp: BgpSpec,
}

impl Spec for BgpSessionSpec {
    const KIND: Kind = Kind::BgpSession;

    fn minimal() -> Value {
        json!({"asn": 4_242_420_000u32})
    }

    fn patch_example() -> Option<Value> {
        Some(json!({"tunnel": {"mtu": 1380}}))
    }
}

/// The tunnel of a peering.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelSpec {
    /// How the peering is carried.
    #[serde(default, rename = "type")]
    pub tunnel_type: TunnelType,
    /// Name of the tunnel's interface. Default: `wg_<asn>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// This router's UDP port. Default: `2` and the last four digits of the peer's ASN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<Port>,
    /// MTU in bytes. Default: 1420.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1420))]
    pub mtu: Option<Mtu>,
    /// The peer's WireGuard public key; required for WireGuard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
    /// The file below the state directory that holds the preshared key: `secrets/<name>.psk`.
    #[serde(
        default,
        deserialize_with = "super::rules::secret_file",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(
        regex(pattern = r"^secrets/[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
        example = "secrets/wg_4242421080.psk"
    )]
    pub preshared_key_file: Option<String>,
    /// The peer's endpoint. Absent: the agent waits for the peer to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives, 0 for none. Default: the configuration's, 25.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 25)]
    pub persistent_keepalive: Option<u16>,
    /// This router's outer address of a GRE tunnel. Default: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "192.0.2.1")]
    pub local_address: Option<IpAddr>,
    /// Take over an existing WireGuard interface of this name that does not carry the agent's mark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// The addresses in a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddressSpec {
    /// The peer's link-local address; the BGP neighbour when present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_link_local: Option<LinkLocal>,
    /// The peer's other IPv6 address; the BGP neighbour when there is no link-local one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_ipv6: Option<PeerIpv6>,
    /// The peer's IPv4 address; the BGP neighbour when there is no IPv6 one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "172.20.0.1")]
    pub peer_ipv4: Option<Ipv4Addr>,
    /// This router's link-local address. Default: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_link_local: Option<LinkLocal>,
    /// This router's IPv6 address towards `peerIpv6`. Default: the node's loopback address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ipv6: Option<PeerIpv6>,
    /// This router's IPv4 address towards `peerIpv4`. Default: the node's loopback address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "172.23.105.177")]
    pub local_ipv4: Option<Ipv4Addr>,
}

/// The BGP session of a peering.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpSpec {
    /// What the session announces. Default: `mp-bgp` and `extended-nexthop`. Without `mp-bgp` there is
    /// one session for each address family that has a peer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = ["mp-bgp", "extended-nexthop"]))]
    pub extensions: Option<BTreeSet<Extension>>,
    /// The relation to the neighbour.
    #[serde(default)]
    pub policy: PeeringPolicy,
    /// Hops to a neighbour that is not on the link. Default: directly connected.
    #[serde(
        default,
        deserialize_with = "super::rules::hops",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 2, max = 255), example = 2)]
    pub multihop: Option<u8>,
    /// The file below the state directory that holds the session's password (RFC 2385): `secrets/<name>.bgp`.
    #[serde(
        default,
        deserialize_with = "super::rules::secret_file",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(
        regex(pattern = r"^secrets/[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
        example = "secrets/wg_4242421080.bgp"
    )]
    pub password_file: Option<String>,
    /// Prefixes taken from the neighbour, for each family. Default: the routing policy's.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), example = 5000)]
    pub import_limit: Option<u32>,
    /// Prefixes announced before a warning, for each family. Default: the routing policy's.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), example = 1000)]
    pub export_limit: Option<u32>,
    /// Drain this session alone, as maintenance drains all (RFC 8326).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
}
