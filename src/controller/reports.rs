use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tracing::warn;

use crate::control_plane::Outbox;
use crate::document::{Phase, StatusBody};
use crate::model::Uid;
use crate::telemetry::chain;
use crate::wire::WireStatus;

/// What the Control Plane is told about sessions, by comparing what it said last with what was read back
/// (docs/contract/session.md#reports-of-status). A report goes into the outbox on disk and is delivered from there;
/// whether it arrives never touches a tunnel.
#[derive(Debug, Default)]
pub struct Reports {
    outbox: Option<Arc<Outbox>>,
    known: Mutex<Known>,
    /// Told when there is something to deliver.
    pub deliver: Notify,
    /// Told when the world must be made anew.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// What the Control Plane said last.
    listed: BTreeMap<Uid, WireStatus>,
    /// Sessions that it was told are in error.
    failed: BTreeMap<Uid, String>,
    /// The last report could not be kept, which was said.
    unkept: bool,
}

impl Reports {
    /// Reports through this outbox; without one (no Control Plane) nothing is reported.
    pub fn new(outbox: Option<Arc<Outbox>>) -> Self {
        let pending = outbox
            .as_ref()
            .and_then(|outbox| outbox.pending().ok())
            .unwrap_or_default();
        let failed = pending
            .into_iter()
            .filter(|report| report.status == WireStatus::Error);
        let known = Known {
            failed: failed
                .map(|report| (report.uuid, report.error.unwrap_or_default()))
                .collect(),
            ..Known::default()
        };
        Self {
            outbox,
            known: Mutex::new(known),
            ..Self::default()
        }
    }

    /// Takes what the Control Plane says now.
    pub fn listed(&self, statuses: BTreeMap<Uid, WireStatus>) {
        if let Some(outbox) = &self.outbox {
            outbox.listed(&statuses);
        }
        self.lock().listed = statuses;
    }

    /// What the Control Plane said last of a session.
    pub fn listed_status(&self, uid: &Uid) -> Option<WireStatus> {
        self.lock().listed.get(uid).copied()
    }

    /// Tells of a session that was looked at.
    pub fn session(&self, uid: &Uid, status: &StatusBody) {
        let Some(listed) = self
            .listed_status(uid)
            .filter(|listed| listed.takes_error())
        else {
            return;
        };
        match status.phase {
            Phase::Error => self.error(uid, status.last_error.clone().unwrap_or_default()),
            Phase::Configured | Phase::Established | Phase::Degraded => {
                let recovered = self.lock().failed.remove(uid).is_some();
                if recovered || listed != WireStatus::Active {
                    self.put(uid, WireStatus::Active, None);
                }
            }
            Phase::Pending
            | Phase::Disabled
            | Phase::Configuring
            | Phase::Paused
            | Phase::Deleting => {}
        }
    }

    /// Tells of a session that cannot be configured.
    pub fn error(&self, uid: &Uid, why: String) {
        self.lock().failed.insert(uid.clone(), why.clone());
        self.put(uid, WireStatus::Error, Some(why));
    }

    /// Tells of a session that is gone. Returns whether the report is safe on disk.
    pub async fn gone(&self, uid: &Uid) -> bool {
        self.lock().failed.remove(uid);
        self.put(uid, WireStatus::Disabled, None)
    }

    /// The sessions whose report that they are gone still waits. One look at the outbox for all of them: a look
    /// for each of a thousand sessions would read a thousand files a thousand times.
    pub fn waiting_gone(&self) -> BTreeSet<Uid> {
        let pending = self
            .outbox
            .as_ref()
            .and_then(|outbox| outbox.pending().ok())
            .unwrap_or_default();
        let gone = pending
            .into_iter()
            .filter(|report| report.status == WireStatus::Disabled);
        gone.map(|report| report.uuid).collect()
    }

    /// Carries what is reported of a session over to its new uuid.
    pub fn renew(&self, formerly: &Uid, uid: &Uid) {
        let mut known = self.lock();
        if let Some(why) = known.failed.remove(formerly) {
            known.failed.insert(uid.clone(), why);
        }
        drop(known);
        let renewed = self
            .outbox
            .as_ref()
            .map(|outbox| outbox.renew(formerly, uid));
        if let Some(Err(error)) = renewed {
            warn!(%uid, %formerly, error = %chain(&error), "the pending report keeps its former uuid");
        }
    }

    /// Asks for the world to be made anew.
    pub fn reload(&self) {
        self.changed.notify_one();
    }

    fn put(&self, uid: &Uid, status: WireStatus, error: Option<String>) -> bool {
        let Some(outbox) = &self.outbox else {
            return true;
        };
        let kept = outbox.put(uid, status, error);
        let said = std::mem::replace(&mut self.lock().unkept, kept.is_err());
        match kept {
            Ok(true) => {
                self.deliver.notify_one();
                true
            }
            Ok(false) => true,
            // It is tried again at every look, and a full disk is not worth a line each time.
            Err(_) if said => false,
            Err(error) => {
                warn!(%uid, error = %chain(&error), "the report could not be kept");
                false
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
