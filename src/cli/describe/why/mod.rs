//! Why a session is not up: the chain from the root cause. Pure: plain facts in, causes out, and each says
//! what was observed. What is only likely stands in the next action, which is advice and no finding.
//!
//! The rooms are in the order of the chain: what the documents say, what the tunnel does, what BGP says.

mod bgp;
mod document;
mod tunnel;

use serde::Serialize;

pub(super) use bgp::{Bird, Session};
pub(super) use document::{Documents, Exception, Off, Overridden};
pub(super) use tunnel::{Answer, Link, Peer, Tunnel, Uplink};

/// Everything that was observed about one object.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// What its documents say.
    pub(super) documents: Documents,
    /// Its tunnel, and what the controller would do about the object.
    pub(super) tunnel: Tunnel,
    /// BIRD; none for an object that has no BGP session.
    pub(super) bird: Option<Bird>,
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cause {
    /// What it is, in a word for programs.
    pub(super) reason: Reason,
    /// What was observed, in a sentence.
    pub(super) message: String,
    /// What to do next.
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

    /// A document that is not valid, of which nothing else is known.
    pub(super) fn invalid(why: &str) -> Self {
        Self::new(Reason::DocumentInvalid, why)
    }

    /// What the daemon failed at, of which nothing else is known.
    pub(super) fn not_configured(why: &str) -> Self {
        Self::new(Reason::NotConfigured, why)
    }

    /// BIRD, which the whole node waits for.
    pub(super) fn bird_down(why: &str) -> Self {
        let action = "`systemctl start bird`, or correct bird.controlSocket";
        Self::new(Reason::BirdNotRunning, why).action(action)
    }

    /// Something that is not known yet.
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

/// What a cause is, for programs. The words are part of the interface: they are added to, never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Reason {
    /// Its documents are not valid.
    DocumentInvalid,
    /// Another object has what it claims.
    Clash,
    /// Something that it needs is not known.
    Waiting,
    /// An override says to write nothing.
    Paused,
    /// An override sets a field that a later cause follows from.
    Overridden,
    /// Its removal waits for approval.
    RemovalHeld,
    /// Not wanted.
    Disabled,
    /// Not approved yet.
    PendingReview,
    /// To be gone.
    ToBeGone,
    /// Maintenance has closed the external sessions.
    ClosedByMaintenance,
    /// The daemon is not running.
    AgentNotRunning,
    /// The daemon tried, and failed.
    NotConfigured,
    /// The endpoint's name has no address.
    NameNotResolved,
    /// There is no link.
    NoLink,
    /// The link of that name is not ours.
    ForeignLink,
    /// The link is down.
    LinkDown,
    /// The kernel or BIRD has something else than is wanted.
    Drift,
    /// Nothing listens on the endpoint's port.
    PortClosed,
    /// Packets to the endpoint do not leave this router.
    NoRoute,
    /// There is no way to the endpoint.
    EndpointUnreachable,
    /// There was never a handshake.
    NeverHandshake,
    /// There was a handshake, long ago.
    StaleHandshake,
    /// BIRD does not answer.
    BirdNotRunning,
    /// BIRD refused the session's text.
    BirdRefused,
    /// BIRD could not be given the session's text.
    BirdFailed,
    /// BIRD runs another configuration than is on disk.
    BirdNotLoaded,
    /// BIRD has no such session.
    NoBgpSession,
    /// A limit of routes was hit.
    LimitHit,
    /// BIRD speaks to another address than is wanted, or the peer has another one.
    WrongAddress,
    /// Nobody answers at the neighbour's address, though the tunnel works.
    NeighbourSilent,
    /// The neighbour refuses the session.
    RefusedByNeighbour,
    /// We refuse the session.
    RefusedByUs,
    /// The session is not established, with or without an error.
    BgpNotEstablished,
    /// The session is up and its routes are drained.
    Drained,
}

/// The chain, root cause first. Empty: nothing is wrong.
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

/// Whether every BGP session is up, or, without any, the tunnel answers.
pub(super) fn is_up(facts: &Facts) -> bool {
    match (&facts.bird, &facts.tunnel.link) {
        (Some(bird), _) => !bird.sessions.is_empty() && bird.sessions.iter().all(|s| s.established),
        (None, Some(Link::Up(_, Some(peer)))) => peer.is_fresh(),
        (None, link) => matches!(link, None | Some(Link::Up(..))),
    }
}

/// Whether BIRD has loaded what the documents say, and so the drain too.
fn is_drain_in_force(facts: &Facts) -> bool {
    facts.tunnel.drift.is_empty()
        && facts
            .bird
            .as_ref()
            .is_some_and(|bird| bird.loaded && bird.base_current)
}

/// How long, in one unit, as people say it.
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
