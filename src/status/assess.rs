use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::Conditions;
use crate::document::{BgpStatus, ConditionType as About, Phase, StatusBody, TunnelStatus};
use crate::model::{AdminState, PublicKey};
use crate::observed::bird::{BgpState, Protocol};
use crate::observed::kernel::{Link, WireGuardPeer};
use crate::plan::HANDSHAKE_FRESH_SECONDS;

/// Acceptance of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    /// It is valid.
    Valid,
    /// It is invalid, and the applied state stays. The text names the field and the reason.
    Invalid(String),
    /// Another object already claims one of its resources.
    Clash(String),
    /// A prerequisite is not known yet: the identity of this router.
    Waiting(String),
}

impl Acceptance {
    /// Makes a valid document wait. An invalid document does not depend on the missing prerequisite, and stays invalid.
    pub fn wait(&mut self, why: &str) {
        if *self == Self::Valid {
            *self = Self::Waiting(why.to_owned());
        }
    }
}

/// The reason why an object without a document is not removed now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The removal is held until an operator approves it.
    Approval(String),
    /// Files of the state directory are changing, so the document may come back. No operator is needed.
    Settling,
}

impl Hold {
    /// Returns the reason, if the removal needs an approval.
    pub fn approval(&self) -> Option<&str> {
        match self {
            Self::Approval(why) => Some(why),
            Self::Settling => None,
        }
    }

    /// Returns the reason.
    pub fn why(&self) -> &str {
        match self {
            Self::Approval(why) => why,
            Self::Settling => {
                "files of the state directory are changing, so its document may come back; the removal is judged once \
                 they are at rest"
            }
        }
    }

    /// Sets the condition of the removal. Only a removal that needs an approval is a problem.
    fn set(&self, conditions: &mut Conditions<'_>) {
        let (held, reason) = match self {
            Self::Approval(_) => (true, "GuardTripped"),
            Self::Settling => (false, "StateDirectoryChanging"),
        };
        conditions.set(About::RemovalHeld, held, reason, self.why());
    }
}

/// The observed state of a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct TunnelFacts<'a> {
    /// The link, when it exists and is the agent's.
    pub link: Option<&'a Link>,
    /// The wanted peer, for WireGuard.
    pub peer: Option<PublicKey>,
    /// Remaining steps for the kernel, as a text; `None` when it matches the wanted state.
    pub missing: Option<&'a str>,
    /// Why the last attempt failed.
    pub error: Option<&'a str>,
}

/// The resolution state of a peer's endpoint name.
#[derive(Debug, Clone, Copy)]
pub struct NameFacts<'a> {
    /// The address in use, from the last good answer.
    pub address: Option<SocketAddr>,
    /// Why the last lookup failed.
    pub error: Option<&'a str>,
}

/// Whether the kernel has a route to a peer's endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFacts {
    /// The endpoint.
    pub to: IpAddr,
    /// Whether there is a route.
    pub found: bool,
}

/// State of Babel in a backbone tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BabelFacts {
    /// BIRD does not answer, or does not run Babel.
    Unknown,
    /// Whether there is a neighbour.
    Neighbour(bool),
}

/// The observed state of BIRD.
#[derive(Debug, Clone, Copy)]
pub struct BirdFacts<'a> {
    /// Whether BIRD answers.
    pub running: bool,
    /// Whether it has loaded the files on disk, and the session's text exists.
    pub loaded: bool,
    /// BIRD's message, when it rejected the session.
    pub refused: Option<&'a str>,
    /// The reason and message of the whole router's wait, which holds this session too.
    pub waits: Option<(&'a str, &'a str)>,
    /// Why the session's text could not be given to BIRD, although BIRD does not reject it.
    pub trouble: Option<&'a str>,
    /// The session's protocols in BIRD.
    pub protocols: &'a [Protocol],
    /// The expected number of protocols.
    pub expected: usize,
}

