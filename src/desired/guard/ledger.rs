use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The guard's memory: the content of `held.yaml`.
///
/// Its times are those of the guard's clock, which starts at the wall clock's time and then counts only the time
/// that the agent runs. Setting the wall clock forward or back therefore ends no window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ledger {
    /// Held changes, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, HeldChange>,
    /// Objects whose removal the guard allowed within the window, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, Removal>,
    /// Objects whose removal is in progress and is not counted by the window: approved ones, and operator-owned ones.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<String>,
    /// The approved change of the node that is in progress, as a line of `approved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Objects that were added within the window, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<String, Timestamp>,
    /// Time since which earlier removals are unknown, because the ledger could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Timestamp>,
}

/// A held change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeldChange {
    /// The change: `removal`, or the fields with both values.
    pub change: String,
    /// The reason why it is held.
    pub reason: String,
    /// Time since which it is held.
    pub since: Timestamp,
}

/// A removal that the guard allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Removal {
    pub at: Timestamp,
    /// Whether the removal is complete: the object is gone, or was wanted again. A later removal is judged again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl Ledger {
    /// Returns a ledger whose file could not be read: the removals in it are unknown.
    pub fn lost(now: Timestamp) -> Self {
        Self {
            lost: Some(now),
            ..Self::default()
        }
    }

    /// Returns the ledger at a start. Its newest entry counts as made now, and the others keep their distance to
    /// it: only the wall clock knows how long the agent was stopped, and the wall clock may be wrong.
    #[must_use]
    pub fn resumed(mut self, now: Timestamp) -> Self {
        let removed = self.removed.values().map(|removal| removal.at);
        let times = removed.chain(self.added.values().copied()).chain(self.lost);
        let Some(newest) = times.max() else {
            return self;
        };
        let shift = now.duration_since(newest);
        let moved = |at: &mut Timestamp| *at = at.saturating_add(shift).unwrap_or(now);
        self.removed
            .values_mut()
            .for_each(|removal| moved(&mut removal.at));
        self.added.values_mut().for_each(moved);
        self.lost.iter_mut().for_each(moved);
        self
    }

    /// Forgets entries that are older than the window, except removals in progress.
    pub(super) fn forget(&mut self, window: Duration, now: Timestamp) {
        let young = |at: Timestamp| now.duration_since(at) < signed(window);
        self.removed
            .retain(|_, removal| !removal.done || young(removal.at));
        self.lost = self.lost.filter(|at| young(*at));
        // The guard's clock only counts up, so no entry is later than now.
        self.removed
            .values_mut()
            .for_each(|removal| removal.at = removal.at.min(now));
        self.added.values_mut().for_each(|at| *at = (*at).min(now));
    }
}

/// Returns the window as the difference of two times.
pub(super) fn signed(window: Duration) -> SignedDuration {
    SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX)
}
