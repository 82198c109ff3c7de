//! What the server keeps about the whole fleet: how far a change has come, and which routers may drain.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::network::{FleetFiles, is_structure};
use super::measure::Measure;
use crate::intervals::FLEET_DRAIN_KEPT;
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

/// The record of a fleet. Without it, no change would have waves and no drain a budget, so one that cannot be read is
/// an error and no empty one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FleetRecord {
    /// Counts the changes of the record.
    pub(in crate::fleet) version: u64,
    /// The description that every router gets which is in no wave; `None` while the network has no `rollout`.
    pub(super) accepted: Option<Texts>,
    /// The change on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ongoing: Option<Ongoing>,
    /// The change that was taken back. It is not tried again until the description changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<Refused>,
    /// The routers that may drain, with the time of the permission.
    #[serde(default)]
    pub(super) drains: BTreeMap<ObjectName, Timestamp>,
}

/// `network.yaml` and the files in `routers/`: the text by the path.
pub(super) type Texts = BTreeMap<String, String>;

/// A change that some routers have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ongoing {
    /// The digest of the newer description.
    pub(super) to: String,
    /// The waves, as they were when the change began.
    pub(super) waves: Vec<Vec<ObjectName>>,
    /// The wave that is observed, from 0.
    pub(super) wave: usize,
    /// When this wave began.
    pub(super) since: Timestamp,
    /// The routers that have the change, as they were before it.
    pub(super) before: BTreeMap<ObjectName, Before>,
    /// Routers as they were before an earlier change, from which they may not have recovered yet.
    #[serde(default)]
    pub(super) earlier: BTreeMap<ObjectName, Measure>,
}

/// A router before it got a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Before {
    /// When it got the change.
    pub(super) at: Timestamp,
    pub(super) measure: Measure,
    /// The arrival of the first report that broke a gate; a better report clears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) broken_at: Option<Timestamp>,
}

/// A change that was taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refused {
    /// The digest of the description.
    pub(super) to: String,
    pub(super) at: Timestamp,
    pub(super) why: String,
    /// The routers that had the change, as they were before it.
    #[serde(default)]
    pub(super) before: BTreeMap<ObjectName, Measure>,
}

impl FleetRecord {
    /// Returns whether a router gets the newer description of a change.
    pub(super) fn has_change(&self, router: &ObjectName) -> bool {
        let ongoing = self.ongoing.as_ref();
        ongoing.is_some_and(|ongoing| ongoing.before.contains_key(router))
    }

    /// Returns the routers whose posts decide on the next step; `None`: a change begins, and every router's may.
    pub(super) fn observed(&self, newest: &str) -> Option<BTreeSet<ObjectName>> {
        if let Some(ongoing) = self.ongoing.as_ref().filter(|it| it.to == newest) {
            let next = ongoing.waves.get(ongoing.wave + 1);
            let next = next.into_iter().flatten().cloned();
            return Some(ongoing.before.keys().cloned().chain(next).sorted_set());
        }
        let is = |digest: Option<&str>| digest == Some(newest);
        let accepted = self.accepted.as_ref().map(digest);
        let decided = is(self.refused.as_ref().map(|it| it.to.as_str())) || is(accepted.as_deref());
        decided.then(BTreeSet::new)
    }

    /// Forgets the change on its way, for a network that gives its changes to all routers at once.
    pub(super) fn clear(&mut self) {
        (self.accepted, self.ongoing, self.refused) = (None, None, None);
    }

    /// Adds the permission to drain.
    pub(super) fn permit(&mut self, router: &ObjectName, now: Timestamp) {
        self.drains.insert(router.clone(), now);
    }

    /// Returns whether a router has a permission that lasts until its heartbeats show that it is drained.
    pub(super) fn is_permitted(&self, router: &ObjectName, now: Timestamp) -> bool {
        let at = self.drains.get(router);
        at.is_some_and(|at| now.duration_since(*at) < FLEET_DRAIN_KEPT / 2)
    }

    /// Removes permissions that are older than a router needs to show that it is drained.
    pub(super) fn forget_drains(&mut self, now: Timestamp) {
        self.drains
            .retain(|_, at| now.duration_since(*at) < FLEET_DRAIN_KEPT);
    }
}

/// Returns the texts that describe the structure of a network, without those of sessions.
pub(super) fn texts(files: &FleetFiles) -> Texts {
    let files = files.iter().filter(|(path, _)| is_structure(path));
    files
        .map(|(path, text)| (path.to_owned(), text.to_string()))
        .sorted_map()
}

/// Returns a text that identifies a description.
pub(super) fn digest(texts: &Texts) -> String {
    let mut hasher = Sha256::new();
    for part in texts.iter().flat_map(|(path, text)| [path, text]) {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    format!("{:x}", hasher.finalize())
}
