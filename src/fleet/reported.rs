//! The posts of a router, on disk next to its folder's YAML files: the newest heartbeat, the newest
//! report, the newest status per session, and a log of status changes. Each session's status has
//! its own file, so that a router that reports a thousand sessions costs a thousand small writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::model::{ObjectName, Uid};
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::wire::reference::{identity, write_status, written_status};
use crate::wire::{Modify, WireStatus};

/// Size from which a new log of status changes is started; one older log is kept.
const LOG_MAX: u64 = 1024 * 1024;

/// Size limit of the server's own files, in bytes; a report of a thousand sessions has about 300 000.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The folder with one file per session.
const STATUSES: &str = "sessions";

/// The folder with the last valid version of each item in the fleet's files.
pub(super) const GOOD: &str = "good";

/// The last segment of the path that shows a router's posts.
pub(super) const REPORTED: &str = "reported";

/// The newest status of each session, by uuid.
pub(super) type Statuses = BTreeMap<String, ReportedStatus>;

/// The newest status of a session that its router has posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedStatus {
    /// The session's uuid.
    pub(super) uuid: Uid,
    /// The posted status.
    pub(super) status: WireStatus,
    /// The posted reason.
    pub(super) error: Option<String>,
    /// The status in `sessions.yaml` that the post answered. If the operator changes it, the
    /// operator's status takes precedence.
    pub(super) file_status: Option<WireStatus>,
    /// The time of its arrival.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) at: Timestamp,
}

/// The answer to a post.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(super) struct PostDone {
    /// Always `ok`.
    #[schemars(extend("const" = "ok"))]
    pub(super) status: &'static str,
}

/// A post with the time of its arrival.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Post {
    /// The time of its arrival.
    #[schemars(with = "String", extend("format" = "date-time"))]
    received_at: Timestamp,
    /// The post, unknown fields included.
    body: Value,
}

/// The newest posts of a router.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Posts {
    /// The newest heartbeat.
    heartbeat: Option<Post>,
    /// The newest report.
    report: Option<Post>,
    /// The newest status of each session, by uuid.
    sessions: Statuses,
}

/// The directory `reported/` of a router.
#[derive(Debug)]
pub(super) struct Reported {
    directory: PathBuf,
}

impl Reported {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Removes incomplete files that a killed server left.
    pub(super) fn sweep(&self) {
        for folder in ["", STATUSES, GOOD] {
            file::sweep(&self.directory.join(folder));
        }
    }

    /// Stores the newest heartbeat or report.
    pub(super) fn keep(&self, file: &str, body: Value) -> io::Result<()> {
        let received_at = Timestamp::now();
        self.write(Path::new(file), &Post { received_at, body })
    }

    /// Returns the stored posts, for display.
    pub(super) fn shown(&self) -> io::Result<Posts> {
        Ok(Posts {
            heartbeat: self.read(Path::new("heartbeat.json"))?,
            report: self.read(Path::new("report.json"))?,
            sessions: self.statuses()?,
        })
    }

