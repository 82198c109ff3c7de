//! Files that were parsed, so that a router with a thousand sessions that reports each of them does not
//! have its whole list parsed a thousand times.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::document::{DocumentError, parse_list};

/// A file that was written less than this ago may be written again within the tick of the file system's
/// clock, and look the same. It is parsed each time.
const SETTLED: Duration = Duration::from_secs(2);

/// What tells one content of a file from another: device, inode, size and the times of the last change.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// What a file held when it looked like this.
type Known = (Stamp, Arc<Map<String, Value>>);

/// The parsed files, by their paths.
#[derive(Debug, Default)]
pub(super) struct Parsed(Mutex<HashMap<PathBuf, Known>>);

/// Why a file gives no mapping.
pub(super) enum ReadError {
    /// It cannot be read.
    Io(io::Error),
    /// It is no valid document.
    Document(DocumentError),
}

impl Parsed {
    /// The mapping in a file, parsed only when the file is another than the last time.
    pub(super) fn mapping(&self, path: &Path) -> Result<Arc<Map<String, Value>>, ReadError> {
        let mut file = fs::File::open(path).map_err(ReadError::Io)?;
        let found = file.metadata().map_err(ReadError::Io)?;
        let stamp = stamp(&found);
        if let Some((known, map)) = self.lock().get(path)
            && *known == stamp
        {
            return Ok(Arc::clone(map));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(ReadError::Io)?;
        let map: Arc<Map<String, Value>> = Arc::new(parse_list(&text).map_err(ReadError::Document)?);
        if is_settled(&found) {
            self.lock().insert(path.to_owned(), (stamp, Arc::clone(&map)));
        }
        Ok(map)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(found: &fs::Metadata) -> Stamp {
    let changed = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
    (found.dev(), found.ino(), found.len(), changed.0, changed.1, changed.2, changed.3)
}

fn is_settled(found: &fs::Metadata) -> bool {
    // The change time: unlike that of the modification nobody can set it.
    let changed = u64::try_from(found.ctime()).map(Duration::from_secs).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed) > SETTLED
}
