use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::ledger::Ledger;
use super::{CallError, Client, Failure};
use crate::intervals::{REFUSED_REPORT_RETRY, REFUSED_REPORT_RETRY_MAX};
use crate::model::{ObjectName, Uid};
use crate::util::backoff::Backoff;
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;
use crate::wire::{Modify, WireStatus};

/// Size limit of a report, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
/// Reports that are sent before their files are removed.
const TOGETHER: usize = 16;

/// Reports of status that the Control Plane has not acknowledged
/// (docs/contract/control-plane.md#outbox): a directory with one file per session, which holds its
/// newest state until it is acknowledged, across restarts.
///
/// Its functions block, except those that say otherwise.
#[derive(Debug)]
pub struct Outbox {
    directory: PathBuf,
    ledger: Option<Ledger>,
    memory: Mutex<Memory>,
}

/// State besides the files; losing it costs a repeated report.
#[derive(Debug, Default)]
struct Memory {
    /// Pending reports by file: a tool that cleans the folder removes no report.
    pending: BTreeMap<PathBuf, Modify>,
    acknowledged: BTreeMap<Uid, Acknowledged>,
    /// The last statuses from the Control Plane.
    listed: BTreeMap<Uid, WireStatus>,
    refused: BTreeMap<Uid, Refusal>,
    /// Acknowledged reports whose files cannot be removed, as on a disk that became read-only. They are not sent again.
    leftover: BTreeMap<Uid, Modify>,
    unremoved: Notices,
}

impl Memory {
    fn is_leftover(&self, report: &Modify) -> bool {
        self.leftover.get(&report.uuid) == Some(report)
    }
}

/// The last acknowledged report of a session.
#[derive(Debug)]
struct Acknowledged {
    report: Modify,
    /// How often it was acknowledged before and the list did not change.
    times: u32,
    /// When to send it again, while the list does not show it.
    again_at: Option<Instant>,
}

impl Acknowledged {
    fn is_enough(&self, report: &Modify) -> bool {
        let is_due = self.again_at.is_some_and(|at| at <= Instant::now());
        self.report == *report && !is_due
    }
}

/// A report that the Control Plane refuses.
#[derive(Debug)]
struct Refusal {
    report: Modify,
    times: u32,
    not_before: Instant,
}

/// A failure to write or read the outbox.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}; check the free space and the owner of the state directory", path.display())]
pub struct OutboxError {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

/// Result of a delivery of the pending reports.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Acknowledged.
    pub delivered: usize,
    /// Dropped, because the Control Plane no longer knows the session.
    pub dropped: usize,
    /// Still pending.
    pub kept: usize,
    /// The failure that ended the round, otherwise the last failure.
    pub failure: Option<CallError>,
}

