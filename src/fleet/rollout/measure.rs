//! What a router shows of itself in its posts, and whether it keeps what it had before a change.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::network::Gates;
use super::super::posts::{Post, Posts};
use crate::model::Uid;
use crate::wire::{Heartbeat, PeerState, Report, SessionReport};

/// How the uuids of the backbone's tunnels begin in reports.
const TUNNEL: &str = "mesh-";

/// The newest report and heartbeat of a router, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Measure {
    /// The arrival of the report.
    pub(super) reported_at: Timestamp,
    /// The arrival of the newer of the two posts.
    pub(super) seen_at: Timestamp,
    pub(super) drained: bool,
    pub(super) held: u64,
    pub(super) established: u64,
    pub(super) imported: u64,
    pub(super) exported: u64,
    /// Mean round-trip time of the sessions that have one, in milliseconds.
    pub(super) rtt_ms: Option<f64>,
    /// Mean loss of the sessions that have one, 0 to 1.
    pub(super) loss: Option<f64>,
    /// Whether an Established session exports routes to a peer outside the network.
    pub(super) is_exit: bool,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            reported_at: Timestamp::UNIX_EPOCH,
            seen_at: Timestamp::UNIX_EPOCH,
            drained: false,
            held: 0,
            established: 0,
            imported: 0,
            exported: 0,
            rtt_ms: None,
            loss: None,
            is_exit: false,
        }
    }
}

impl Measure {
    /// Reads the posts of a router. Tunnels to routers without one of these ids are left out: their removal is no loss.
    pub(super) fn of(posts: &Posts, ids: &BTreeSet<u16>) -> Self {
        let arrival = |post: &Option<Post>| {
            let post = post.as_ref();
            post.map_or(Timestamp::UNIX_EPOCH, |post| post.received_at)
        };
        let heartbeat: Option<Heartbeat> = posts.heartbeat.as_ref().and_then(Post::read);
        let report: Option<Report> = posts.report.as_ref().and_then(Post::read);
        let mut sessions = report.map(|report| report.sessions).unwrap_or_default();
        sessions.retain(|session| has_both_ends(&session.uuid, ids));
        let up = |session: &&SessionReport| session.state == PeerState::Established;
        let up: Vec<&SessionReport> = sessions.iter().filter(up).collect();
        let exits = |session: &&&SessionReport| {
            !session.uuid.as_str().starts_with(TUNNEL) && session.routes_exported > 0
        };
        Self {
            reported_at: arrival(&posts.report),
            seen_at: arrival(&posts.report).max(arrival(&posts.heartbeat)),
            drained: heartbeat
                .as_ref()
                .is_some_and(|it| it.drained == Some(true)),
            held: heartbeat.and_then(|it| it.held).unwrap_or_default(),
            established: up.len().try_into().unwrap_or(u64::MAX),
            imported: up.iter().map(|session| session.routes_imported).sum(),
            exported: up.iter().map(|session| session.routes_exported).sum(),
            rtt_ms: mean(sessions.iter().filter_map(|session| session.rtt_ms)),
            loss: mean(sessions.iter().filter_map(|session| session.loss)),
            is_exit: up.iter().any(|session| exits(&session)),
        }
    }

    /// Returns which gate a router breaks, compared with its measure before the change.
    pub(super) fn broken_gate(&self, before: &Self, gates: &Gates) -> Option<String> {
        let kept = |now: u64, before: u64, share: f64| now as f64 >= before as f64 * share;
        let grown = |now: Option<f64>, before: Option<f64>, limit: f64| match (now, before) {
            (Some(now), Some(before)) => (now - before > limit).then_some((now, before)),
            // Without a measurement, nothing shows a loss; the other gates do.
            _ => None,
        };
        if !kept(
            self.established,
            before.established,
            gates.established.share(),
        ) {
            let (now, before) = (self.established, before.established);
            return Some(format!("{now} Established sessions of {before} before"));
        }
        for (word, now, before) in [
            ("imported", self.imported, before.imported),
            ("exported", self.exported, before.exported),
        ] {
            if !kept(now, before, gates.prefixes.share()) {
                return Some(format!("{now} {word} routes of {before} before"));
            }
        }
        if let Some((now, before)) = grown(self.rtt_ms, before.rtt_ms, f64::from(gates.rtt_ms)) {
            return Some(format!(
                "round-trip time of {now:.0} ms, {before:.0} ms before"
            ));
        }
        if let Some((now, before)) = grown(self.loss, before.loss, gates.loss.share()) {
            let (now, before) = (now * 100.0, before * 100.0);
            return Some(format!("loss of {now:.0}%, {before:.0}% before"));
        }
        (self.held > before.held.saturating_add(gates.held)).then(|| {
            format!(
                "{} held changes, {} before; `moenet-agent plan` on the router shows them",
                self.held, before.held
            )
        })
    }
}

/// Returns whether both ends of a tunnel of the backbone have one of these ids; other sessions have.
fn has_both_ends(uuid: &Uid, ids: &BTreeSet<u16>) -> bool {
    let ends = uuid.as_str().strip_prefix(TUNNEL);
    let Some((one, other)) = ends.and_then(|ends| ends.split_once('-')) else {
        return true;
    };
    [one, other]
        .iter()
        .all(|id| id.parse().is_ok_and(|id| ids.contains(&id)))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}
