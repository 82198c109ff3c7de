use std::net::IpAddr;

use serde::Serialize;

use super::{Bounds, some};
use crate::effective::{Neighbour, Session};
use crate::model::{AdminState, PeeringPolicy};
use crate::render::{LinkClass, RenderError};

/// Factor from the import limit to the receive limit, which includes rejected routes. Far above what a
/// neighbour in DN42 ever sends, and far below what fills a small router's memory.
const RECEIVE_FACTOR: u32 = 10;

/// The variables of a session's template besides those of every template.
// No `Debug`, here and for `Peer`: it contains a password.
#[derive(Serialize)]
pub(in crate::render) struct Peering<'a> {
    session: Peer<'a>,
    link: Link,
}

/// A session.
#[derive(Serialize)]
struct Peer<'a> {
    name: &'a str,
    asn: u32,
    description: &'a str,
    interface: &'a str,
    policy: String,
    relation: &'static str,
    announce_all: bool,
    disabled: bool,
    drained: bool,
    multihop: Option<u8>,
    link_protocol: String,
    password: Option<&'a str>,
    import_limit: u32,
    receive_limit: u32,
    export_limit: Option<u32>,
    neighbours: Vec<Side<'a>>,
}

/// One BGP session of it.
#[derive(Debug, Serialize)]
struct Side<'a> {
    protocol: &'a str,
    address: IpAddr,
    source: IpAddr,
    ipv4: bool,
    ipv6: bool,
    extended_next_hop: bool,
}

/// The classes of the link; 0 means unknown.
#[derive(Debug, Serialize)]
struct Link {
    latency: u8,
    bandwidth: u8,
    crypto: u8,
    link_type: u8,
    loss: u8,
    mbit: u32,
}

impl<'a> Peering<'a> {
    pub(in crate::render) fn new(
        session: &'a Session,
        ebgp_disabled: bool,
        limits: Bounds,
        link: &LinkClass,
    ) -> Result<Self, RenderError> {
        let sides = session.neighbours.iter().map(side).collect::<Vec<_>>();
        check(session)?;
        let import_limit = some(session.import_limit).unwrap_or(limits.ebgp_import);
        let peer = Peer {
            name: session.name.as_str(),
            asn: session.asn.get(),
            description: &session.description,
            interface: session.tunnel.interface.as_str(),
            policy: session.policy.to_string(),
            relation: relation(session.policy),
            announce_all: matches!(
                session.policy,
                PeeringPolicy::Full | PeeringPolicy::Downstream
            ),
            disabled: ebgp_disabled || session.admin_state != AdminState::Enabled,
            drained: session.drained,
            multihop: session.multihop,
            link_protocol: format!("moe_link_{}", session.name),
            password: session
                .password
                .as_ref()
                .map(|secret| secret.expose().as_str()),
            import_limit,
            receive_limit: import_limit.saturating_mul(RECEIVE_FACTOR),
            export_limit: some(session.export_limit).or(limits.ebgp_export),
            neighbours: sides,
        };
        Ok(Self {
            session: peer,
            link: classes(link),
        })
    }
}

/// Returns the name of the neighbour's relation, as `moenet/defines.conf` defines it.
fn relation(policy: PeeringPolicy) -> &'static str {
    match policy {
        PeeringPolicy::Full => "MOE_FULL",
        PeeringPolicy::Peer => "MOE_PEER",
        PeeringPolicy::Downstream => "MOE_DOWNSTREAM",
        PeeringPolicy::Upstream => "MOE_UPSTREAM",
    }
}

/// Validates a session. BIRD rejects a link-local neighbour that is more than a hop away, on every version.
fn check(session: &Session) -> Result<(), RenderError> {
    let link_local = |neighbour: &Neighbour| match neighbour.address {
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
        IpAddr::V4(v4) => v4.is_link_local(),
    };
    if session.multihop.is_some() && session.neighbours.iter().any(link_local) {
        let reason = "a neighbour with a link-local address is directly connected; remove one of the two \
             fields";
        return Err(RenderError::input("spec.bgp.multihop", reason));
    }
    Ok(())
}

fn side(neighbour: &Neighbour) -> Side<'_> {
    Side {
        protocol: &neighbour.protocol,
        address: neighbour.address,
        source: neighbour.source,
        ipv4: neighbour.ipv4,
        ipv6: neighbour.ipv6,
        extended_next_hop: neighbour.extended_next_hop,
    }
}

fn classes(link: &LinkClass) -> Link {
    Link {
        latency: link.latency.unwrap_or(0),
        bandwidth: link.bandwidth.unwrap_or(0),
        crypto: link.crypto,
        link_type: link.link_type,
        loss: link.loss.unwrap_or(0),
        mbit: link.mbit.unwrap_or(0),
    }
}
