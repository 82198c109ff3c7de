//! What is observed about an object, gathered for the chain of causes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use super::reach;
use super::why::{self, Bird, Documents, Exception, Facts, Link, Off, Overridden, Peer, Session, Tunnel};
use crate::bird::{BgpState, Protocol, ProtocolState};
use crate::cli::diff::value_at;
use crate::cli::objects::Object;
use crate::cli::offline::Offline;
use crate::controller::Key;
use crate::controller::world::Intent;
use crate::document::{ConditionStatus, ConditionType, Kind, StatusBody};
use crate::model::{AdminState, Endpoint, Host, InterfaceName, PublicKey};
use crate::plan::Action;
use crate::plan::kernel_view::{self, Mark, WireGuardPeer};
use crate::status::Acceptance;

/// What is wanted of an object, as far as it can be looked for.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    interface: Option<InterfaceName>,
    pub(super) peer: Option<PublicKey>,
    endpoint: Option<&'a Endpoint>,
    /// The BGP sessions.
    pub(super) protocols: Vec<Neighbour>,
}

/// One BGP session that is wanted.
pub(super) struct Neighbour {
    pub(super) protocol: String,
    /// Not known of one that is in force and not wanted.
    address: Option<IpAddr>,
    source: Option<IpAddr>,
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
                protocols: session.neighbours.iter().map(neighbour).collect(),
            },
            _ => as_it_is(offline, object),
        },
        Kind::MeshPeer => match world.mesh.get(object.name).map(|entry| &entry.intent) {
            Some(Intent::Present(tunnel, _)) => Wanted {
                interface: Some(tunnel.interface.clone()),
                peer: Some(tunnel.peer),
                endpoint: tunnel.endpoint.as_ref(),
                protocols: Vec::new(),
            },
            _ => as_it_is(offline, object),
        },
        _ => match world.ibgp.get(object.name).map(|entry| &entry.intent) {
            Some(Intent::Present(peer, _)) => {
                let (protocol, address) = (peer.protocol.clone(), Some(peer.address));
                Wanted { protocols: vec![Neighbour { protocol, address, source: None }], ..Wanted::default() }
            }
            _ => as_it_is(offline, object),
        },
    }
}

fn neighbour(of: &crate::effective::Neighbour) -> Neighbour {
    Neighbour { protocol: of.protocol.clone(), address: Some(of.address), source: Some(of.source) }
}

