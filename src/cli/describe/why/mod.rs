//! Why a session is not up: the chain from the root cause. Pure: plain facts in, causes out, and each reports
//! an observation. Likely explanations belong to the next action, which is advice and not an observation.
//!
//! The modules are in the order of the chain: documents, tunnel, BGP.

mod bgp;
mod document;
mod tunnel;

use serde::Serialize;

pub(super) use bgp::{Bird, Session};
pub(super) use document::{Documents, Exception, Off, Overridden};
pub(super) use tunnel::{Answer, Link, Peer, Tunnel, Uplink};

/// All observations of one object.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The facts of its documents.
    pub(super) documents: Documents,
    /// Its tunnel, and the controller's plan for the object.
    pub(super) tunnel: Tunnel,
    /// BIRD; `None` for an object without a BGP session.
    pub(super) bird: Option<Bird>,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cause {
    /// The kind of cause, as a word for programs.
    pub(super) reason: Reason,
    /// The observation, as a sentence.
    pub(super) message: String,
    /// The next action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<String>,
    /// The fields that it follows from: an override of one of them is a cause of it.
    #[serde(skip)]
    fields: &'static [&'static str],
}

impl Cause {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            action: None,
            fields: &[],
        }
    }

    /// Creates the cause of an invalid document without further facts.
    pub(super) fn invalid(why: &str) -> Self {
        Self::new(Reason::DocumentInvalid, why)
    }

    /// Creates the cause of the daemon's failure without further facts.
    pub(super) fn not_configured(why: &str) -> Self {
        Self::new(Reason::NotConfigured, why)
    }

    /// Creates the cause of a BIRD problem that holds the whole node.
    pub(super) fn bird_down(why: &str) -> Self {
        let action = "`systemctl start bird`, or correct bird.controlSocket";
        Self::new(Reason::BirdNotRunning, why).action(action)
    }

    /// Creates the cause of a missing prerequisite.
    pub(super) fn waiting(why: &str) -> Self {
        let action = "wait for GET config, or set node.id and node.asn in the configuration";
        Self::new(Reason::Waiting, why).action(action)
    }

    fn action(self, action: impl Into<String>) -> Self {
        Self {
            action: Some(action.into()),
            ..self
        }
    }

    fn of_fields(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }

    fn follows_from(&self, field: &str) -> bool {
        let below = |prefix: &str| {
            field
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('.'))
        };
        self.fields
            .iter()
            .any(|prefix| *prefix == field || below(prefix))
    }
}

/// Kind of a cause, for programs. The words are part of the interface: new ones may be added, but none is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Reason {
    /// Its documents are invalid.
    DocumentInvalid,
    /// Another object already has a claimed resource.
    Clash,
    /// A prerequisite is not known.
    Waiting,
    /// An override pauses it.
    Paused,
    /// An override sets a field that a later cause follows from.
    Overridden,
    /// Its removal is held for approval.
    RemovalHeld,
    /// Not wanted.
    Disabled,
    /// Not approved yet.
    PendingReview,
    /// It will be removed.
    ToBeGone,
    /// Maintenance has closed the external sessions.
    ClosedByMaintenance,
    /// The daemon is not running.
    AgentNotRunning,
    /// The daemon tried, and failed.
    NotConfigured,
    /// The endpoint's name has no address.
    NameNotResolved,
    /// The link does not exist.
    NoLink,
    /// The link of that name is foreign.
    ForeignLink,
    /// The link is down.
    LinkDown,
    /// The kernel or BIRD differs from the wanted state.
    Drift,
    /// No process listens on the endpoint's port.
    PortClosed,
    /// Packets to the endpoint do not leave this router.
    NoRoute,
    /// The endpoint is unreachable.
    EndpointUnreachable,
    /// There was never a handshake.
    NeverHandshake,
    /// There was a handshake, long ago.
    StaleHandshake,
    /// BIRD does not answer.
    BirdNotRunning,
    /// BIRD rejected the session's text.
    BirdRefused,
    /// The session's text could not be given to BIRD.
    BirdFailed,
    /// BIRD runs another configuration than the one on disk.
    BirdNotLoaded,
    /// BIRD has no such session.
    NoBgpSession,
    /// A route limit is exceeded.
    LimitHit,
    /// BIRD uses another neighbour address than the wanted one, or the peer has another one.
    WrongAddress,
    /// The neighbour's address does not answer, although the tunnel works.
    NeighbourSilent,
    /// The neighbour refuses the session.
    RefusedByNeighbour,
    /// This router refuses the session.
    RefusedByUs,
    /// The session is not established, with or without an error.
    BgpNotEstablished,
    /// The session is up and its routes are drained.
    Drained,
}

/// Returns the chain, root cause first. Empty without a problem.
pub(super) fn chain(facts: &Facts) -> Vec<Cause> {
    let mut chain = facts.documents.causes();
    let wanted = facts.documents.off.is_none();
    let up = is_up(facts);
    if !up || !wanted {
        if wanted && facts.documents.closed_by_maintenance {
            chain.push(document::closed_by_maintenance());
        }
        chain.extend(
            facts
                .tunnel
                .causes(wanted, facts.documents.paused.is_some()),
        );
    }
    if wanted {
        chain.extend(
            facts
                .bird
                .iter()
                .flat_map(|bird| bird.causes(&facts.tunnel)),
        );
        chain.extend(facts.documents.drained(is_drain_in_force(facts)));
    }
    facts.documents.with_overrides(chain)
}

/// Returns whether every BGP session is up, or, without any, the tunnel answers.
pub(super) fn is_up(facts: &Facts) -> bool {
    match (&facts.bird, &facts.tunnel.link) {
        (Some(bird), _) => !bird.sessions.is_empty() && bird.sessions.iter().all(|s| s.established),
        (None, Some(Link::Up(_, Some(peer)))) => peer.is_fresh(),
        (None, link) => matches!(link, None | Some(Link::Up(..))),
    }
}

/// Returns whether BIRD has loaded the documents' configuration, including the drain.
fn is_drain_in_force(facts: &Facts) -> bool {
    facts.tunnel.drift.is_empty()
        && facts
            .bird
            .as_ref()
            .is_some_and(|bird| bird.loaded && bird.base_current)
}

/// Returns a duration in one unit.
fn span(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if number == 1 {
        format!("1 {unit}")
    } else {
        format!("{number} {unit}s")
    }
}

#[cfg(test)]
mod tests;
