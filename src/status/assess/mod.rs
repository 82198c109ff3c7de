//! The status of a session, a backbone tunnel or an internal neighbour. The modules are in the order of the conditions:
//! a cause comes before its consequences.

mod bgp;
mod overridden;
mod service;
mod tunnel;

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::Conditions;
use crate::document::{ConditionType as About, Phase, StatusBody};
use crate::model::{AdminState, PublicKey};
use crate::observed::bird::{BirdProblem, Protocol};
use crate::observed::kernel::Link;

pub use bgp::state_word;
pub use service::{Service, paused};
pub use tunnel::HANDSHAKE_STALE;

/// Acceptance of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
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
    /// The endpoint's name, if it has one.
    pub name: Option<NameFacts<'a>>,
    /// The route to the endpoint, if its address is known.
    pub route: Option<RouteFacts>,
    /// Babel; `None` for an object without it.
    pub babel: Option<BabelFacts>,
}

/// The resolution state of a peer's endpoint name.
#[derive(Debug, Clone, Copy)]
pub struct NameFacts<'a> {
    pub host: &'a str,
    /// The address in use, from the last good answer.
    pub address: Option<SocketAddr>,
    /// Why the last lookup failed.
    pub error: Option<&'a str>,
}

/// Whether the kernel has a route to a peer's endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteFacts {
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
    /// Why it does not answer; `None` while it does.
    pub down: Option<&'a str>,
    /// Whether it has loaded the files on disk, and the session's text exists.
    pub loaded: bool,
    /// BIRD's message, when it rejected the session.
    pub refused: Option<&'a str>,
    /// The problem of the whole router, which blocks this session too.
    pub blocked: Option<&'a BirdProblem>,
    /// That BIRD runs the session from the operator's configuration, whose protocol is among `protocols`.
    pub outside: Option<&'a BirdProblem>,
    /// Why the session's text could not be given to BIRD, although BIRD does not reject it.
    pub trouble: Option<&'a str>,
    /// The session's protocols in BIRD.
    pub protocols: &'a [Protocol],
    pub expected: &'a [Expected],
    /// The AS number of this router towards the neighbour.
    pub our_asn: Option<u32>,
    /// The neighbour's AS number in the document.
    pub their_asn: Option<u32>,
}

/// One expected BGP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Name of the protocol in BIRD.
    pub protocol: String,
    /// The neighbour's address; unknown for a session that is applied and not wanted.
    pub address: Option<IpAddr>,
    /// The local address towards it.
    pub source: Option<IpAddr>,
}

/// Facts about an object that do not depend on an observation.
#[derive(Debug)]
pub struct ObjectFacts<'a> {
    /// The object, as `sessions/wg_1`.
    pub path: &'a str,
    pub generation: u64,
    /// Whether the document was accepted.
    pub acceptance: Acceptance,
    /// An address clash of an accepted document.
    pub remark: Option<&'a str>,
    pub admin_state: AdminState,
    /// Whether it is meant to carry traffic.
    pub service: Service,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
    /// The pause of an override, if there is one.
    pub paused: Option<&'a str>,
    /// Why its removal does not happen now, if no document wants it.
    pub held: Option<&'a Hold>,
    /// The fields that an override sets.
    pub overridden: Vec<String>,
}

/// The input of an object's status.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The current time.
    pub now: Timestamp,
    pub object: ObjectFacts<'a>,
    /// Whether the object has an applied state.
    pub applied: bool,
    /// Why the last attempt failed.
    pub error: Option<&'a str>,
    /// The tunnel; `None` for an object without one of its own.
    pub tunnel: Option<TunnelFacts<'a>>,
    /// BIRD; `None` for an object that does not use it.
    pub bird: Option<BirdFacts<'a>>,
    /// Round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// The share of lost echoes, 0 to 1.
    pub loss: Option<f64>,
    /// The steps just run; empty when there were none.
    pub steps: Vec<String>,
    pub before: &'a StatusBody,
}

