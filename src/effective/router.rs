use std::net::{Ipv4Addr, Ipv6Addr};

use crate::document::NodeSpec;
use crate::model::{Asn, LinkLocal, PublicKey};

/// The identity of this router, with every derived value filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The `:router` of the API.
    pub name: String,
    /// Number of the router in its network.
    pub id: u16,
    pub asn: Asn,
    /// The region, as free text from the operator.
    pub region: Option<String>,
    /// The BGP identifier.
    pub router_id: Ipv4Addr,
    pub loopback_ipv4: Option<Ipv4Addr>,
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// The link-local address of this router in every tunnel.
    pub link_local: LinkLocal,
    /// The WireGuard public key of this router, if known.
    pub public_key: Option<PublicKey>,
}

impl Router {
    /// Derives the values that the specification omits.
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
