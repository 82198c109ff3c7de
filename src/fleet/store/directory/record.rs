//! The record of the whole fleet, as a file beside the routers' posts. Blocks.

use std::io;
use std::path::{Path, PathBuf};

use crate::fleet::posts::REPORTED;
use crate::fleet::rollout::FleetRecord;
use crate::http::ApiError;
use crate::util::file::{self, Writer};
use crate::util::fs;

/// Not the name of a router.
const FILE: &str = ".fleet.json";

/// Size limit: ten thousand routers have files of a few kilobytes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Reads the record.
///
/// # Errors
/// The file exists and cannot be read. An empty record in its place would give every change to all routers.
pub(super) fn read(root: &Path) -> Result<FleetRecord, ApiError> {
    let path = path(root);
    let text = match file::read(&path, MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FleetRecord::default()),
        text => text.map_err(|error| failed(&path, &error))?,
    };
    serde_json::from_slice(&text).map_err(|error| failed(&path, &error.into()))
}

/// Replaces the record that `record` was made from. The caller makes one replacement at a time.
///
/// # Errors
/// The file cannot be read or written.
pub(super) fn replace(root: &Path, mut record: FleetRecord) -> Result<bool, ApiError> {
    if read(root)?.version != record.version {
        return Ok(false);
    }
    record.version += 1;
    let path = path(root);
    let write = || {
        fs::create_dir_all(root.join(REPORTED))?;
        let mut text = serde_json::to_vec_pretty(&record)?;
        text.push(b'\n');
        Writer::new(0o600).replace(&path, &text)
    };
    write().map_err(|error| {
        let path = path.display();
        ApiError::internal(format!(
            "{path}: {error}; check the free space and the owner"
        ))
    })?;
    Ok(true)
}

fn path(root: &Path) -> PathBuf {
    root.join(REPORTED).join(FILE)
}

fn failed(path: &Path, error: &io::Error) -> ApiError {
    ApiError::internal(format!(
        "{}: {error}; repair it, or remove it to give the newest description to all routers",
        path.display()
    ))
}
