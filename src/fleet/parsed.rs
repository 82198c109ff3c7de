//! Cache of parsed files, so that a router that reports each of a thousand sessions does not cause
//! a thousand parses of its whole list.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::disk;
use crate::document::{DocumentError, parse_list};

/// Size limit of a fleet's file, in bytes; a list of twenty thousand sessions has about eight million.
pub(super) const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file that was written less than this ago may be written again within the tick of the file
/// system's clock, with the same stamp. It is parsed each time.
const SETTLED: Duration = Duration::from_secs(2);

/// A file that was written less than this ago may be incomplete: `cp`, `git checkout` and some
/// editors write into the file itself, and an incomplete list of sessions is read as a list with
/// fewer sessions. A busy disk delays a writer by a quarter of a second and more between two writes
/// (observed next to a process that syncs).
const QUIET: Duration = Duration::from_secs(1);

/// Limit of the wait until a file is quiet.
const PATIENCE: Duration = Duration::from_secs(5);

/// Changes with the content of a file: device, inode, size and the times of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    /// Returns the stamp of the file at a path; `None` without a file.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self::of(&found))
    }

    fn of(found: &fs::Metadata) -> Self {
        let (modified, changed) = (
            (found.mtime(), found.mtime_nsec()),
            (found.ctime(), found.ctime_nsec()),
        );
        Self(found.dev(), found.ino(), found.len(), modified, changed)
    }
}

/// The content of a file with this stamp.
type Known = (Stamp, Arc<Map<String, Value>>);

/// The parsed files, by their paths.
#[derive(Debug, Default)]
pub(super) struct Parsed(Mutex<HashMap<PathBuf, Known>>);

/// A failure to get a mapping from a file.
pub(super) enum ReadError {
    /// It cannot be read.
    Io(io::Error),
    /// It is not a valid document.
    Document(DocumentError),
}

impl Parsed {
    /// Returns the mapping in a file, parsed only if the file changed since the last time.
    pub(super) fn mapping(&self, path: &Path) -> Result<Arc<Map<String, Value>>, ReadError> {
        let known = fs::metadata(path).map_err(ReadError::Io)?;
        if let Some((stamp, map)) = self.0.lock().get(path)
            && *stamp == Stamp::of(&known)
        {
            return Ok(Arc::clone(map));
        }
        let (text, found) = read_quiet(path).map_err(ReadError::Io)?;
        let map: Arc<Map<String, Value>> =
            Arc::new(parse_list(&text).map_err(ReadError::Document)?);
        if age(&found) > SETTLED {
            self.0
                .lock()
                .insert(path.to_owned(), (Stamp::of(&found), Arc::clone(&map)));
        }
        Ok(map)
    }
}

/// Reads a file once it has been quiet for a moment. Blocks.
pub(super) fn read_quiet(path: &Path) -> io::Result<(String, fs::Metadata)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (file, found) = disk::open(path)?;
        let wait = QUIET.checked_sub(age(&found));
        if wait.is_none() {
            let opened = file.try_clone()?;
            let text = disk::text(disk::bytes((opened, found.clone()), MAX_BYTES)?)?;
            // A writer may have started in the meantime.
            if Stamp::of(&file.metadata()?) == Stamp::of(&found) {
                return Ok((text, found));
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "it changes constantly; write it elsewhere and rename it",
            ));
        }
        std::thread::sleep(wait.unwrap_or(QUIET));
    }
}

/// Returns whether a file may be in the middle of a write.
pub(super) fn is_being_written(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| age(&found) < QUIET)
}

/// Returns the time since the last change; the maximum for a change in the future, as after a clock that was set back.
fn age(found: &fs::Metadata) -> Duration {
    // Uses the change time: unlike the modification time it cannot be set by a program.
    let nanos = u32::try_from(found.ctime_nsec()).unwrap_or_default();
    let since = Duration::new(u64::try_from(found.ctime()).unwrap_or_default(), nanos);
    (SystemTime::UNIX_EPOCH + since)
        .elapsed()
        .unwrap_or(Duration::MAX)
}
