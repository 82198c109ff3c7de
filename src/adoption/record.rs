//! The record of an adoption on disk, in a folder of the state directory that neither the listing nor the history reads.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{AdoptionError, machine};
use crate::adopt::Record;
use crate::store::Store;
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::task::blocking;

/// The folder of the record and of the copies.
pub(super) const FOLDER: &str = ".adoption";
const RECORD: &str = "record.json";
/// Size limit of the record, in bytes: about ten thousand tunnels.
const LARGEST: u64 = 16 << 20;

/// Returns the folder of the record and of the copies.
pub(super) fn folder(state: &Path) -> PathBuf {
    state.join(FOLDER)
}

fn path(state: &Path) -> PathBuf {
    folder(state).join(RECORD)
}

/// Reads the record of a state directory; `None`: no adoption was begun.
pub(super) fn read(state: &Path) -> Result<Option<Record>, AdoptionError> {
    let path = path(state);
    let bytes = match file::read_unlinked(&path, LARGEST) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        read => read.map_err(AdoptionError::file("read", &path))?,
    };
    let record = serde_json::from_slice(&bytes);
    record
        .map(Some)
        .map_err(|source| AdoptionError::Record { path, source })
}

/// Refuses the record of another machine: its adoption is not this router's to undo.
pub(super) fn check_machine(state: &Path, record: &Record) -> Result<(), AdoptionError> {
    let here = machine::identity();
    match record.machine.is_none() || record.machine == here {
        true => Ok(()),
        false => Err(AdoptionError::OtherMachine {
            path: folder(state),
        }),
    }
}

/// Writes the record of a store durably.
pub(super) async fn save(store: &Arc<Store>, record: &Record) -> Result<(), AdoptionError> {
    let (directory, record) = (store.dir().to_owned(), record.clone());
    blocking(move || write(&directory, &record)).await
}

/// Writes the record durably.
pub(super) fn write(state: &Path, record: &Record) -> Result<(), AdoptionError> {
    let path = path(state);
    let mut bytes = serde_json::to_vec_pretty(record).map_err(|source| AdoptionError::Record {
        path: path.clone(),
        source,
    })?;
    bytes.push(b'\n');
    create_folder(state)?;
    let written = Writer::new(0o600).replace(&path, &bytes);
    written.map_err(AdoptionError::file("write", &path))
}

/// Creates the folder, which others cannot read: copies may hold secrets.
pub(super) fn create_folder(state: &Path) -> Result<(), AdoptionError> {
    let folder = folder(state);
    if !fs::is_dir(&folder) {
        fs::create_dir(&folder, 0o700)
            .and_then(|()| file::sync_folders([state]))
            .map_err(AdoptionError::file("create", &folder))?;
    }
    Ok(())
}

/// Removes the record first and then its folder: copies without a record are of no use.
pub(super) fn remove(state: &Path) -> Result<(), AdoptionError> {
    let path = path(state);
    file::remove(&path).map_err(AdoptionError::file("remove", &path))?;
    let folder = folder(state);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(AdoptionError::file("remove", &folder)(error))
        }
        _ => Ok(()),
    }
}