impl Outbox {
    /// Opens the directory, and creates it if it is missing, in one that exists.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open(directory: &Path) -> Result<Self, OutboxError> {
        make(directory).map_err(|source| failed("create", directory, source))?;
        let outbox = Self {
            directory: directory.to_owned(),
            ledger: None,
            memory: Mutex::default(),
        };
        // From here on a tool that cleans the folder removes no report. The next delivery reports a folder that cannot be
        // read.
        let _ = outbox.pending();
        Ok(outbox)
    }

    /// As [`Outbox::open`], and lists the pending reports in this file too. Returns the sessions that it lists from an
    /// earlier run and whose reports are gone: their files were removed while the agent was stopped.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open_listed(
        directory: &Path,
        list: PathBuf,
    ) -> Result<(Self, Vec<String>), OutboxError> {
        let mut outbox = Self::open(directory)?;
        if outbox.pending().is_err() {
            return Ok((outbox, Vec::new()));
        }
        let ledger = Ledger::new(list);
        let memory = outbox.memory.get_mut();
        let is_there = |uid: &str| memory.pending.values().any(|it| it.uuid.as_str() == uid);
        let listed = ledger.read().into_iter();
        let lost = listed.filter(|(uid, _)| !is_there(uid));
        let lost = lost.map(|(uid, status)| format!("{uid} (status {status})"));
        let lost = lost.collect();
        ledger.set(memory.pending.values());
        outbox.ledger = Some(ledger);
        Ok((outbox, lost))
    }

    /// Stores the newest state of a session. Writes nothing, and returns `false`, if the same state
    /// is pending already, or is the last acknowledged one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(
        &self,
        uid: &Uid,
        status: WireStatus,
        error: Option<String>,
    ) -> Result<bool, OutboxError> {
        let mut memory = self.memory.lock();
        let report = Modify {
            uuid: uid.clone(),
            status,
            error,
        };
        let path = self.path(uid);
        let pending = self
            .read(&path)?
            .filter(|pending| !memory.is_leftover(pending));
        let known = match &pending {
            Some(pending) => *pending == report,
            // A tool removed the file: the acknowledged state is older than the pending one.
            None if memory.pending.contains_key(&path) => false,
            None => memory
                .acknowledged
                .get(uid)
                .is_some_and(|acknowledged| acknowledged.is_enough(&report)),
        };
        if known {
            return Ok(false);
        }
        write(&self.directory, &path, &report).map_err(|source| failed("write", &path, source))?;
        memory.leftover.remove(uid);
        self.insert(&mut memory, path, report);
        drop(memory);
        tracing::debug!(%uid, status = status.number(), "report queued");
        Ok(true)
    }

    /// Processes the statuses of a list; does not block. If the Control Plane changed a status to another than the
    /// acknowledged one, the same report is sent again at once. If it acknowledged a report and lists the former status
    /// still, the report is sent again after a wait, which doubles each time.
    pub fn listed(&self, statuses: BTreeMap<Uid, WireStatus>) {
        let memory = &mut *self.memory.lock();
        let before = std::mem::replace(&mut memory.listed, statuses);
        memory.acknowledged.retain(|uid, acknowledged| {
            let now = memory.listed.get(uid);
            if now == Some(&acknowledged.report.status) {
                (acknowledged.times, acknowledged.again_at) = (0, None);
            } else if acknowledged.again_at.is_none() {
                let wait = retry_of_a_report().wait(acknowledged.times);
                acknowledged.again_at = Some(Instant::now() + wait);
            }
            now.is_some_and(|now| {
                *now == acknowledged.report.status || before.get(uid) == Some(now)
            })
        });
    }

    /// Returns the number of pending reports. Does not block.
    pub fn waiting(&self) -> usize {
        self.memory.lock().pending.len()
    }

    /// Returns the status that the Control Plane last listed for a session. Does not block.
    pub fn listed_status(&self, uid: &Uid) -> Option<WireStatus> {
        self.memory.lock().listed.get(uid).copied()
    }

    /// Returns all pending reports, by file name. Quarantines invalid files.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pending(&self) -> Result<Vec<Modify>, OutboxError> {
        let mut memory = self.memory.lock();
        let entries =
            fs::read_dir(&self.directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match entries {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries.map_err(|source| failed("list", &self.directory, source))?,
        };
        let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        paths.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        paths.sort();
        // An unreadable file does not delay other reports.
        let read = |path: &PathBuf| match self.read(path) {
            Ok(report) => report,
            Err(error) => {
                tracing::warn!(%error, "report skipped; the next delivery tries again");
                None
            }
        };
        let found = paths
            .iter()
            .filter_map(|path| Some((path.clone(), read(path)?)));
        let found: BTreeMap<_, _> = found
            .filter(|(_, report)| !memory.is_leftover(report))
            .sorted_map();
        for (path, report) in std::mem::take(&mut memory.pending) {
            if !found.contains_key(&path) {
                self.put_back(&path, &report);
                memory.pending.insert(path, report);
            }
        }
        memory.pending.extend(found);
        Ok(memory.pending.values().cloned().collect())
    }

    fn insert(&self, memory: &mut Memory, path: PathBuf, report: Modify) {
        if let Some(ledger) = &self.ledger {
            ledger.add(&report);
        }
        memory.pending.insert(path, report);
    }

    /// Removes a report. Without a pending report the list is emptied, so that it stays short.
    fn forget(&self, memory: &mut Memory, path: &Path) {
        let report = memory.pending.remove(path);
        match (&self.ledger, report) {
            (Some(ledger), _) if memory.pending.is_empty() => ledger.set(std::iter::empty()),
            (Some(ledger), Some(report)) => ledger.remove(&report.uuid),
            _ => {}
        }
    }

    /// Writes a pending report again whose file a tool removed or replaced.
    fn put_back(&self, path: &Path, report: &Modify) {
        tracing::warn!(
            file = %path.display(),
            "file of a pending report is missing; writing it again, because the report is not delivered. To drop the \
             report, stop the agent before you delete the file"
        );
        if let Err(error) = write(&self.directory, path, report) {
            tracing::warn!(file = %path.display(), %error, "pending report not written; the next delivery tries again");
        }
    }

    /// Runs work on files on a thread that may block.
    async fn files<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let outbox = Arc::clone(self);
        blocking(move || work(&outbox)).await
    }

    /// Removes the files of acknowledged reports, and returns the pending ones.
    fn without_leftovers(&self) -> Result<Vec<Modify>, OutboxError> {
        let leftover: Vec<_> = self.memory.lock().leftover.values().cloned().collect();
        leftover.iter().for_each(|report| self.remove(report));
        self.pending()
    }

    /// Sends each pending report once. Does not block. A report that the Control Plane refuses waits longer each
    /// time and blocks no other; an unreachable Control Plane ends the round.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn deliver_once(self: &Arc<Self>, client: &Client) -> Result<Delivery, OutboxError> {
        let mut delivery = Delivery::default();
        let mut over = false;
        let mut answered = Vec::new();
        for report in self.files(Self::without_leftovers).await? {
            if over || self.waits(&report) {
                delivery.kept += 1;
                continue;
            }
            match client.post_modify(&report).await {
                Ok(()) => {
                    delivery.delivered += 1;
                    answered.push(report);
                }
                Err(error) if is_gone(client, &error.failure) => {
                    tracing::info!(uid = %report.uuid, "the Control Plane no longer knows the \
                                                        session; report dropped");
                    delivery.dropped += 1;
                    answered.push(report);
                }
                Err(error) => {
                    over = !self.refuse(&report, &error);
                    delivery.failure = Some(error);
                    delivery.kept += 1;
                }
            }
            if answered.len() >= TOGETHER {
                self.acknowledge_all(std::mem::take(&mut answered)).await;
            }
        }
        self.acknowledge_all(answered).await;
        Ok(delivery)
    }

    /// Moves a pending report to the new uuid of its session.
    ///
    /// # Errors
    /// A file cannot be read, written or removed.
    pub fn renew(&self, formerly: &Uid, uid: &Uid) -> Result<(), OutboxError> {
        let mut memory = self.memory.lock();
        memory.acknowledged.remove(formerly);
        memory.refused.remove(formerly);
        let (old, new) = (self.path(formerly), self.path(uid));
        let on_disk = self
            .read(&old)?
            .filter(|report| !memory.is_leftover(report));
        let Some(report) = on_disk.or_else(|| memory.pending.get(&old).cloned()) else {
            return Ok(());
        };
        if self.read(&new)?.is_none() && !memory.pending.contains_key(&new) {
            let report = Modify {
                uuid: uid.clone(),
                ..report
            };
            write(&self.directory, &new, &report)
                .map_err(|source| failed("write", &new, source))?;
            self.insert(&mut memory, new, report);
        }
        self.forget(&mut memory, &old);
        match fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &old, error))
            }
            _ => Ok(()),
        }
    }

    /// Acknowledges reports on one thread. After a crash before that they are sent again.
    async fn acknowledge_all(self: &Arc<Self>, answered: Vec<Modify>) {
        if !answered.is_empty() {
            let all = move |outbox: &Self| answered.iter().for_each(|it| outbox.acknowledge(it));
            self.files(all).await;
        }
    }

    /// Records that the Control Plane has accepted a report, and removes its file.
    fn acknowledge(&self, report: &Modify) {
        let mut memory = self.memory.lock();
        memory.refused.remove(&report.uuid);
        let before = memory.acknowledged.get(&report.uuid);
        let before = before.filter(|before| before.report == *report);
        let acknowledged = Acknowledged {
            report: report.clone(),
            times: before.map_or(0, |before| before.times + 1),
            again_at: None,
        };
        memory
            .acknowledged
            .insert(report.uuid.clone(), acknowledged);
        drop(memory);
        self.remove(report);
    }

    /// Removes the file of an acknowledged report, unless it has a newer state. Logs both edges of
    /// a directory in which the removal fails.
    fn remove(&self, report: &Modify) {
        let mut memory = self.memory.lock();
        let path = self.path(&report.uuid);
        if memory.pending.get(&path) == Some(report) {
            self.forget(&mut memory, &path);
        }
        let removed = self.read(&path).and_then(|pending| {
            if pending.as_ref() != Some(report) {
                return Ok(());
            }
            fs::remove_file(&path).map_err(|source| failed("remove", &path, source))
        });
        match &removed {
            Ok(()) => drop(memory.leftover.remove(&report.uuid)),
            Err(_) => drop(memory.leftover.insert(report.uuid.clone(), report.clone())),
        }
        match (memory.unremoved.edge(!memory.leftover.is_empty()), removed) {
            (Some(true), Err(error)) => {
                tracing::warn!(%error, "delivered report not removed; it is not sent again before a restart");
            }
            (Some(false), _) => tracing::info!("delivered reports can be removed again"),
            _ => {}
        }
    }

    /// Returns whether a refused report has to wait. A newer state of the session does not.
    fn waits(&self, report: &Modify) -> bool {
        let memory = self.memory.lock();
        let refusal = memory
            .refused
            .get(&report.uuid)
            .filter(|refusal| refusal.report == *report);
        refusal.is_some_and(|refusal| Instant::now() < refusal.not_before)
    }

    /// Records a failure, and returns whether the round may continue.
    fn refuse(&self, report: &Modify, error: &CallError) -> bool {
        if !is_about_this_report(&error.failure) {
            return false;
        }
        let mut memory = self.memory.lock();
        let before = memory
            .refused
            .get(&report.uuid)
            .filter(|refusal| refusal.report == *report);
        let times = before.map_or(0, |refusal| refusal.times);
        let wait = retry_of_a_report().wait(times);
        tracing::warn!(uid = %report.uuid, %error, wait_s = wait.as_secs(), "report refused");
        let not_before = Instant::now() + wait;
        let refusal = Refusal {
            report: report.clone(),
            times: times + 1,
            not_before,
        };
        memory.refused.insert(report.uuid.clone(), refusal);
        true
    }

    /// Returns a safe file name, which identifies the session to a reader and is unique.
    fn path(&self, uid: &Uid) -> PathBuf {
        let digest = Sha256::digest(uid.as_str().as_bytes());
        let short: String = digest
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.directory.join(format!(
            "{}-{short}.json",
            ObjectName::sanitised(uid.as_str())
        ))
    }

    /// Reads a report. Removes an empty file, and quarantines one that is not a report, or whose report belongs to
    /// another file.
    fn read(&self, path: &Path) -> Result<Option<Modify>, OutboxError> {
        let text = match file::read_unlinked(path, MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if file::is_unusable(error.kind()) => Vec::new(),
            Err(source) => return Err(failed("read", path, source)),
            // A power failure leaves an empty file of a report that is made again; see `write`.
            Ok(text) if text.is_empty() => {
                let removed = file::remove_file(path);
                removed.map_err(|source| failed("remove", path, source))?;
                return Ok(None);
            }
            Ok(text) => text,
        };
        match serde_json::from_slice::<Modify>(&text) {
            Ok(report) if self.path(&report.uuid) == path => Ok(Some(report)),
            _ => file::quarantine(path, "it is not a report")
                .map(|_| None)
                .map_err(|source| failed("quarantine", path, source)),
        }
    }
}

