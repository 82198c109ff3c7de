//! The complete fleet in memory, as of the newest revision that was read: the files and the posted statuses.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;

use crate::fleet::posts::{ReportedStatus, Statuses};
use crate::fleet::store::held::{ChangedFile, HeldFiles};
use crate::model::{ObjectName, Uid};
use crate::util::sorted::Sorted as _;

/// A status that changed.
pub(super) struct ChangedStatus {
    pub(super) router: ObjectName,
    /// The session's uuid.
    pub(super) uuid: String,
    pub(super) revision: i64,
    /// `None`: the posted status was forgotten.
    pub(super) entry: Option<ReportedStatus>,
}

/// The posted statuses of a router.
#[derive(Debug, Default)]
struct Posted {
    /// The revision of each session's change, by uuid.
    revisions: BTreeMap<String, i64>,
    entries: Statuses,
}

/// The fleet, as requests read it.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Memory {
    pub(in crate::fleet) files: HeldFiles,
    posted: RwLock<HashMap<ObjectName, Posted>>,
    /// Held by the one who reads changes, so that none is applied over a newer one.
    pub(super) refreshing: tokio::sync::Mutex<()>,
}

impl Memory {
    /// Takes everything up to a revision in place of what was known.
    pub(super) fn replace(
        &self,
        revision: i64,
        files: Vec<ChangedFile>,
        statuses: Vec<ChangedStatus>,
    ) {
        let read = Self::default();
        read.apply(revision, files, statuses);
        *self.posted.write() = read.posted.into_inner();
        self.files.replace(read.files);
    }

    /// Takes all changes up to a revision.
    pub(super) fn apply(
        &self,
        revision: i64,
        files: Vec<ChangedFile>,
        statuses: Vec<ChangedStatus>,
    ) {
        self.apply_statuses(statuses);
        self.files.apply(revision, files);
    }

    pub(super) fn apply_statuses(&self, statuses: Vec<ChangedStatus>) {
        let mut all = self.posted.write();
        for change in statuses {
            let posted = all.entry(change.router).or_default();
            let known = posted.revisions.entry(change.uuid.clone());
            let known = known.or_insert(change.revision);
            if change.revision < *known {
                // Read before a newer change was made here.
                continue;
            }
            *known = change.revision;
            match change.entry {
                Some(entry) => drop(posted.entries.insert(change.uuid, entry)),
                None => drop(posted.entries.remove(&change.uuid)),
            }
        }
    }

    pub(super) fn statuses(&self, router: &ObjectName) -> Statuses {
        let all = self.posted.read();
        let posted = all.get(router);
        posted.map(|it| it.entries.clone()).unwrap_or_default()
    }

    pub(super) fn status(&self, router: &ObjectName, uuid: &Uid) -> Statuses {
        let all = self.posted.read();
        let entry = all
            .get(router)
            .and_then(|posted| posted.entries.get_key_value(uuid.as_str()));
        entry
            .map(|(uuid, entry)| (uuid.clone(), entry.clone()))
            .into_iter()
            .sorted_map()
    }
}
