//! What all file operations of the committer share: reading and errors.

use std::io;
use std::path::Path;

use crate::ports::CommitError;
use crate::util::file;

/// Size limit of a BIRD file, in bytes: room for about 400 000 ROAs.
pub(super) const MAX_BYTES: u64 = 32 * 1024 * 1024;

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
