//! Atomic file operations: a file exists completely or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{StoreError, TEMPORARY};

/// Replaces a file: temporary file in the same directory, fsync, rename, fsync of the directory. On
/// any error the old file is unchanged, and the temporary one is removed.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    replace(path, bytes, mode, true).map_err(StoreError::io("write", path))
}

/// Replaces a file atomically, without fsync: for content that is observed again after a power failure.
pub(super) fn write_lightly(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    replace(path, bytes, mode, false).map_err(StoreError::io("write", path))
}

/// Creates a file atomically, unless it exists. `false`: it exists and is unchanged.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, StoreError> {
    let created = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        match prepared(directory, bytes, mode, true)?.persist_noclobber(path) {
            Ok(_) => sync_directory(directory).map(|()| true),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    };
    created().map_err(StoreError::io("write", path))
}

fn replace(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    prepared(directory, bytes, mode, durable)?
        .persist(path)
        .map_err(|error| error.error)?;
    if durable {
        sync_directory(directory)
    } else {
        Ok(())
    }
}

/// Returns a temporary file with this content.
fn prepared(directory: &Path, bytes: &[u8], mode: u32, durable: bool) -> io::Result<NamedTempFile> {
    // Created with mode 0600, so that a secret is never readable by others.
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .tempfile_in(directory)
        .map_err(bare)?;
    file.write_all(bytes)?;
    if mode != 0o600 {
        file.as_file()
            .set_permissions(Permissions::from_mode(mode))?;
    }
    if durable {
        file.as_file().sync_all()?;
    }
    Ok(file)
}

/// Returns the system's error without the temporary file's random name, which is useless to the operator.
fn bare(error: io::Error) -> io::Error {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.source()?.downcast_ref::<io::Error>());
    let number = cause.and_then(io::Error::raw_os_error);
    number.map_or(error, io::Error::from_raw_os_error)
}

/// Makes a rename or removal in this directory durable across a power failure.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a file. `false`: it did not exist.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => {
            let directory = path.parent().unwrap_or(Path::new("."));
            sync_directory(directory).map_err(StoreError::io("sync", directory))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// Removes the temporary files that a crash left in a directory. Ignores errors: remaining files are harmless.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