/// Returns the status of an object.
pub fn assess(facts: &Facts<'_>) -> StatusBody {
    let mut conditions = Conditions::new(&facts.before.conditions, facts.now);
    accepted(facts, &mut conditions);
    service::in_service(facts, &mut conditions);
    let wanted = facts.object.admin_state == AdminState::Enabled;
    if wanted {
        if let Some(tunnel) = &facts.tunnel {
            if let Some(name) = &tunnel.name {
                tunnel::endpoint_resolved(name, &mut conditions);
            }
            if let Some(route) = tunnel.route {
                tunnel::endpoint_routed(route, &mut conditions);
            }
            // An object that was never accepted is to have no tunnel.
            if facts.applied || !conditions.fails(About::Accepted) {
                tunnel::tunnel(facts, tunnel, &mut conditions);
            }
            if let Some(babel) = tunnel.babel {
                tunnel::babel_adjacent(babel, &mut conditions);
            }
        }
        if let Some(bird) = &facts.bird {
            bgp::configured(bird, &mut conditions);
            bgp::established(bird, &mut conditions);
            bgp::limits(bird, &mut conditions);
        }
    }
    if let Some(held) = facts.object.held {
        held.set(&mut conditions);
        if held.approval().is_some() {
            conditions.act(approve(facts.object.path));
        }
    }
    if facts.object.paused.is_some() {
        withheld(&mut conditions);
    }
    overridden::add(facts, &mut conditions);
    StatusBody {
        observed_generation: facts.object.generation,
        phase: phase(facts, &conditions),
        last_error: last_error(facts),
        conditions: conditions.into_vec(),
        overridden: facts.object.overridden.clone(),
        tunnel: facts.tunnel.as_ref().and_then(tunnel::status),
        bgp: facts.bird.as_ref().filter(|_| wanted).map(bgp::status),
        rtt_ms: facts.rtt_ms,
        loss: facts.loss,
        last_steps: if facts.steps.is_empty() {
            facts.before.last_steps.clone()
        } else {
            facts.steps.clone()
        },
    }
}

/// A difference stays while the object is paused.
fn withheld(conditions: &mut Conditions<'_>) {
    for condition in conditions.all_mut() {
        if matches!(condition.reason.as_str(), "Drift" | "NotLoaded") {
            condition.next_action = Some(format!("see {:?} first", About::InService));
        }
    }
}

fn accepted(facts: &Facts<'_>, conditions: &mut Conditions<'_>) {
    match &facts.object.acceptance {
        Acceptance::Valid => match facts.object.remark {
            Some(remark) => conditions.set(About::Accepted, true, "AddressClash", remark),
            None => conditions.set(About::Accepted, true, "Valid", ""),
        },
        Acceptance::Invalid(why) => {
            conditions.set(About::Accepted, false, "Invalid", why);
            conditions.act(format!(
                "fix what the message names: a file is reloaded on save, a list of the Control Plane with the next sync; until then {}",
                stays(facts)
            ));
        }
        Acceptance::Clash(why) => {
            conditions.set(About::Accepted, false, "Clash", why);
            conditions.act(format!(
                "`moenet-agent get` shows both objects; change or remove one of them; until then {}",
                stays(facts)
            ));
        }
        Acceptance::Waiting(why) => {
            conditions.unknown(About::Accepted, "Waiting", why);
            conditions.act(
                "wait, or provide what the message names; `moenet-agent describe node` shows more",
            );
        }
    }
}

/// Returns the action for a held change of an object.
pub fn approve(object: &str) -> String {
    format!(
        "`moenet-agent approve {object}` approves it, `moenet-agent approve --list` shows all that is held"
    )
}

/// Returns what happens while the documents are not accepted.
fn stays(facts: &Facts<'_>) -> &'static str {
    match facts.applied {
        true => "the previous configuration stays active",
        false => "the object is not configured",
    }
}

fn phase(facts: &Facts<'_>, conditions: &Conditions<'_>) -> Phase {
    if facts.object.paused.is_some() {
        return Phase::Paused;
    }
    if conditions.fails(About::Accepted) || failed(facts) {
        return Phase::Error;
    }
    match facts.object.admin_state {
        AdminState::Absent => return Phase::Deleting,
        AdminState::Disabled => return Phase::Disabled,
        AdminState::Pending => return Phase::Pending,
        AdminState::Enabled => {}
    }
    if matches!(facts.object.acceptance, Acceptance::Waiting(_)) {
        return Phase::Pending;
    }
    // A session that the operator's configuration runs is up or down like any other.
    let is_run = |bird: BirdFacts<'_>| bird.outside.is_some();
    let bird = facts.bird.is_none_or(is_run) || conditions.holds(About::BirdConfigured);
    let tunnel = facts.tunnel.is_none() || conditions.holds(About::TunnelConfigured);
    if !tunnel || !bird {
        return Phase::Configuring;
    }
    let worrying = conditions.fails(About::HandshakeRecent)
        || facts.bird.as_ref().is_some_and(bgp::is_short_of);
    match (conditions.holds(About::BgpEstablished), worrying) {
        (true, false) => Phase::Established,
        (true, true) => Phase::Degraded,
        (false, _) => Phase::Configured,
    }
}

/// Returns whether the kernel or BIRD refused.
fn failed(facts: &Facts<'_>) -> bool {
    facts.error.is_some() || facts.bird.is_some_and(|bird| bird.refused.is_some())
}

fn last_error(facts: &Facts<'_>) -> Option<String> {
    let refused = facts
        .bird
        .and_then(|bird| bird.refused)
        .map(|text| format!("BIRD configuration failed: {text}"));
    match &facts.object.acceptance {
        Acceptance::Invalid(why) | Acceptance::Clash(why) => Some(why.clone()),
        Acceptance::Valid | Acceptance::Waiting(_) => facts.error.map(str::to_owned).or(refused),
    }
}

#[cfg(test)]
mod tests;
