//! A listing is used again while nothing has changed since: the watch sees what others write, and the agent knows its own
//! writes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Snapshot;
use super::changed::ChangedFiles;
use crate::intervals::LISTING_MAX;

/// Changes of the files that a listing reads. Those by other programs below `applied/` and `.synced/`, by other machines on
/// a network file system, and through a mapping or another link of a file, are not seen: at least once in [`LISTING_MAX`] a
/// listing looks at every file.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(Arc<State>);

#[derive(Debug, Default)]
struct State {
    noted: Mutex<Noted>,
    /// Whether the watch sees every folder.
    is_watched: AtomicBool,
}

#[derive(Debug, Default)]
struct Noted {
    /// Number of changes so far.
    count: u64,
    /// Those that no listing has begun after.
    changed: ChangedFiles,
}

impl Changes {
    /// Records that a file may have changed.
    pub(super) fn note(&self, path: &Path) {
        let mut noted = self.0.noted.lock();
        noted.count += 1;
        noted.changed.add(path);
    }

    /// Records that anything may have changed.
    pub(super) fn note_anything(&self) {
        let mut noted = self.0.noted.lock();
        noted.count += 1;
        noted.changed = ChangedFiles::Anything;
    }

    /// Records whether changes by others are noted from now on.
    pub(super) fn watch(&self, is_watched: bool) {
        self.0.is_watched.store(is_watched, Ordering::SeqCst);
    }

    /// Returns the number of changes so far; `None` if changes may have been missed.
    pub(super) fn count(&self) -> Option<u64> {
        let is_watched = self.0.is_watched.load(Ordering::SeqCst);
        is_watched.then(|| self.0.noted.lock().count)
    }
}

/// The state of the files when a listing of them began.
#[derive(Debug)]
pub(super) struct Listed {
    /// The number of changes before.
    changes: Option<u64>,
    /// Device and inode of the directory.
    root: (u64, u64),
    /// When every file was looked at.
    at: Instant,
}

impl Listed {
    /// Begins a listing after an earlier one, if that was at rest. Returns what it looks at.
    pub(super) fn begin(
        before: Option<&Self>,
        changes: &Changes,
        root: (u64, u64),
    ) -> (Self, ChangedFiles) {
        let mut noted = changes.0.noted.lock();
        let changed = std::mem::take(&mut noted.changed);
        let is_watched = changes.0.is_watched.load(Ordering::SeqCst);
        let count = is_watched.then_some(noted.count);
        let before = before
            .filter(|before| is_watched && before.changes.is_some() && before.is_recent(root));
        let (at, changed) = match before {
            Some(before) => (before.at, changed),
            None => (Instant::now(), ChangedFiles::Anything),
        };
        let changes = count;
        (Self { changes, root, at }, changed)
    }

    fn is_recent(&self, root: (u64, u64)) -> bool {
        self.root == root && self.at.elapsed() < LISTING_MAX
    }

    /// Returns whether nothing was noted since this listing, and nothing in it waits.
    pub(super) fn is_unchanged(&self, listing: &Snapshot, changes: &Changes) -> bool {
        self.changes.is_some() && self.changes == changes.count() && listing.is_at_rest()
    }

    /// Returns whether a listing of everything that begins now would be the same.
    pub(super) fn is_current(
        &self,
        listing: &Snapshot,
        changes: &Changes,
        root: (u64, u64),
    ) -> bool {
        self.is_unchanged(listing, changes) && self.is_recent(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (u64, u64) = (1, 2);

    #[test]
    fn missed_changes_may_be_any() {
        let (changes, listing) = (Changes::default(), at_rest());
        let blind = Listed::begin(None, &changes, ROOT).0;
        changes.watch(true);
        assert!(!blind.is_current(&listing, &changes, ROOT));
        let seeing = Listed::begin(None, &changes, ROOT).0;
        assert!(seeing.is_current(&listing, &changes, ROOT));
        changes.watch(false);
        assert!(!seeing.is_current(&listing, &changes, ROOT));
    }

    #[test]
    fn change_or_unfinished_listing_needs_another() {
        let (changes, listing) = (Changes::default(), at_rest());
        changes.watch(true);
        let listed = Listed::begin(None, &changes, ROOT).0;
        let unfinished = Snapshot {
            settled: false,
            ..at_rest()
        };
        assert!(!listed.is_current(&unfinished, &changes, ROOT));
        assert!(listed.is_current(&listing, &changes, ROOT));
        assert!(
            !listed.is_current(&listing, &changes, (1, 3)),
            "another mount"
        );
        changes.note(Path::new("a"));
        assert!(!listed.is_current(&listing, &changes, ROOT));
    }

    fn at_rest() -> Snapshot {
        Snapshot {
            complete: true,
            operators_complete: true,
            settled: true,
            ..Snapshot::default()
        }
    }
}
