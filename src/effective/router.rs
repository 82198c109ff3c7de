use std::net::{Ipv4Addr, Ipv6Addr};

use crate::document::NodeSpec;
use crate::model::{Asn, LinkLocal, PublicKey};

/// Who this router is, with nothing left to derive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The `:router` of the API.
    pub name: String,
    /// Number of the router in its network.
    pub id: u16,
    /// Our AS number.
    pub asn: Asn,
    /// Where it stands, in the operator's words.
    pub region: Option<String>,
    /// The BGP identifier.
    pub router_id: Ipv4Addr,
    /// The loopback IPv4 address.
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The loopback IPv6 address.
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// Our side of every tunnel.
    pub link_local: LinkLocal,
    /// Our WireGuard public key, where it is known.
    pub public_key: Option<PublicKey>,
}

impl Router {
    /// Derives what the specification leaves open.
    pub fn new(name: &str, node: &NodeSpec, public_key: impl Into<Option<PublicKey>>) -> Self {
        Self {
            name: name.to_owned(),
            id: node.id,
            asn: node.asn,
            region: node.region.clone(),
            router_id: node.router_id(),
            loopback_ipv4: node.loopback_ipv4,
            loopback_ipv6: node.loopback_ipv6,
            link_local: node.link_local(),
            public_key: public_key.into(),
        }
    }
}