/// The input of a session's status.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The generation of the document.
    pub generation: u64,
    /// Whether the document was accepted.
    pub acceptance: Acceptance,
    /// An address clash of an accepted document.
    pub remark: Option<&'a str>,
    /// The administrative state.
    pub admin_state: AdminState,
    /// The pause of an override, if there is one.
    pub paused: Option<&'a str>,
    /// Why its removal does not happen now, if no document wants it.
    pub held: Option<&'a Hold>,
    /// The tunnel.
    pub tunnel: TunnelFacts<'a>,
    /// The endpoint's name, if it has one.
    pub name: Option<NameFacts<'a>>,
    /// The route to the endpoint, if its address is known.
    pub route: Option<RouteFacts>,
    /// Babel; `None` for an object without it.
    pub babel: Option<BabelFacts>,
    /// Whether the object has its own tunnel.
    pub has_tunnel: bool,
    /// BIRD; `None` for an object that does not use it.
    pub bird: Option<BirdFacts<'a>>,
    /// The fields that an override sets.
    pub overridden: Vec<String>,
    /// Round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The share of lost echoes, 0 to 1.
    pub loss: Option<f64>,
    /// The steps just run; empty when there were none.
    pub steps: Vec<String>,
    /// The previous status.
    pub before: &'a StatusBody,
}

/// Returns the status of an object.
pub fn assess(facts: &Facts<'_>) -> StatusBody {
    let mut conditions = Conditions::new(&facts.before.conditions, facts.now);
    accepted(facts, &mut conditions);
    let wanted = facts.admin_state == AdminState::Enabled;
    if wanted {
        if facts.has_tunnel {
            if let Some(name) = &facts.name {
                endpoint_resolved(name, &mut conditions);
            }
            if let Some(route) = facts.route {
                endpoint_routed(route, &mut conditions);
            }
            tunnel(facts, &mut conditions);
            if let Some(babel) = facts.babel {
                babel_adjacent(babel, &mut conditions);
            }
        }
        if let Some(bird) = &facts.bird {
            bird_configured(bird, &mut conditions);
            established(bird, &mut conditions);
            limits(bird, &mut conditions);
        }
    }
    if let Some(held) = facts.held {
        held.set(&mut conditions);
    }
    StatusBody {
        observed_generation: facts.generation,
        phase: phase(facts, &conditions),
        last_error: last_error(facts),
        conditions: conditions.into_vec(),
        overridden: facts.overridden.clone(),
        tunnel: facts
            .tunnel
            .link
            .map(|link| tunnel_status(link, facts.tunnel.peer)),
        bgp: facts.bird.as_ref().filter(|_| wanted).map(bgp_status),
        rtt_ms: facts.rtt_ms,
        loss: facts.loss,
        last_steps: if facts.steps.is_empty() {
            facts.before.last_steps.clone()
        } else {
            facts.steps.clone()
        },
    }
}

fn accepted(facts: &Facts<'_>, conditions: &mut Conditions<'_>) {
    match &facts.acceptance {
        Acceptance::Valid => match facts.remark {
            Some(remark) => conditions.set(About::Accepted, true, "AddressClash", remark),
            None => conditions.set(About::Accepted, true, "Valid", ""),
        },
        Acceptance::Invalid(why) => conditions.set(About::Accepted, false, "Invalid", why),
        Acceptance::Clash(why) => conditions.set(About::Accepted, false, "Clash", why),
        Acceptance::Waiting(why) => conditions.unknown(About::Accepted, "Waiting", why),
    }
}

fn tunnel(facts: &Facts<'_>, conditions: &mut Conditions<'_>) {
    let tunnel = &facts.tunnel;
    let unread = tunnel.link.is_some_and(|link| link.unread.is_some());
    match (tunnel.error, tunnel.missing, tunnel.link) {
        (None, Some(missing), _) if unread => {
            conditions.set(About::TunnelConfigured, false, "Unread", missing)
        }
        (Some(error), _, _) => conditions.set(About::TunnelConfigured, false, "Failed", error),
        (None, Some(missing), _) => {
            conditions.set(About::TunnelConfigured, false, "Drift", missing)
        }
        (None, None, None) => conditions.set(
            About::TunnelConfigured,
            false,
            "Missing",
            "there is no link",
        ),
        (None, None, Some(_)) => conditions.set(About::TunnelConfigured, true, "AsWanted", ""),
    }
    let Some(peer) = peer_of(tunnel.link, tunnel.peer) else {
        return;
    };
    match peer.last_handshake {
        None => conditions.set(
            About::HandshakeRecent,
            false,
            "Never",
            "the peer has never answered",
        ),
        Some(at) => {
            let recent = facts.now.as_second() - at.as_second() < HANDSHAKE_FRESH_SECONDS;
            let (reason, message) = if recent {
                ("Recent", "")
            } else {
                ("Stale", "no handshake for more than three minutes")
            };
            conditions.set(About::HandshakeRecent, recent, reason, message);
        }
    }
}

