//! A listing is used again while nothing has changed since: the watch sees what others write, and the agent knows its own
//! writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::Snapshot;
use crate::intervals::LISTING_MAX;

/// Changes of the files that a listing reads. Those by other programs below `applied/` and `.synced/`, and by other machines
/// on a network file system, are not seen: no listing is used for longer than [`LISTING_MAX`].
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(Arc<State>);

#[derive(Debug, Default)]
struct State {
    count: AtomicU64,
    /// Whether the watch sees every folder.
    is_watched: AtomicBool,
}

impl Changes {
    /// Records that something may have changed.
    pub(super) fn note(&self) {
        self.0.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Records whether changes by others are noted from now on.
    pub(super) fn watch(&self, is_watched: bool) {
        self.0.is_watched.store(is_watched, Ordering::SeqCst);
    }

    /// Returns the number of changes so far; `None` if changes may have been missed.
    pub(super) fn count(&self) -> Option<u64> {
        let is_watched = self.0.is_watched.load(Ordering::SeqCst);
        is_watched.then(|| self.0.count.load(Ordering::SeqCst))
    }
}

/// The state of the files when a listing of them began.
#[derive(Debug)]
pub(super) struct Listed {
    /// The number of changes before.
    changes: Option<u64>,
    /// Device and inode of the directory.
    root: (u64, u64),
    at: Instant,
}

impl Listed {
    /// Begins a listing.
    pub(super) fn begin(changes: &Changes, root: (u64, u64)) -> Self {
        Self {
            changes: changes.count(),
            root,
            at: Instant::now(),
        }
    }

    /// Returns whether a listing of everything that begins now would be the same.
    pub(super) fn is_current(
        &self,
        listing: &Snapshot,
        changes: &Changes,
        root: (u64, u64),
    ) -> bool {
        let is_known = self.changes.is_some() && self.root == root;
        let is_unchanged = is_known && self.changes == changes.count();
        is_unchanged && listing.is_at_rest() && self.at.elapsed() < LISTING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: (u64, u64) = (1, 2);

    #[test]
    fn missed_changes_may_be_any() {
        let (changes, listing) = (Changes::default(), at_rest());
        let blind = Listed::begin(&changes, ROOT);
        changes.watch(true);
        assert!(!blind.is_current(&listing, &changes, ROOT));
        let seeing = Listed::begin(&changes, ROOT);
        assert!(seeing.is_current(&listing, &changes, ROOT));
        changes.watch(false);
        assert!(!seeing.is_current(&listing, &changes, ROOT));
    }

    #[test]
    fn change_or_unfinished_listing_needs_another() {
        let (changes, listing) = (Changes::default(), at_rest());
        changes.watch(true);
        let listed = Listed::begin(&changes, ROOT);
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
        changes.note();
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
