use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// What the guard remembers: the content of `held.yaml`.
///
/// Its times are those of the guard's clock, which starts at the wall clock's time and then only counts the time
/// that the agent runs. A wall clock that is set forward or back therefore ends no window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ledger {
    /// Changes that wait for approval, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Entry>,
    /// Objects whose removal the guard let happen within the window, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, Removal>,
    /// Objects of the operator whose removal is under way. The window does not count them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<String>,
    /// Objects that are new within the window, by object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<String, Timestamp>,
    /// Since when the removals before are unknown, because the ledger could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Timestamp>,
}

/// A change that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// What would happen: `removal`, or the fields with both values.
    pub change: String,
    /// Why it waits.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A removal that the guard let happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Removal {
    /// When.
    pub at: Timestamp,
    /// Whether it is over: the object is gone, or was wanted again. A later removal is judged again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

impl Ledger {
    /// A ledger whose file could not be read: which removals it held is unknown.
    pub fn lost(now: Timestamp) -> Self {
        Self {
            lost: Some(now),
            ..Self::default()
        }
    }

    /// The ledger at a start. Its newest entry counts as made now, and the others keep their distance to it: how
    /// long the agent was stopped is known by the wall clock alone, which may be wrong.
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

    /// Forgets what is older than the window.
    pub(super) fn forget(&mut self, window: Duration, now: Timestamp) {
        let young = |at: Timestamp| now.duration_since(at) < signed(window);
        self.removed.retain(|_, removal| young(removal.at));
        self.lost = self.lost.filter(|at| young(*at));
        // Nothing was recorded after now, by a clock that only counts up.
        self.removed
            .values_mut()
            .for_each(|removal| removal.at = removal.at.min(now));
        self.added.values_mut().for_each(|at| *at = (*at).min(now));
    }
}

/// The window as the difference of two times.
pub(super) fn signed(window: Duration) -> SignedDuration {
    SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX)
}