/// Sets the condition of the endpoint's name. A missing address does not block the configuration: the agent waits for
/// the peer to connect.
fn endpoint_resolved(name: &NameFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::EndpointResolved;
    match (name.address, name.error) {
        (Some(_), None) => conditions.set(about, true, "Resolved", ""),
        (Some(address), Some(error)) => {
            conditions.set(
                about,
                false,
                "LookupFailed",
                format!("{error}; {address} stays in use"),
            );
        }
        (None, Some(error)) => conditions.set(about, false, "NotResolved", error),
        (None, None) => {
            conditions.unknown(about, "Resolving", "the name has not been looked up yet")
        }
    }
}

/// Sets the condition of the route to the endpoint. Without a route no packet leaves: neither the peer nor its provider
/// is the cause.
fn endpoint_routed(route: RouteFacts, conditions: &mut Conditions<'_>) {
    let about = About::EndpointRouted;
    match route.found {
        true => conditions.set(about, true, "Routed", ""),
        false => conditions.set(
            about,
            false,
            "NoRoute",
            format!(
                "this host has no route to {}; check the uplink and its default route",
                route.to
            ),
        ),
    }
}

fn babel_adjacent(babel: BabelFacts, conditions: &mut Conditions<'_>) {
    let about = About::BabelAdjacent;
    match babel {
        BabelFacts::Unknown => conditions.unknown(about, "NotRead", "BIRD does not report Babel"),
        BabelFacts::Neighbour(true) => conditions.set(about, true, "Neighbour", ""),
        BabelFacts::Neighbour(false) => conditions.set(
            about,
            false,
            "NoNeighbour",
            "BIRD has no Babel neighbour in the tunnel; check the tunnel, and BIRD on the peer",
        ),
    }
}

fn peer_of(link: Option<&Link>, key: Option<PublicKey>) -> Option<&WireGuardPeer> {
    link?.wireguard.as_ref()?.peers.get(&key?)
}

fn bird_configured(bird: &BirdFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::BirdConfigured;
    if let Some(message) = bird.refused {
        conditions.set(about, false, "Refused", message);
    } else if let Some((reason, message)) = bird.waits {
        conditions.set(about, false, reason, message);
    } else if let Some(message) = bird.trouble {
        conditions.set(about, false, "Failed", message);
    } else if !bird.running {
        conditions.unknown(
            about,
            "NotRunning",
            "BIRD does not answer on its control socket",
        );
    } else if !bird.loaded || bird.protocols.len() < bird.expected {
        conditions.set(
            about,
            false,
            "NotLoaded",
            "BIRD has not loaded the session yet",
        );
    } else {
        conditions.set(about, true, "Loaded", "");
    }
}

fn established(bird: &BirdFacts<'_>, conditions: &mut Conditions<'_>) {
    if !bird.running {
        conditions.unknown(
            About::BgpEstablished,
            "NotRunning",
            "BIRD does not answer on its control socket",
        );
        return;
    }
    let down = bird
        .protocols
        .iter()
        .find(|protocol| !protocol.is_established());
    match down {
        Some(protocol) => {
            let state = state_word(protocol);
            let error = error_of(protocol)
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            conditions.set(
                About::BgpEstablished,
                false,
                "NotEstablished",
                format!("{} is {state}{error}", protocol.name),
            );
        }
        None if bird.protocols.is_empty() => {
            conditions.set(
                About::BgpEstablished,
                false,
                "NoProtocol",
                "BIRD has no such session",
            );
        }
        None => conditions.set(About::BgpEstablished, true, "Established", ""),
    }
}

fn limits(bird: &BirdFacts<'_>, conditions: &mut Conditions<'_>) {
    let channels = bird
        .protocols
        .iter()
        .flat_map(|p| p.channels.iter().map(move |c| (p, c)));
    let hit = channels.flat_map(|(protocol, channel)| {
        let named = [
            ("import", &channel.import_limit),
            ("receive", &channel.receive_limit),
            ("export", &channel.export_limit),
        ];
        named.into_iter().filter_map(move |(word, limit)| {
            let limit = limit.as_ref().filter(|limit| limit.hit)?;
            Some(format!(
                "{} {}: {word} limit of {} exceeded",
                protocol.name, channel.name, limit.limit
            ))
        })
    });
    let hit: Vec<_> = hit.collect();
    let reason = if hit.is_empty() {
        "BelowLimits"
    } else {
        "LimitExceeded"
    };
    conditions.set(About::WithinLimits, hit.is_empty(), reason, hit.join("; "));
}