/// The waits before a report is repeated that the Control Plane refuses, or acknowledges without effect.
fn retry_of_a_report() -> Backoff {
    Backoff::new(REFUSED_REPORT_RETRY, REFUSED_REPORT_RETRY_MAX)
}

/// Returns whether the session no longer exists, so that the report is obsolete. A 404 without this
/// code may be a wrong URL.
fn is_gone(client: &Client, failure: &Failure) -> bool {
    matches!(failure, Failure::NotFound { code: Some(code), .. } if client.dialect().is_session_gone(code))
}

/// Returns whether the failure may concern this report only, so that others may succeed.
fn is_about_this_report(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Refused { .. } | Failure::Server { .. } | Failure::Body(_) | Failure::TooLarge(_)
    )
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> OutboxError {
    OutboxError {
        operation,
        path: path.to_owned(),
        source,
    }
}

/// Creates the directory, but not the state directory around it.
fn make(directory: &Path) -> io::Result<()> {
    let around = directory.parent().unwrap_or(directory);
    fs::create_dirs_below(around, directory, 0o700)
}

/// Writes a report atomically. Only that of a session that is gone is made durable: of a session that exists, each
/// observation makes the report again that the Control Plane's list lacks, also after a power failure.
fn write(directory: &Path, path: &Path, report: &Modify) -> io::Result<()> {
    // A cleaning tool may have removed the folder; without the identity next to it, this is an
    // empty mount point and not the state directory.
    if fs::exists(directory.with_file_name(crate::store::IDENTITY)) {
        make(directory)?;
    }
    let text = serde_json::to_vec(report)?;
    let writer = Writer::new(0o600);
    match report.status {
        WireStatus::Disabled => writer.replace(path, &text),
        _ => writer.light().replace(path, &text),
    }
}
