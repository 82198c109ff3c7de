//! Facts about an object for the chain of causes; one file per subsystem.

mod bgp;
mod documents;
mod tunnel;

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;

use super::reach;
use super::why::{self, Facts, Link, Tunnel, Uplink};
use crate::cli::offline::Offline;
use crate::controller::world::{self, Object};
use crate::document::{ConditionStatus, ConditionType, StatusBody};
use crate::kernel::source_towards;
use crate::model::{Endpoint, InterfaceName, PublicKey, TunnelType};
use crate::observed::kernel::WireGuardPeer;
use crate::observed::{Mark, kernel};

pub(super) use bgp::state_word;

/// The wanted parts of an object that can be observed.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    interface: Option<InterfaceName>,
    pub(super) peer: Option<PublicKey>,
    endpoint: Option<&'a Endpoint>,
    /// Whether the link requires the endpoint's address, as GRE does.
    needs_address: bool,
    /// The BGP sessions.
    pub(super) protocols: Vec<Neighbour>,
}

/// One wanted BGP session.
pub(super) struct Neighbour {
    pub(super) protocol: String,
    /// Unknown for a session that is applied but not wanted.
    address: Option<IpAddr>,
    source: Option<IpAddr>,
}

/// Returns the wanted parts of an object.
pub(super) fn wanted<'a>(offline: &'a Offline, object: &Object) -> Wanted<'a> {
    match offline
        .world
        .objects
        .get(&object.key())
        .and_then(Object::wanted)
    {
        Some(world::Wanted::Session(session, _)) => Wanted {
            interface: Some(session.tunnel.interface.clone()),
            peer: session.tunnel.peer,
            endpoint: session.tunnel.endpoint.as_ref(),
            needs_address: session.tunnel.kind != TunnelType::Wireguard,
            protocols: session.neighbours.iter().map(neighbour).collect(),
        },
        Some(world::Wanted::Mesh(tunnel)) => Wanted {
            interface: Some(tunnel.interface.clone()),
            peer: Some(tunnel.peer),
            endpoint: tunnel.endpoint.as_ref(),
            ..Wanted::default()
        },
        Some(world::Wanted::Ibgp(peer)) => Wanted {
            protocols: vec![Neighbour {
                protocol: peer.protocol.clone(),
                address: Some(peer.address),
                source: None,
            }],
            ..Wanted::default()
        },
        None => as_it_is(offline, object),
    }
}

fn neighbour(of: &crate::effective::Neighbour) -> Neighbour {
    Neighbour {
        protocol: of.protocol.clone(),
        address: Some(of.address),
        source: Some(of.source),
    }
}

/// Returns the parts of an object that does not change: the applied ones, or else those of its specification.
fn as_it_is<'a>(offline: &'a Offline, object: &Object) -> Wanted<'a> {
    let applied = offline
        .applied(object.kind, &object.name)
        .map(|applied| &applied.applied);
    let spec = applied
        .and_then(|applied| applied.spec.as_ref())
        .or(object.spec.as_ref());
    let text = |pointer: &str| spec.and_then(|spec| spec.pointer(pointer)?.as_str());
    let interface = text("/tunnel/interface").or_else(|| text("/interface"));
    let peer = text("/tunnel/publicKey").or_else(|| text("/publicKey"));
    let protocols = applied.iter().flat_map(|applied| &applied.protocols);
    let in_force = |protocol: &String| Neighbour {
        protocol: protocol.clone(),
        address: None,
        source: None,
    };
    Wanted {
        interface: interface.and_then(|name| name.parse().ok()),
        peer: peer.and_then(|key| key.parse().ok()),
        protocols: protocols.map(in_force).collect(),
        ..Wanted::default()
    }
}

/// Returns the link that carries the object's mark.
pub(super) fn link<'a>(
    offline: &'a Offline,
    object: &'a Object,
) -> Option<(&'a InterfaceName, &'a kernel::Link)> {
    offline.kernel.owned_by(&object.uid).next()
}

