//! The posts of a router, on disk next to its folder's YAML files: the newest heartbeat, the newest
//! report, the newest status per session, and a log of status changes. Each session's status has
//! its own file, so that a router that reports a thousand sessions costs a thousand small writes.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::audit::append;
use super::journal::Edit;
use crate::fleet::good::Good;
use crate::fleet::history::{self, ServedList};
use crate::fleet::posts::{Post, Posts, ReportedStatus, Statuses};
use crate::fleet::store::Change;
use crate::model::{ObjectName, Uid};
use crate::util::file;
use crate::util::fs;
use crate::util::sorted::Sorted as _;
use crate::wire::reference::endpoint;
use crate::wire::{Call, Modify};

/// Size from which a new log of status changes is started; one older log is kept.
const LOG_MAX: u64 = 1024 * 1024;

/// Size limit of the server's own files, in bytes; a report of a thousand sessions has about 300 000.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The folder with one file per session.
const STATUSES: &str = "sessions";

/// The folder with the last valid version of each item in the fleet's files.
const GOOD: &str = "good";

const HEARTBEAT: &str = "heartbeat.json";
const REPORT: &str = "report.json";
const SERVED: &str = "served.json";

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

    /// Returns the change of a file that a change makes; makes that of the log at once.
    pub(super) fn edit(&self, change: &Change) -> io::Result<Option<Edit>> {
        let (file, text) = match change {
            Change::Heartbeat(post) => (HEARTBEAT.into(), Some(line(post)?)),
            Change::Report(post) => (REPORT.into(), Some(line(post)?)),
            Change::Served(lists) => (SERVED.into(), Some(self.with_served(lists)?)),
            Change::Status(entry) => (status_file(&entry.uuid), Some(text(entry)?)),
            Change::Forget(entry) => (status_file(&entry.uuid), None),
            Change::Log { modify, applied } => {
                self.log(modify, *applied)?;
                return Ok(None);
            }
            Change::Good(call, good) => (good_file(*call), Some(text(good)?)),
        };
        let path = self.directory.join(file);
        Ok(Some(Edit { path, text }))
    }

    /// Returns the last valid version of each unit of an answer.
    pub(super) fn good(&self, call: Call) -> io::Result<Good> {
        Ok(self.read(&good_file(call))?.unwrap_or_default())
    }

    /// Returns the stored posts, for display.
    pub(super) fn posts(&self) -> io::Result<Posts> {
        Ok(Posts {
            heartbeat: self.heartbeat()?,
            report: self.read(Path::new(REPORT))?,
            sessions: self.statuses()?,
        })
    }

    pub(super) fn heartbeat(&self) -> io::Result<Option<Post>> {
        self.read(Path::new(HEARTBEAT))
    }

    /// Returns the text of the file of the lists that the router was served, with these.
    fn with_served(&self, lists: &[ServedList]) -> io::Result<String> {
        let mut served = self.served()?;
        history::store(&mut served, lists);
        line(&Post {
            received_at: Timestamp::now(),
            body: json!(served),
        })
    }

    /// Returns the lists that the router was served.
    pub(super) fn served(&self) -> io::Result<Vec<ServedList>> {
        let post: Option<Post> = self.read(Path::new(SERVED))?;
        Ok(post.and_then(|post| post.read()).unwrap_or_default())
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
            .sorted_map())
    }

    /// Adds a line to the log.
    fn log(&self, modify: &Modify, applied: bool) -> io::Result<()> {
        let line = json!({"at": Timestamp::now(), "modify": modify, "applied": applied});
        append(&self.directory, "modify.log", LOG_MAX, &format!("{line}\n")).map(drop)
    }

    /// Reads a file of the server. Quarantines an invalid one: routers post all relevant content again.
    fn read<T: serde::de::DeserializeOwned>(&self, name: &Path) -> io::Result<Option<T>> {
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
}

/// Writes a post, which may be large, without spaces.
fn line(post: &Post) -> io::Result<String> {
    Ok(serde_json::to_string(post)? + "\n")
}

fn text(value: &impl Serialize) -> io::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
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

fn good_file(call: Call) -> PathBuf {
    Path::new(GOOD).join(format!("{}.json", endpoint(call)))
}
