//! Cache of parsed files, so that a router that reports each of a thousand sessions does not cause
//! a thousand parses of its whole list.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::document::{DocumentError, parse_list};
use crate::fleet::layout::MAX_BYTES;
use crate::intervals::{FLEET_FILE_QUIET, FLEET_FILE_WAIT};
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::util::task::pause;

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
        let stamp = Stamp::of(&found);
        if stamp.is_settled() {
            self.0
                .lock()
                .insert(path.to_owned(), (stamp, Arc::clone(&map)));
        }
        Ok(map)
    }
}

/// Reads a file once it has been quiet for a moment. Blocks.
pub(super) fn read_quiet(path: &Path) -> io::Result<(String, Metadata)> {
    let deadline = Instant::now() + FLEET_FILE_WAIT;
    loop {
        let (file, found) = file::open(path)?;
        let stamp = Stamp::of(&found);
        let wait = stamp
            .age()
            .and_then(|age| FLEET_FILE_QUIET.checked_sub(age));
        if wait.is_none() {
            let opened = file.try_clone()?;
            let text = file::text(file::bytes((opened, found.clone()), MAX_BYTES)?)?;
            // A writer may have started in the meantime.
            if Stamp::of(&file.metadata()?) == stamp {
                return Ok((text, found));
            }
        }
        if Instant::now() > deadline {
            return Err(io::Error::other(
                "it changes constantly; write it elsewhere and rename it",
            ));
        }
        pause(wait.unwrap_or(FLEET_FILE_QUIET));
    }
}

/// Returns whether a file may be in the middle of a write.
pub(super) fn is_being_written(path: &Path) -> bool {
    let age = Stamp::at(path).and_then(|stamp| stamp.age());
    age.is_some_and(|age| age < FLEET_FILE_QUIET)
}