/// Returns the WireGuard peer of the link.
pub(super) fn peer<'a>(link: &'a kernel::Link, wanted: &Wanted<'_>) -> Option<&'a WireGuardPeer> {
    link.wireguard.as_ref()?.peers.get(&wanted.peer?)
}

/// Gathers all facts for the chain.
pub(super) async fn gather(
    offline: &Offline,
    object: &Object,
    wanted: &Wanted<'_>,
    status: Option<&StatusBody>,
    agent_runs: bool,
) -> Facts {
    let documents = documents::documents(offline, object, status, agent_runs);
    let drift = tunnel::drift(offline, object);
    // The daemon's last failure is over when there is nothing left to do.
    let failed =
        condition(status, ConditionType::TunnelConfigured, "Failed").filter(|_| !drift.is_empty());
    let tunnel = Tunnel {
        needs_address: wanted.needs_address,
        unresolved: wanted
            .endpoint
            .and_then(|endpoint| tunnel::unresolved(offline, endpoint)),
        failed,
        link: tunnel::link_facts(offline, object, wanted),
        drift,
        agent_runs,
        name: object.path(),
    };
    let mut facts = Facts {
        documents,
        tunnel,
        bird: bgp::bird(offline, object, wanted, status),
    };
    if !why::is_up(&facts) && facts.documents.off.is_none() {
        ask_the_network(offline, object, wanted, &mut facts).await;
    }
    facts
}

/// Returns the link with the source address that the kernel uses for an endpoint.
fn uplink(offline: &Offline, endpoint: IpAddr) -> Option<Uplink> {
    let source = source_towards(endpoint)?;
    let has_source = |link: &kernel::Link| {
        link.addresses
            .iter()
            .any(|address| address.local.addr() == source)
    };
    let mut links = offline.kernel.links.iter();
    let (name, link) = links.find(|(_, link)| has_source(link))?;
    // The node's own addresses are not an uplink.
    (name.as_str() != "lo").then(|| Uplink {
        name: name.to_string(),
        up: link.up,
        is_tunnel: link.wireguard.is_some() && matches!(link.mark, Mark::Ours(_)),
    })
}

/// Returns the message of a condition that fails for this reason, as the daemon recorded it.
fn condition(status: Option<&StatusBody>, about: ConditionType, reason: &str) -> Option<String> {
    let mut conditions = status?.conditions.iter();
    let found = conditions.find(|condition| {
        condition.condition_type == about
            && condition.status == ConditionStatus::False
            && condition.reason == reason
    });
    found.map(|condition| condition.message.clone())
}

fn since(second: i64) -> i64 {
    (Timestamp::now().as_second() - second).max(0)
}

/// Probes the network for a session that is not up: whether the endpoint's port is open, and, in
/// a working tunnel, which addresses answer.
async fn ask_the_network(
    offline: &Offline,
    object: &Object,
    wanted: &Wanted<'_>,
    facts: &mut Facts,
) {
    let Some((name, link)) = link(offline, object).filter(|(_, link)| link.up) else {
        return;
    };
    let endpoint = peer(link, wanted).and_then(|peer| peer.endpoint);
    let has_handshakes = link.wireguard.is_some();
    if let (Some(Link::Up(_, Some(peer))), Some(endpoint)) = (&mut facts.tunnel.link, endpoint)
        && !peer.is_fresh()
    {
        peer.uplink = uplink(offline, endpoint.ip());
        peer.answer = reach::datagram(endpoint).await;
    }
    if has_handshakes && facts.tunnel.fresh().is_none() {
        return;
    }
    let ours: BTreeSet<IpAddr> = link
        .addresses
        .iter()
        .map(|address| address.local.addr())
        .collect();
    let sessions = facts.bird.iter_mut().flat_map(|bird| &mut bird.sessions);
    for session in sessions.filter(|session| !session.established) {
        let Some(address) = session.neighbour else {
            continue;
        };
        let others = async {
            match address {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                    reach::everybody(name, link.index).await
                }
                _ => BTreeSet::new(),
            }
        };
        let (answers, others) = tokio::join!(reach::echo(address, name), others);
        session.answers = answers;
        session.others = others.difference(&ours).copied().collect();
    }
}
