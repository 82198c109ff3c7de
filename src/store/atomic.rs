//! Atomic file operations with the store's errors.

use std::path::Path;

use super::StoreError;
use crate::util::file::{self, Staged, Writer};
use crate::util::fs;

/// Replaces a file durably.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let written = Writer::new(mode).replace(path, bytes);
    written.map_err(StoreError::io("write", path))
}

/// Replaces a file without fsync: for content that is observed again after a power failure.
pub(super) fn write_lightly(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let written = Writer::new(mode).light().replace(path, bytes);
    written.map_err(StoreError::io("write", path))
}

/// Writes a file completely under a temporary name, without fsync: [`file::flush`] makes many durable together. Creates
/// the folder.
pub(super) fn stage(path: &Path, bytes: &[u8], mode: u32) -> Result<Staged, StoreError> {
    in_folder(path, |path| {
        let staged = Writer::new(mode).light().stage(path, bytes);
        staged.map_err(StoreError::io("write", path))
    })
}

/// Writes a file, and once more after its folder was created, if it was missing.
pub(super) fn in_folder<T>(
    path: &Path,
    mut write: impl FnMut(&Path) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let written = write(path);
    match (&written, path.parent()) {
        (Err(error), Some(folder)) if error.is_missing() => create_folder(folder, 0o755)?,
        _ => return written,
    }
    write(path)
}

/// Creates a file, unless it exists. `false`: it exists and is unchanged.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, StoreError> {
    let created = Writer::new(mode).create(path, bytes);
    created.map_err(StoreError::io("write", path))
}

/// Removes a file durably. `false`: it did not exist.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    file::remove(path).map_err(StoreError::io("remove", path))
}

pub(super) fn create_folder(path: &Path, mode: u32) -> Result<(), StoreError> {
    // Checked first: on a read-only file system, creating an existing folder fails too.
    if fs::is_dir(path) {
        return Ok(());
    }
    fs::create_dirs(path, mode).map_err(StoreError::io("create", path))
}
