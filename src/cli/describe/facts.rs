//! What is observed about an object, gathered for the chain of causes.

use std::net::IpAddr;

use super::why::{Bird, Facts, Link, Peer, Session};
use crate::bird::{Protocol, ProtocolState};
use crate::cli::objects::Object;
use crate::cli::offline::Offline;
use crate::controller::Key;
use crate::controller::world::Intent;
use crate::document::{ConditionStatus, ConditionType, Kind, StatusBody};
use crate::model::{Endpoint, Host, InterfaceName, PublicKey};
use crate::plan::kernel_view::{self, Mark, WireGuardPeer};
use crate::status::Acceptance;

/// What is wanted of an object, as far as it can be looked for.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    interface: Option<InterfaceName>,
    pub(super) peer: Option<PublicKey>,
    endpoint: Option<&'a Endpoint>,
    /// Protocols with the address of each one's neighbour.
    pub(super) protocols: Vec<(String, IpAddr)>,
}

/// What is wanted of an object.
pub(super) fn wanted<'a>(offline: &'a Offline, object: &Object<'_>) -> Wanted<'a> {
    let world = &offline.world;
    match object.kind {
        Kind::BgpSession => match world.sessions.get(object.name).map(|entry| &entry.intent) {
            Some(Intent::Present(session, _)) => Wanted {
                interface: Some(session.tunnel.interface.clone()),
                peer: session.tunnel.peer,
                endpoint: session.tunnel.endpoint.as_ref(),
                protocols: session.neighbours.iter().map(|n| (n.protocol.clone(), n.address)).collect(),
            },
            _ => by_specification(object),
        },
        Kind::MeshPeer => match world.mesh.get(object.name).map(|entry| &entry.intent) {
            Some(Intent::Present(tunnel, _)) => Wanted {
                interface: Some(tunnel.interface.clone()),
                peer: Some(tunnel.peer),
                endpoint: tunnel.endpoint.as_ref(),
                protocols: Vec::new(),
            },
            _ => by_specification(object),
        },
        _ => match world.ibgp.get(object.name).map(|entry| &entry.intent) {
            Some(Intent::Present(peer, _)) => {
                Wanted { protocols: vec![(peer.protocol.clone(), peer.address)], ..Wanted::default() }
            }
            _ => Wanted::default(),
        },
    }
}

/// As far as the specification goes, of an object that is not to be changed now.
fn by_specification<'a>(object: &Object<'_>) -> Wanted<'a> {
    let text = |pointer: &str| object.spec.and_then(|spec| spec.pointer(pointer)?.as_str());
    let interface = text("/tunnel/interface").or_else(|| text("/interface"));
    let peer = text("/tunnel/publicKey").or_else(|| text("/publicKey"));
    Wanted {
        interface: interface.and_then(|name| name.parse().ok()),
        peer: peer.and_then(|key| key.parse().ok()),
        ..Wanted::default()
    }
}

/// The link that carries the object's mark.
pub(super) fn link<'a>(
    offline: &'a Offline,
    object: &'a Object<'_>,
) -> Option<(&'a InterfaceName, &'a kernel_view::Link)> {
    offline.kernel.owned_by(object.uid).next()
}

/// The peer on it.
pub(super) fn peer<'a>(link: &'a kernel_view::Link, wanted: &Wanted<'_>) -> Option<&'a WireGuardPeer> {
    link.wireguard.as_ref()?.peers.get(&wanted.peer?)
}

/// Everything for the chain.
pub(super) fn gather(
    offline: &Offline,
    object: &Object<'_>,
    wanted: &Wanted<'_>,
    status: Option<&StatusBody>,
) -> Facts {
    let maintenance = offline.world.maintenance;
    let external = object.kind == Kind::BgpSession;
    let mut facts = Facts {
        paused: object.paused.map(str::to_owned),
        held: object.held.map(str::to_owned),
        admin_state: object.admin_state,
        drained: maintenance.enabled,
        disabled_by_maintenance: external && maintenance.ebgp_disabled,
        unresolved: wanted.endpoint.and_then(|endpoint| unresolved(offline, endpoint)),
        failed: condition(status, ConditionType::TunnelConfigured, "Failed"),
        link: tunnel(offline, object, wanted),
        drift: drift(offline, object),
        bird: bird(offline, object, wanted, status),
        ..Facts::default()
    };
    match object.acceptance {
        Acceptance::Valid => {}
        Acceptance::Invalid(why) => facts.invalid = Some(why.clone()),
        Acceptance::Clash(why) => facts.clash = Some(why.clone()),
        Acceptance::Waiting(why) => facts.waiting = Some(why.clone()),
    }
    facts
}

fn unresolved(offline: &Offline, endpoint: &Endpoint) -> Option<(String, String)> {
    let Host::Name(name) = &endpoint.host else { return None };
    let resolution = offline.parts.context.resolver.current(endpoint);
    if resolution.address.is_some() {
        return None;
    }
    let why = resolution.error.unwrap_or_else(|| "no answer within three seconds".to_owned());
    Some((name.to_string(), why))
}