/// Of an object that stays as it is: what is in force for it, and else what its specification says.
fn as_it_is<'a>(offline: &'a Offline, object: &Object<'_>) -> Wanted<'a> {
    let applied = offline.applied(object.kind, object.name).map(|applied| &applied.applied);
    let spec = applied.and_then(|applied| applied.spec.as_ref()).or(object.spec);
    let text = |pointer: &str| spec.and_then(|spec| spec.pointer(pointer)?.as_str());
    let interface = text("/tunnel/interface").or_else(|| text("/interface"));
    let peer = text("/tunnel/publicKey").or_else(|| text("/publicKey"));
    let protocols = applied.iter().flat_map(|applied| &applied.protocols);
    let in_force = |protocol: &String| Neighbour { protocol: protocol.clone(), address: None, source: None };
    Wanted {
        interface: interface.and_then(|name| name.parse().ok()),
        peer: peer.and_then(|key| key.parse().ok()),
        protocols: protocols.map(in_force).collect(),
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
pub(super) async fn gather(
    offline: &Offline,
    object: &Object<'_>,
    wanted: &Wanted<'_>,
    status: Option<&StatusBody>,
    agent_runs: bool,
) -> Facts {
    let documents = documents(offline, object, status, agent_runs);
    let drift = drift(offline, object);
    // What the daemon failed at is over when there is nothing left to do.
    let failed = condition(status, ConditionType::TunnelConfigured, "Failed").filter(|_| !drift.is_empty());
    let tunnel = Tunnel {
        unresolved: wanted.endpoint.and_then(|endpoint| unresolved(offline, endpoint)),
        failed,
        link: link_facts(offline, object, wanted),
        drift,
        agent_runs,
        name: object.path(),
    };
    let mut facts = Facts { documents, tunnel, bird: bird(offline, object, wanted, status) };
    if !why::is_up(&facts) && facts.documents.off.is_none() {
        ask_the_network(offline, object, wanted, &mut facts).await;
    }
    facts
}

fn documents(
    offline: &Offline,
    object: &Object<'_>,
    status: Option<&StatusBody>,
    agent_runs: bool,
) -> Documents {
    let maintenance = offline.world.maintenance;
    let external = object.kind == Kind::BgpSession;
    let mut found = Documents {
        object: object.path(),
        in_force: offline
            .applied(object.kind, object.name)
            .is_some_and(|applied| applied.applied.spec.is_some()),
        paused: object.paused.map(str::to_owned),
        held: object.held.map(str::to_owned),
        // What is held stays as it is, whatever its absence says.
        off: off(offline, object).filter(|_| object.held.is_none()),
        operator_owned: object.operator_owned,
        exception: exception(object),
        maintenance: maintenance
            .enabled
            .then_some(maintenance.since)
            .filter(|_| object.kind != Kind::MeshPeer),
        drained_alone: object.spec.and_then(|spec| spec.pointer("/bgp/drained")) == Some(&Value::Bool(true)),
        closed_by_maintenance: external && maintenance.ebgp_disabled,
        ..Documents::default()
    };
    match object.acceptance {
        // What the Control Plane lists and does not decode is in the daemon's memory and in the status.
        Acceptance::Valid if agent_runs => {
            found.invalid = condition(status, ConditionType::Accepted, "Invalid");
        }
        Acceptance::Valid => {}
        Acceptance::Invalid(why) => found.invalid = Some(why.clone()),
        Acceptance::Clash(why) => found.clash = Some(why.clone()),
        Acceptance::Waiting(why) => found.waiting = Some(why.clone()),
    }
    found
}

fn off(offline: &Offline, object: &Object<'_>) -> Option<Off> {
    let said = object.spec.and_then(|spec| serde_json::from_value(spec.get("adminState")?.clone()).ok());
    match (said, object.admin_state) {
        (_, AdminState::Absent) | (Some(AdminState::Absent), _) => Some(Off::Absent),
        (Some(AdminState::Pending), _) | (None, AdminState::Pending) => Some(Off::Pending),
        (Some(AdminState::Disabled), _) | (None, AdminState::Disabled) => Some(Off::Disabled),
        // The backbone is off for two further reasons; see the world's `peers`.
        (Some(AdminState::Enabled), AdminState::Disabled)
            if object.kind == Kind::MeshPeer && !offline.parts.config.mesh.enabled =>
        {
            Some(Off::MeshDisabled)
        }
        (Some(AdminState::Enabled), AdminState::Disabled | AdminState::Pending) => Some(Off::Ourselves),
        (_, AdminState::Enabled) => None,
    }
}

fn exception(object: &Object<'_>) -> Option<Exception> {
    let fields = object.overridden.iter().map(|(field, document)| Overridden {
        field: field.clone(),
        here: value_at(object.spec, field),
        document: document.clone(),
    });
    let reason = object.reason?.to_owned();
    Some(Exception { reason, until: object.expires_at, fields: fields.collect() })
}

fn unresolved(offline: &Offline, endpoint: &Endpoint) -> Option<(String, String)> {
    let Host::Name(name) = &endpoint.host else { return None };
    let resolution = offline.parts.context.resolver.current(endpoint);
    if resolution.address.is_some() {
        return None;
    }
    let why = resolution.error.unwrap_or_else(|| "no answer within three seconds".to_owned());
    // The resolver's own words begin with what the sentence says already.
    let why = why.strip_prefix(&format!("resolve {name}: ")).unwrap_or(&why).to_owned();
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

fn link_facts(offline: &Offline, object: &Object<'_>, wanted: &Wanted<'_>) -> Option<Link> {
    if object.kind == Kind::IbgpPeer {
        return None;
    }
    if let Some((name, link)) = link(offline, object) {
        let name = name.to_string();
        let port = link.wireguard.as_ref().and_then(|wireguard| wireguard.listen_port);
        let peer = peer(link, wanted).map(|peer| observed(peer, port.map(|port| port.get())));
        return Some(if link.up { Link::Up(name, peer) } else { Link::Down(name) });
    }
    // Whose it is, the clash says better.
    let name = wanted.interface.as_ref().filter(|_| !matches!(object.acceptance, Acceptance::Clash(_)))?;
    Some(match offline.kernel.links.get(name) {
        None => Link::Missing(name.to_string()),
        Some(link) => foreign(name, link),
    })
}

fn foreign(name: &InterfaceName, link: &kernel_view::Link) -> Link {
    let (whose, action) = match &link.mark {
        Mark::None if link.wireguard.is_some() => (
            "it carries no mark".to_owned(),
            "tunnel.adopt: true takes it over in place; else give the session another tunnel.interface",
        ),
        Mark::None => ("it carries no mark".to_owned(), "give the session another tunnel.interface"),
        Mark::Ours(uid) => {
            (format!("it is {uid}'s"), "`moenet-agent get` shows whose that is; it must go first")
        }
        Mark::Foreign(alias) => (
            format!("its alias is {}", crate::model::shown(alias)),
            "give the session another tunnel.interface",
        ),
    };
    Link::Foreign(name.to_string(), whose, action)
}

fn observed(peer: &WireGuardPeer, port: Option<u16>) -> Peer {
    Peer {
        handshake_age: peer.last_handshake.map(|at| since(at.as_second())),
        received: peer.rx_bytes,
        sent: peer.tx_bytes,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        port,
        answer: None,
    }
}

fn since(second: i64) -> i64 {
    (Timestamp::now().as_second() - second).max(0)
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

/// What the controller would do: of a paused object too, for which the plan of the controller is empty.
fn drift(offline: &Offline, object: &Object<'_>) -> Vec<String> {
    match offline.plan_unpaused(&key(object)) {
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
    let sessions = wanted.protocols.iter().map(|neighbour| match find(&neighbour.protocol) {
        Some(protocol) => session(protocol, neighbour),
        None => Session { protocol: neighbour.protocol.clone(), ..Session::default() },
    });
    let base = offline.plan(&Key::Router);
    let of_base = |action: &Action| matches!(action, Action::WriteBase { .. } | Action::RemoveBase { .. });
    let router = offline.world.router.as_ref().ok();
    let our_asn = router.map(|router| router.asn.get());
    let their_asn = object.spec.and_then(|spec| u32::try_from(spec.get("asn")?.as_u64()?).ok());
    Some(Bird {
        running: state.is_running(),
        refused: condition(status, ConditionType::BirdConfigured, "Refused"),
        trouble: condition(status, ConditionType::BirdConfigured, "Failed"),
        loaded: state.loaded,
        base_current: base.is_ok_and(|plan| !plan.steps.iter().any(|step| of_base(&step.action))),
        our_asn,
        their_asn: their_asn.or(our_asn),
        sessions: sessions.collect(),
    })
}

fn session(protocol: &Protocol, wanted: &Neighbour) -> Session {
    let bgp = protocol.bgp.as_ref();
    let has = bgp.and_then(|bgp| bgp.neighbor_address.clone());
    Session {
        protocol: protocol.name.clone(),
        state: bgp.map(|bgp| state_word(&bgp.state)),
        age: protocol.since.map(since),
        established: protocol.is_established(),
        off: protocol.state == ProtocolState::Down,
        last_error: bgp.and_then(|bgp| bgp.last_error.clone()),
        message: protocol.message.clone(),
        neighbour: wanted.address,
        has: has.filter(|has| wanted.address.is_some_and(|wanted| is_another(has, wanted))),
        source: wanted.source,
        answers: None,
        others: BTreeSet::new(),
        limits: limits(protocol),
    }
}

/// A state of BGP in BIRD's own word.
pub(super) fn state_word(state: &BgpState) -> String {
    match state {
        BgpState::Other(word) => word.clone(),
        known => format!("{known:?}"),
    }
}

/// Whether BIRD's neighbour is another than the one that is wanted.
fn is_another(has: &str, wanted: IpAddr) -> bool {
    let bare = has.split('%').next().unwrap_or_default();
    bare.parse::<IpAddr>().is_ok_and(|bare| bare != wanted)
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

/// What only the network can tell, of a session that is not up: whether the endpoint's port is open, and, in
/// a tunnel that works, who is there.
async fn ask_the_network(offline: &Offline, object: &Object<'_>, wanted: &Wanted<'_>, facts: &mut Facts) {
    let Some((name, link)) = link(offline, object).filter(|(_, link)| link.up) else { return };
    let endpoint = peer(link, wanted).and_then(|peer| peer.endpoint);
    let has_handshakes = link.wireguard.is_some();
    if let (Some(Link::Up(_, Some(peer))), Some(endpoint)) = (&mut facts.tunnel.link, endpoint)
        && !peer.is_fresh()
    {
        peer.answer = reach::datagram(endpoint).await;
    }
    if has_handshakes && facts.tunnel.fresh().is_none() {
        return;
    }
    let ours: BTreeSet<IpAddr> = link.addresses.iter().map(|address| address.local.addr()).collect();
    let sessions = facts.bird.iter_mut().flat_map(|bird| &mut bird.sessions);
    for session in sessions.filter(|session| !session.established) {
        let Some(address) = session.neighbour else { continue };
        let others = async {
            match address {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => reach::everybody(name, link.index).await,
                _ => BTreeSet::new(),
            }
        };
        let (answers, others) = tokio::join!(reach::echo(address, name), others);
        session.answers = answers;
        session.others = others.difference(&ours).copied().collect();
    }
}
