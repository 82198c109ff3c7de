//! Whether the state directory can be read and written, as the last attempts showed.

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::TEMPORARY;
use super::{Store, StoreError};

/// Bytes that must fit before a full disk counts as having room again: a document, and its folder's growth.
const ROOM: usize = 16 * 1024;

/// What the last attempts to read and to write ended with.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    read: Option<String>,
    write: Option<String>,
}

impl Attempts {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a listing ended.
    pub(super) fn read<T>(&self, done: &Result<T, StoreError>) {
        self.state().read = done.as_ref().err().map(ToString::to_string);
    }

    /// Notes how a write ended. What is wrong with one document is not the directory's trouble.
    pub(super) fn write<T>(&self, done: &Result<T, StoreError>) {
        match done {
            Ok(_) => self.state().write = None,
            // A folder went between its making and the write: the next listing says what is amiss.
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            }
            Err(error @ StoreError::Io { .. }) => {
                self.state().write = Some(error.to_string());
            }
            Err(_) => {}
        }
    }
}

impl Store {
    /// What is wrong with the state directory as a whole, and what to do: it cannot be read, or the last
    /// write failed.
    pub fn trouble(&self) -> Option<String> {
        let state = self.attempts.state();
        state.read.clone().or_else(|| state.write.clone())
    }

    /// Tries again to write where the last write failed, and tells whether that has passed. Nothing is left
    /// behind.
    pub fn has_recovered(&self) -> bool {
        if self.attempts.state().write.is_none() {
            return false;
        }
        let tried = self.try_room();
        if tried {
            self.attempts.state().write = None;
        }
        tried
    }

    fn try_room(&self) -> bool {
        if self.writable().is_err() {
            return false;
        }
        let written = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.dir)
            .and_then(|mut file| {
                file.write_all(&[b' '; ROOM])?;
                file.as_file().sync_all()
            });
        written.is_ok()
    }
}