/// The message of a condition that fails for this reason, as the daemon noted it.
fn condition(status: Option<&StatusBody>, about: ConditionType, reason: &str) -> Option<String> {
    let mut conditions = status?.conditions.iter();
    let found = conditions.find(|condition| {
        condition.condition_type == about
            && condition.status == ConditionStatus::False
            && condition.reason == reason
    });
    found.map(|condition| condition.message.clone())
}

fn tunnel(offline: &Offline, object: &Object<'_>, wanted: &Wanted<'_>) -> Option<Link> {
    if object.kind == Kind::IbgpPeer {
        return None;
    }
    if let Some((name, link)) = link(offline, object) {
        let name = name.to_string();
        let port = link.wireguard.as_ref().and_then(|wireguard| wireguard.listen_port);
        let peer = peer(link, wanted).map(|peer| observed(peer, port.map(|port| port.get())));
        return Some(if link.up { Link::Up(name, peer) } else { Link::Down(name) });
    }
    let name = wanted.interface.as_ref()?;
    Some(match offline.kernel.links.get(name) {
        None => Link::Missing(name.to_string()),
        Some(link) => Link::Foreign(name.to_string(), whose(&link.mark)),
    })
}

fn whose(mark: &Mark) -> String {
    match mark {
        Mark::None => "it carries no mark".to_owned(),
        Mark::Ours(uid) => format!("it is {uid}'s"),
        Mark::Foreign(alias) => format!("its alias is {}", crate::model::shown(alias)),
    }
}

fn observed(peer: &WireGuardPeer, port: Option<u16>) -> Peer {
    let now = jiff::Timestamp::now().as_second();
    Peer {
        handshake_age: peer.last_handshake.map(|at| (now - at.as_second()).max(0)),
        received: peer.rx_bytes,
        sent: peer.tx_bytes,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        port,
    }
}

/// The object's key in the controller.
fn key(object: &Object<'_>) -> Key {
    let name = object.name.clone();
    match object.kind {
        Kind::MeshPeer => Key::Mesh(name),
        Kind::IbgpPeer => Key::Ibgp(name),
        _ => Key::Session(name),
    }
}

fn drift(offline: &Offline, object: &Object<'_>) -> Vec<String> {
    match offline.plan(&key(object)) {
        Ok(plan) => plan.steps.iter().map(|step| step.because.to_string()).collect(),
        Err(refusal) => vec![refusal.to_string()],
    }
}

fn bird(
    offline: &Offline,
    object: &Object<'_>,
    wanted: &Wanted<'_>,
    status: Option<&StatusBody>,
) -> Option<Bird> {
    if object.kind == Kind::MeshPeer {
        return None;
    }
    let state = &offline.bird;
    let find = |name: &String| state.protocols.iter().find(|protocol| protocol.name == *name);
    let sessions = wanted.protocols.iter().map(|(name, address)| match find(name) {
        Some(protocol) => session(protocol, *address),
        None => Session { protocol: name.clone(), ..Session::default() },
    });
    Some(Bird {
        running: state.is_running(),
        refused: condition(status, ConditionType::BirdConfigured, "Refused"),
        loaded: state.loaded,
        sessions: sessions.collect(),
    })
}

fn session(protocol: &Protocol, wanted: IpAddr) -> Session {
    let bgp = protocol.bgp.as_ref();
    Session {
        protocol: protocol.name.clone(),
        state: bgp.map(|bgp| format!("{:?}", bgp.state)),
        established: protocol.is_established(),
        off: protocol.state == ProtocolState::Down,
        last_error: bgp.and_then(|bgp| bgp.last_error.clone()),
        message: protocol.message.clone(),
        wrong_address: bgp.and_then(|bgp| wrong_address(bgp.neighbor_address.as_deref()?, wanted)),
        limits: limits(protocol),
    }
}

/// BIRD's neighbour, when it is not the one that is wanted.
fn wrong_address(has: &str, wanted: IpAddr) -> Option<(String, String)> {
    let bare: IpAddr = has.split('%').next()?.parse().ok()?;
    (bare != wanted).then(|| (has.to_owned(), wanted.to_string()))
}

fn limits(protocol: &Protocol) -> Vec<String> {
    let named = protocol.channels.iter().flat_map(|channel| {
        let all = [
            ("import", &channel.import_limit),
            ("receive", &channel.receive_limit),
            ("export", &channel.export_limit),
        ];
        all.into_iter().filter_map(move |(word, limit)| {
            let limit = limit.as_ref().filter(|limit| limit.hit)?;
            let action = limit.action.as_ref().map(|action| format!(" ({action})")).unwrap_or_default();
            Some(format!("{} {word} limit of {}{action}", channel.name, limit.limit))
        })
    });
    named.collect()
}
