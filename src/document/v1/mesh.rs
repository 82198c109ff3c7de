use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::document::{Kind, Spec};
use crate::model::{AdminState, Endpoint, InterfaceName, LinkLocal, Mtu, Port, PublicKey, Uid};

/// One backbone tunnel to another router of the network (`GET mesh`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshPeerSpec {
    /// The administrative state.
    #[serde(default)]
    pub admin_state: AdminState,
    /// The peer's node id.
    #[serde(deserialize_with = "super::rules::positive")]
    #[schemars(range(min = 1), example = 2)]
    pub node_id: u16,
    /// Name of the tunnel's interface. Default: `mesh_<name>`, cut to 15 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// Where the peer listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// The peer's WireGuard public key.
    pub public_key: PublicKey,
    /// This router's UDP port. Default: `mesh.listenPortBase` and the peer's node id added up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<Port>,
    /// MTU in bytes. Default: 1420.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1420))]
    pub mtu: Option<Mtu>,
    /// The peer's loopback IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "172.23.105.178")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The peer's loopback IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "fd48:4242:420::2")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// Whether the peer is a route reflector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_rr: Option<bool>,
    /// The peer's link-local address in the tunnel, which is probed. Default: derived from our ASN and its
    /// node id, as every router of the network does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_local: Option<LinkLocal>,
    /// The tunnel's uuid in reports to the Control Plane. Absent: it is not reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uid>,
}

impl Spec for MeshPeerSpec {
    const KIND: Kind = Kind::MeshPeer;

    fn minimal() -> Value {
        // Any valid public key; all zeros would mean no key.
        json!({"nodeId": 1, "publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="})
    }

    fn patch_example() -> Option<Value> {
        Some(json!({"mtu": 1380}))
    }
}

/// A specification of another node of the network, which its node id identifies.
pub trait PeerSpec: Spec {
    /// Returns the node id.
    fn node_id(&self) -> u16;

    /// Returns whether both are the same router, if the network gave it another node id.
    fn is_same_peer(&self, other: &Self) -> bool;
}

impl PeerSpec for MeshPeerSpec {
    fn node_id(&self) -> u16 {
        self.node_id
    }

    fn is_same_peer(&self, other: &Self) -> bool {
        self.public_key == other.public_key
    }
}

impl PeerSpec for IbgpPeerSpec {
    fn node_id(&self) -> u16 {
        self.node_id
    }

    fn is_same_peer(&self, other: &Self) -> bool {
        let loopbacks = |it: &Self| (it.loopback_ipv4, it.loopback_ipv6);
        loopbacks(self) == loopbacks(other)
    }
}

/// One internal BGP neighbour (`ibgpPeers` of `GET bird-config`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IbgpPeerSpec {
    /// The administrative state.
    #[serde(default)]
    pub admin_state: AdminState,
    /// The neighbour's node id.
    #[serde(deserialize_with = "super::rules::positive")]
    #[schemars(range(min = 1), example = 2)]
    pub node_id: u16,
    /// The neighbour's loopback IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "172.23.105.178")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The neighbour's loopback IPv6 address; the session runs over it when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "fd48:4242:420::2")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// Whether the neighbour is a route reflector.
    #[serde(default)]
    pub is_rr: bool,
}

impl Spec for IbgpPeerSpec {
    const KIND: Kind = Kind::IbgpPeer;

    fn minimal() -> Value {
        json!({"nodeId": 1})
    }

    fn patch_example() -> Option<Value> {
        Some(json!({"adminState": "Disabled"}))
    }
}