fn phase(facts: &Facts<'_>, conditions: &Conditions<'_>) -> Phase {
    if facts.paused.is_some() {
        return Phase::Paused;
    }
    if conditions.fails(About::Accepted) || failed(facts) {
        return Phase::Error;
    }
    match facts.admin_state {
        AdminState::Absent => return Phase::Deleting,
        AdminState::Disabled => return Phase::Disabled,
        AdminState::Pending => return Phase::Pending,
        AdminState::Enabled => {}
    }
    if matches!(facts.acceptance, Acceptance::Waiting(_)) {
        return Phase::Pending;
    }
    let bird = facts.bird.is_none() || conditions.holds(About::BirdConfigured);
    let tunnel = !facts.has_tunnel || conditions.holds(About::TunnelConfigured);
    if !tunnel || !bird {
        return Phase::Configuring;
    }
    let worrying =
        conditions.fails(About::HandshakeRecent) || facts.bird.as_ref().is_some_and(is_short_of);
    match (conditions.holds(About::BgpEstablished), worrying) {
        (true, false) => Phase::Established,
        (true, true) => Phase::Degraded,
        (false, _) => Phase::Configured,
    }
}

/// Returns whether a limit blocks routes. An export limit blocks none: it only warns.
fn is_short_of(bird: &BirdFacts<'_>) -> bool {
    let channels = bird
        .protocols
        .iter()
        .flat_map(|protocol| &protocol.channels);
    let limits = channels.flat_map(|channel| [&channel.import_limit, &channel.receive_limit]);
    limits.flatten().any(|limit| limit.hit)
}

/// Returns whether the kernel or BIRD refused.
fn failed(facts: &Facts<'_>) -> bool {
    facts.tunnel.error.is_some() || facts.bird.is_some_and(|bird| bird.refused.is_some())
}

fn last_error(facts: &Facts<'_>) -> Option<String> {
    let refused = facts
        .bird
        .and_then(|bird| bird.refused)
        .map(|text| format!("BIRD configuration failed: {text}"));
    match &facts.acceptance {
        Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why.clone()),
        Acceptance::Valid | Acceptance::Waiting(_) => {
            facts.tunnel.error.map(str::to_owned).or(refused)
        }
    }
}

fn tunnel_status(link: &Link, key: Option<PublicKey>) -> TunnelStatus {
    let peer = peer_of(Some(link), key);
    TunnelStatus {
        last_handshake: peer.and_then(|peer| peer.last_handshake),
        rx_bytes: peer.map_or(0, |peer| peer.rx_bytes),
        tx_bytes: peer.map_or(0, |peer| peer.tx_bytes),
        endpoint: peer
            .and_then(|peer| peer.endpoint)
            .map(|endpoint| endpoint.to_string()),
    }
}

/// Returns the worst of several BGP sessions; routes add up over both families.
fn bgp_status(bird: &BirdFacts<'_>) -> BgpStatus {
    let worst = bird
        .protocols
        .iter()
        .find(|p| !p.is_established())
        .or(bird.protocols.first());
    let routes = || {
        bird.protocols
            .iter()
            .flat_map(|p| &p.channels)
            .filter_map(|c| c.routes.as_ref())
    };
    BgpStatus {
        state: worst.map_or("down", state_word).to_owned(),
        since: worst
            .and_then(|p| p.since)
            .and_then(|since| Timestamp::from_second(since).ok()),
        routes_imported: routes().map(|routes| routes.imported).sum(),
        routes_exported: routes().map(|routes| routes.exported).sum(),
        last_error: worst.and_then(error_of),
    }
}

/// Returns the state's word in a report (docs/contract/session.md#report-states).
fn state_word(protocol: &Protocol) -> &'static str {
    match protocol.bgp.as_ref().map(|bgp| &bgp.state) {
        Some(BgpState::Established) => "established",
        Some(BgpState::Active | BgpState::Passive) => "active",
        Some(BgpState::Connect) => "connect",
        Some(BgpState::Idle) => "idle",
        Some(BgpState::OpenSent) => "opensent",
        Some(BgpState::OpenConfirm) => "openconfirm",
        _ => "down",
    }
}

fn error_of(protocol: &Protocol) -> Option<String> {
    protocol.bgp.as_ref().and_then(|bgp| bgp.last_error.clone())
}
