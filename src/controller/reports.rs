use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use crate::control_plane::Outbox;
use crate::document::{Phase, StatusBody};
use crate::model::Uid;
use crate::telemetry::chain;
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;
use crate::wire::WireStatus;

/// Reports of sessions to the Control Plane, from the comparison of its last list with the observation
/// (docs/contract/session.md#reports-of-status). A report goes into the outbox on disk and is delivered from there;
/// its delivery never affects a tunnel.
#[derive(Debug, Default)]
pub struct Reports {
    outbox: Option<Arc<Outbox>>,
    /// Sessions that were reported as failed.
    failed: Mutex<BTreeMap<Uid, String>>,
    /// Whether the last report could not be stored.
    unkept: Notices,
    /// Notified when there is a report to deliver.
    pub deliver: Notify,
    /// Notified when the desired state must be rebuilt.
    pub changed: Notify,
}

/// A report of a session.
#[derive(Debug)]
pub(super) struct Report {
    uid: Uid,
    status: WireStatus,
    error: Option<String>,
}

impl Reports {
    /// Returns reports that use this outbox; without one (no Control Plane) nothing is reported.
    pub fn new(outbox: Option<Arc<Outbox>>) -> Self {
        let pending = outbox
            .as_ref()
            .and_then(|outbox| outbox.pending().ok())
            .unwrap_or_default();
        let failed = pending
            .into_iter()
            .filter(|report| report.status == WireStatus::Error);
        let failed = failed.map(|report| (report.uuid, report.error.unwrap_or_default()));
        Self {
            failed: Mutex::new(failed.sorted_map()),
            outbox,
            ..Self::default()
        }
    }

    /// Stores the statuses that the Control Plane lists now.
    pub fn listed(&self, statuses: BTreeMap<Uid, WireStatus>) {
        if let Some(outbox) = &self.outbox {
            outbox.listed(statuses);
        }
    }

    /// Returns the status that the Control Plane last listed for a session.
    pub fn listed_status(&self, uid: &Uid) -> Option<WireStatus> {
        self.outbox.as_ref()?.listed_status(uid)
    }

    /// Stores a report. Blocks.
    pub(super) fn keep(&self, report: Report) {
        self.put(&report.uid, report.status, report.error);
    }

    /// Returns the report of a session that was observed.
    pub(super) fn due(&self, uid: &Uid, status: &StatusBody) -> Option<Report> {
        let (status, error) = self.changed_status(uid, status)?;
        let uid = uid.clone();
        Some(Report { uid, status, error })
    }

    fn changed_status(
        &self,
        uid: &Uid,
        status: &StatusBody,
    ) -> Option<(WireStatus, Option<String>)> {
        let listed = self.listed_status(uid)?;
        if !listed.takes_error() {
            return None;
        }
        match status.phase {
            Phase::Error => {
                let why = status.last_error.clone().unwrap_or_default();
                self.failed.lock().insert(uid.clone(), why.clone());
                Some((WireStatus::Error, Some(why)))
            }
            Phase::Configured | Phase::Established | Phase::Degraded => {
                let recovered = self.failed.lock().remove(uid).is_some();
                (recovered || listed != WireStatus::Active).then_some((WireStatus::Active, None))
            }
            Phase::Pending
            | Phase::Disabled
            | Phase::Configuring
            | Phase::Paused
            | Phase::Deleting => None,
        }
    }

    /// Reports a session that is gone. Blocks. Returns whether the report is safe on disk.
    pub fn gone(&self, uid: &Uid) -> bool {
        self.failed.lock().remove(uid);
        self.put(uid, WireStatus::Disabled, None)
    }

    /// Moves the reports of a session to its new uuid. Blocks.
    pub fn renew(&self, formerly: &Uid, uid: &Uid) {
        let mut failed = self.failed.lock();
        if let Some(why) = failed.remove(formerly) {
            failed.insert(uid.clone(), why);
        }
        drop(failed);
        let renewed = self
            .outbox
            .as_ref()
            .map(|outbox| outbox.renew(formerly, uid));
        if let Some(Err(error)) = renewed {
            warn!(%uid, %formerly, error = %chain(&error), "the pending report keeps its former uuid");
        }
    }

    /// Requests that the desired state is rebuilt.
    pub fn reload(&self) {
        self.changed.notify_one();
    }

    fn put(&self, uid: &Uid, status: WireStatus, error: Option<String>) -> bool {
        let Some(outbox) = &self.outbox else {
            return true;
        };
        let kept = outbox.put(uid, status, error);
        let begins = self.unkept.edge(kept.is_err()) == Some(true);
        match kept {
            Ok(true) => {
                self.deliver.notify_one();
                true
            }
            Ok(false) => true,
            // Every observation retries this, and a full disk does not need a log line each time.
            Err(error) => {
                if begins {
                    warn!(%uid, error = %chain(&error), "report not saved");
                }
                false
            }
        }
    }
}
