//! What all file operations of the committer share: reading and errors.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::ReadDir;
use std::io;
use std::path::{Path, PathBuf};

use crate::ports::CommitError;
use crate::util::file::{self, Stamp};
use crate::util::fs;

/// Size limit of a BIRD file, in bytes: room for about 400 000 ROAs.
pub(super) const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The files and folders of one reading, each with its stamp from before it was read: a later reading is needed only
/// once one of them has changed.
#[derive(Debug, Default)]
pub(super) struct Seen(RefCell<BTreeMap<PathBuf, Option<Stamp>>>);

impl Seen {
    /// Records a file or folder that is about to be read.
    pub(super) fn note(&self, path: &Path) {
        let stamp = Stamp::at(path);
        self.0.borrow_mut().insert(path.to_owned(), stamp);
    }

    /// As [`read_file`], recorded.
    pub(super) fn read_file(&self, path: &Path) -> Result<Option<String>, CommitError> {
        self.note(path);
        read_file(path)
    }

    /// Lists a folder, recorded.
    pub(super) fn read_dir(&self, path: &Path) -> io::Result<ReadDir> {
        self.note(path);
        fs::read_dir(path)
    }

    /// Returns the stamps, if any later change must change one of them.
    pub(super) fn settled(self) -> Option<BTreeMap<PathBuf, Option<Stamp>>> {
        let stamps = self.0.into_inner();
        let mut found = stamps.values().flatten();
        found.all(Stamp::is_settled).then_some(stamps)
    }
}

/// Returns the text of a file, or `None` if it does not exist.
pub(super) fn read_file(path: &Path) -> Result<Option<String>, CommitError> {
    match file::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Adds operation and path to an error of the operating system.
pub(super) fn failed(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> CommitError {
    let path = path.to_owned();
    move |source| CommitError::Io {
        operation,
        path,
        source,
    }
}