    /// Returns the newest posted status of each session.
    pub(super) fn statuses(&self) -> io::Result<Statuses> {
        let files = match fs::read_dir(self.directory.join(STATUSES)) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Statuses::new()),
            Err(error) => return Err(error),
        };
        let mut statuses = Statuses::new();
        for file in files {
            let file = Path::new(STATUSES).join(file?.file_name());
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match self.read::<ReportedStatus>(&file) {
                Ok(entry) => statuses.extend(entry.map(|entry| (entry.uuid.to_string(), entry))),
                // An invalid file affects only its own session.
                Err(error) => {
                    tracing::warn!(file = %self.directory.join(&file).display(), %error, "status of a session left out");
                }
            }
        }
        Ok(statuses)
    }

    /// Returns the posted status of one session: none or one.
    pub(super) fn status(&self, uuid: &Uid) -> io::Result<Statuses> {
        let entry = self
            .read::<ReportedStatus>(&status_file(uuid))?
            .filter(|entry| entry.uuid == *uuid);
        Ok(entry
            .map(|entry| (entry.uuid.to_string(), entry))
            .into_iter()
            .collect())
    }

    pub(super) fn set_status(&self, entry: &ReportedStatus) -> io::Result<()> {
        self.write(&status_file(&entry.uuid), entry)
    }

    /// Removes the posted status of a session.
    pub(super) fn forget(&self, uuid: &Uid) -> io::Result<()> {
        file::remove_file(&self.directory.join(status_file(uuid))).map(drop)
    }

    /// Adds a line to the log.
    pub(super) fn log(&self, modify: &Modify, applied: bool) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.directory.join("modify.log");
        if fs::metadata(&path).is_ok_and(|found| found.len() > LOG_MAX) {
            fs::rename(&path, self.directory.join("modify.log.1"))?;
        }
        let mut line =
            json!({"at": Timestamp::now(), "modify": modify, "applied": applied}).to_string();
        line.push('\n');
        fs::open(path, File::options().create(true).append(true))?.write_all(line.as_bytes())
    }

    /// Reads a file of the server. Quarantines an invalid one: routers post all relevant content again.
    pub(super) fn read<T: serde::de::DeserializeOwned>(
        &self,
        name: &Path,
    ) -> io::Result<Option<T>> {
        let path = self.directory.join(name);
        let text = match file::read(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if file::is_unusable(error.kind()) => {
                return file::quarantine(&path, &error.to_string()).map(|_| None);
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => file::quarantine(&path, &error.to_string()).map(|_| None),
        }
    }

    pub(super) fn write(&self, file: &Path, value: &impl Serialize) -> io::Result<()> {
        let path = self.directory.join(file);
        let directory = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(directory)?;
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        Writer::new(0o600).replace(&path, &text)
    }
}

/// Returns a safe file name, which identifies the session to a reader and is unique.
fn status_file(uuid: &Uid) -> PathBuf {
    let digest = Sha256::digest(uuid.as_str().as_bytes());
    let short: String = digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Path::new(STATUSES).join(format!(
        "{}-{short}.json",
        ObjectName::sanitised(uuid.as_str())
    ))
}

/// Returns the status to serve for a session: the one its router has posted, as long as the file
/// has the same status as at the post. `None`: the session is gone, acknowledged.
pub(super) fn served_status(item: &Value, statuses: &Statuses) -> Option<Option<WireStatus>> {
    match standing(item, statuses) {
        Some(entry) if entry.status == WireStatus::Disabled => None,
        Some(entry) => Some(Some(entry.status)),
        None => Some(written_status(item)),
    }
}

fn standing<'a>(item: &Value, statuses: &'a Statuses) -> Option<&'a ReportedStatus> {
    let entry = statuses.get(identity(item)?.as_str())?;
    (entry.file_status == written_status(item)).then_some(entry)
}

/// Returns whether a post answered another status than the file has now: the operator changed it,
/// and that post is no longer valid, even if the file returns to the earlier status.
pub(super) fn superseded(entry: &ReportedStatus, items: &[Value]) -> bool {
    items
        .iter()
        .find(|item| identity(item).as_ref() == Some(&entry.uuid))
        .is_none_or(|item| entry.file_status != written_status(item))
}

/// Applies the routers' posts to the sessions of the file.
pub(super) fn overlay(items: &mut Vec<Value>, statuses: &Statuses) {
    items.retain(|item| served_status(item, statuses).is_some());
    for item in items {
        if let Some(entry) = standing(item, statuses) {
            write_status(item, entry.status, entry.error.as_deref());
        }
    }
}

/// Returns whether a post is a valid answer to the served status. Otherwise it is from a router
/// that has not received the operator's current status yet, and must not undo it.
pub(super) fn applies(posted: WireStatus, served: Option<WireStatus>) -> bool {
    match posted {
        WireStatus::Disabled => served == Some(WireStatus::QueuedForDelete),
        WireStatus::Active | WireStatus::Error => served.is_some_and(WireStatus::takes_error),
        _ => false,
    }
}
