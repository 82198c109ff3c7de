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

/// Writes a file of a state directory completely under a temporary name, without fsync: [`file::flush`] makes many durable
/// together. Creates the folder.
pub(super) fn stage(
    dir: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
) -> Result<Staged, StoreError> {
    in_folder(dir, path, |path| {
        let staged = Writer::new(mode).light().stage(path, bytes);
        staged.map_err(StoreError::io("write", path))
    })
}

/// Writes a file of a state directory, and once more after its folder was created, if it was missing.
pub(super) fn in_folder<T>(
    dir: &Path,
    path: &Path,
    mut write: impl FnMut(&Path) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let written = write(path);
    match (&written, path.parent()) {
        (Err(error), Some(folder)) if error.is_missing() => create_below(dir, folder, 0o755)?,
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

/// Creates a folder of a state directory and those above it, but never that directory.
pub(super) fn create_below(dir: &Path, folder: &Path, mode: u32) -> Result<(), StoreError> {
    fs::create_dirs_below(dir, folder, mode).map_err(StoreError::io("create", folder))
}

/// Creates a state directory.
pub(super) fn create_folder(path: &Path, mode: u32) -> Result<(), StoreError> {
    if fs::is_dir(path) {
        return Ok(());
    }
    fs::create_dirs(path, mode).map_err(StoreError::io("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_state_directory_is_not_made_by_a_write() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state");
        let write_in = |below: &str| {
            in_folder(&dir, &dir.join(below), |path| {
                write_lightly(path, b"", 0o644)
            })
        };
        for file in ["held.yaml", "sessions/wg_1.yaml", "status/mesh/hk1.yaml"] {
            assert!(write_in(file).is_err_and(|error| error.is_missing()));
            assert!(!dir.exists(), "{file}");
        }
        create_folder(&dir, 0o700).unwrap();
        write_in("status/mesh/hk1.yaml").unwrap();
    }
}
