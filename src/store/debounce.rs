//! Debounce of file changes. An editor saves in several steps: it renames the old file and writes a
//! new one, or truncates it and writes it again. The content between two steps may parse, but is
//! not the intended one, so the previous content stays until the file is complete: its writer has
//! closed it, and it has been quiet for a moment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::read::TextHash;
use crate::intervals::{FILE_CHANGING_MAX, OWN_WRITE_ANNOUNCED, WRITER_FORGOTTEN};
use crate::util::file::Stamp;

/// Files with an open writer, according to the kernel's events.
#[derive(Debug, Clone, Default)]
pub(super) struct Writers(Arc<Mutex<HashMap<PathBuf, Instant>>>);

impl Writers {
    /// Records a write to a file.
    pub(super) fn began(&self, path: &Path) {
        self.0.lock().insert(path.to_owned(), Instant::now());
    }

    /// Records that a file was closed or replaced.
    pub(super) fn ended(&self, path: &Path) {
        self.0.lock().remove(path);
    }

    /// Events were lost: the open writers are unknown.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    fn is_open(&self, path: &Path) -> bool {
        self.0
            .lock()
            .get(path)
            .is_some_and(|last| last.elapsed() < WRITER_FORGOTTEN)
    }
}

/// The debounce time, and the changes that are not debounced.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    quiet: Duration,
    pub(super) writers: Writers,
    /// The last write of the agent itself to each file; `None`: a removal.
    own: Mutex<HashMap<PathBuf, (Option<TextHash>, Instant)>>,
}

impl Debounce {
    /// A change counts after the file has been quiet for this time.
    pub(super) fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            ..Self::default()
        }
    }

    pub(super) fn quiet(&self) -> Duration {
        self.quiet
    }

    /// Records a write or a removal by the agent: it is complete at once.
    pub(super) fn wrote(&self, path: &Path, hash: Option<TextHash>) {
        let own = (hash, Instant::now());
        self.own.lock().insert(path.to_owned(), own);
    }

    /// Returns whether the agent itself wrote this content of a file.
    pub(super) fn is_own(&self, path: &Path, hash: Option<&TextHash>) -> bool {
        self.own
            .lock()
            .get(path)
            .is_some_and(|(own, _)| own.as_ref() == hash)
    }

    /// As [`Self::is_own`], for a write that the watch announces now: one that is announced later, without another content, is
    /// an operator's wish to try again.
    pub(super) fn is_announced(&self, path: &Path, hash: Option<&TextHash>) -> bool {
        let own = self.own.lock();
        let own = own.get(path);
        own.is_some_and(|(own, at)| own.as_ref() == hash && at.elapsed() < OWN_WRITE_ANNOUNCED)
    }

    /// Returns whether a change of a file that was first seen at `since` may be incomplete.
    pub(super) fn waits_for(&self, path: &Path, stamp: &Stamp, since: Instant) -> bool {
        let young =
            stamp.age().is_some_and(|age| age < self.quiet) && since.elapsed() < FILE_CHANGING_MAX;
        !self.quiet.is_zero() && (young || self.writers.is_open(path))
    }

    /// Returns whether a file that has been missing since this time may come back.
    pub(super) fn waits_for_return(&self, path: &Path, since: Instant) -> bool {
        since.elapsed() < self.quiet && !self.is_own(path, None)
    }
}
