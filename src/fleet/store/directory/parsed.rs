//! Reads files that an operator may be writing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};

use crate::document::{DocumentError, parse_list};
use crate::fleet::layout::MAX_BYTES;
use crate::intervals::{FLEET_FILE_QUIET, FLEET_FILE_WAIT};
use crate::util::file::{self, Stamp};
use crate::util::task::pause;

/// A failure to get a mapping from a file.
pub(super) enum ReadError {
    /// It cannot be read.
    Io(io::Error),
    /// It is not a valid document.
    Document(DocumentError),
}

/// Returns the mapping in a file.
pub(super) fn mapping(fleet: &Path, path: &Path) -> Result<Arc<Map<String, Value>>, ReadError> {
    let text = read_quiet(fleet, path).map_err(ReadError::Io)?;
    parse_list(&text).map(Arc::new).map_err(ReadError::Document)
}

/// Reads a file below the fleet's directory once it has been quiet for a moment. Blocks.
pub(super) fn read_quiet(fleet: &Path, path: &Path) -> io::Result<String> {
    let deadline = Instant::now() + FLEET_FILE_WAIT;
    loop {
        let (file, found) = file::open_below(fleet, path)?;
        let stamp = Stamp::of(&found);
        let wait = stamp
            .age()
            .and_then(|age| FLEET_FILE_QUIET.checked_sub(age));
        if wait.is_none() {
            let opened = file.try_clone()?;
            let text = file::text(file::bytes((opened, found), MAX_BYTES)?)?;
            // A writer may have started in the meantime.
            if Stamp::of(&file.metadata()?) == stamp {
                return Ok(text);
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
