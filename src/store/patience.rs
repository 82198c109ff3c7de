//! When a change of a file is believed. An editor saves in several steps: it renames the old file away
//! and writes a new one, or empties it and fills it again. What is there between two steps parses at
//! times, and is not what anybody meant, so what was there before stays until the file is whole: its
//! writer has closed it, and nothing has happened to it for a moment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::read::{Fingerprint, TextHash};

/// A file that changes without end is believed after this time.
const LONGEST: Duration = Duration::from_secs(5);
/// A file that is open for writing is believed when nothing was written for this time: whoever holds it
/// open has forgotten it.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Files that somebody has begun to write and not closed yet, as the kernel's events tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Writers(Arc<Mutex<HashMap<PathBuf, Instant>>>);

impl Writers {
    fn files(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was written to a file.
    pub(super) fn began(&self, path: &Path) {
        self.files().insert(path.to_owned(), Instant::now());
    }

    /// A file was closed, or another stands in its place.
    pub(super) fn ended(&self, path: &Path) {
        self.files().remove(path);
    }

    /// Events were lost: nobody knows.
    pub(super) fn forget(&self) {
        self.files().clear();
    }

    fn is_open(&self, path: &Path) -> bool {
        self.files()
            .get(path)
            .is_some_and(|last| last.elapsed() < FORGOTTEN)
    }
}

/// How long a change waits to be believed, and what need not wait.
#[derive(Debug, Default)]
pub(super) struct Patience {
    quiet: Duration,
    pub(super) writers: Writers,
    /// What the agent itself wrote last to a file; `None`: it removed it.
    own: Mutex<HashMap<PathBuf, Option<TextHash>>>,
}

impl Patience {
    /// A change is believed when nothing has happened to the file for this time.
    pub(super) fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            ..Self::default()
        }
    }

    pub(super) fn quiet(&self) -> Duration {
        self.quiet
    }

    fn own(&self) -> MutexGuard<'_, HashMap<PathBuf, Option<TextHash>>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent writes this, or removes the file: that is whole at once.
    pub(super) fn wrote(&self, path: &Path, hash: Option<TextHash>) {
        self.own().insert(path.to_owned(), hash);
    }

    /// Whether a file has this content by the agent's own hand.
    pub(super) fn is_own(&self, path: &Path, hash: Option<&TextHash>) -> bool {
        self.own().get(path).is_some_and(|own| own.as_ref() == hash)
    }

    /// Whether a change of a file that was first seen at `since` may not be whole yet.
    pub(super) fn waits_for(&self, path: &Path, stamp: &Fingerprint, since: Instant) -> bool {
        let young = stamp.age().is_some_and(|age| age < self.quiet) && since.elapsed() < LONGEST;
        !self.quiet.is_zero() && (young || self.writers.is_open(path))
    }

    /// Whether a file that is gone since this time may be about to come back.
    pub(super) fn waits_for_return(&self, path: &Path, since: Instant) -> bool {
        since.elapsed() < self.quiet && !self.is_own(path, None)
    }
}
