//! Availability of the state directory, from the last attempts to read and write.

use parking_lot::Mutex;

use super::{Store, StoreError};
use crate::util::file::Writer;

/// Bytes that must fit before a full disk counts as recovered: a document, and its folder's growth.
const ROOM: usize = 16 * 1024;

/// Results of the last attempts to read and to write.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    read: Option<String>,
    write: Option<String>,
}

impl Attempts {
    /// Records the result of a listing.
    pub(super) fn read<T>(&self, done: &Result<T, StoreError>) {
        self.0.lock().read = done.as_ref().err().map(ToString::to_string);
    }

    /// Records the result of a write. A problem of one document is not one of the directory.
    pub(super) fn write<T>(&self, done: &Result<T, StoreError>) {
        match done {
            Ok(_) => self.0.lock().write = None,
            // A folder was removed between its creation and the write: the next listing reports it.
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            }
            Err(error @ StoreError::Io { .. }) => {
                self.0.lock().write = Some(error.to_string());
            }
            Err(_) => {}
        }
    }
}

impl Store {
    /// Returns the problem of the state directory as a whole, with the advice: it cannot be read,
    /// or the last write failed.
    pub fn trouble(&self) -> Option<String> {
        let state = self.attempts.0.lock();
        state.read.clone().or_else(|| state.write.clone())
    }

    /// Tests a write if the last write failed, and returns whether writes work again. Leaves no file behind.
    pub fn has_recovered(&self) -> bool {
        if self.attempts.0.lock().write.is_none() {
            return false;
        }
        let tried = self.try_room();
        if tried {
            self.attempts.0.lock().write = None;
        }
        tried
    }

    fn try_room(&self) -> bool {
        if self.writable().is_err() {
            return false;
        }
        let written = Writer::new(0o600).stage(&self.dir.join("room"), &[b' '; ROOM]);
        written.is_ok()
    }
}
