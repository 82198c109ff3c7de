//! State that stays in effect while Git has moved the work tree: the last listing, and the applied
//! records and the maintenance document that were written since. They are written to the tree when
//! it is back; until then each is in `.pending/`, so that a crash loses none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::document::{Kind, MaintenanceSpec, parse, parse_value};
use crate::intervals::{GIT_AT_WORK_CHECK, HEAD_FOLLOWS, TREE_CHANGING_MAX};
use crate::util::fs;
use crate::util::task::pause;
use parking_lot::Mutex;

use super::cache::{Slot, Stored};
use super::changed::ChangedFiles;
use super::unchanged::Changes;
use super::{
    AppliedDocument, Area, Listed, Place, Snapshot, Store, StoreError, atomic, head, read,
};

/// The folder of files that wait for the tree; hidden, so that Git ignores it.
pub(super) const PENDING: &str = ".pending";
/// The content of a waiting record that marks the record as removed.
const REMOVED: &str = "# removed\n";

/// State between two listings. The watch shares it.
pub(super) type SharedMemory = Arc<Mutex<Memory>>;

/// State between two listings.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last listing of the tree of the history's branch.
    last: Option<Arc<Snapshot>>,
    /// The state of the files then; `None`: another listing is needed, or in progress.
    listed: Option<Listed>,
    /// Position of HEAD while it is not at the history's branch.
    moved: Option<String>,
    /// Time since when Git has been changing the tree.
    moving: Option<Instant>,
    /// Files that were written while the tree was moved; `None`: removed.
    pending: BTreeMap<Place, Option<String>>,
}

impl Memory {
    /// Returns the last listing if no change was noted since, and no other listing has begun.
    pub(super) fn unchanged(&self, changes: &Changes) -> Option<&Snapshot> {
        let (last, listed) = (self.last.as_ref()?, self.listed.as_ref()?);
        listed.is_unchanged(last, changes).then_some(last)
    }
}

impl Store {
    /// Describes the position of the repository's HEAD while it is not at the history's branch.
    /// Nothing is read from the tree then, and no document or override is written to it.
    pub fn moved(&self) -> Option<String> {
        head::moved(&self.dir)
    }

    /// Returns whether another git changes the tree now. Every write to the tree waits for that; a
    /// caller that holds a lock of its own waits before it takes the lock.
    pub(crate) fn is_git_at_work(&self) -> bool {
        head::is_moving(&self.dir, HEAD_FOLLOWS)
    }

    /// As [`Self::moved`], once no git holds the index: git writes HEAD after the files, so before
    /// that the branch of the tree is unknown. `after`: how long the index has been at rest by
    /// then.
    pub(super) fn moved_at_rest(&self, after: Duration) -> Option<String> {
        wait_for_git(&self.dir, after, Instant::now());
        self.moved()
    }

    /// Returns the listing to use while the tree cannot be read. `None`: read the tree.
    pub(super) fn listing_kept(&self) -> Result<Option<Snapshot>, StoreError> {
        let moved = self.moved();
        let mut memory = self.memory.lock();
        if moved.is_none() {
            let moving = head::is_moving(&self.dir, self.patience.quiet());
            memory.moving = moving.then(|| memory.moving.unwrap_or_else(Instant::now));
            let patient = memory
                .moving
                .is_some_and(|since| since.elapsed() < TREE_CHANGING_MAX);
            if patient && let Some(last) = memory.last.clone() {
                drop(memory);
                let mut last = Arc::unwrap_or_clone(last);
                self.add_pending(&mut last);
                return Ok(Some(Snapshot {
                    settled: false,
                    ..last
                }));
            }
            drop(memory);
            return self.returned().map(|()| None);
        }
        memory.moved.clone_from(&moved);
        let Some(last) = memory.last.clone() else {
            let at = moved.unwrap_or_default();
            return Err(StoreError::Moved {
                dir: self.dir.clone(),
                at,
            });
        };
        drop(memory);
        let mut last = Arc::unwrap_or_clone(last);
        self.add_pending(&mut last);
        Ok(Some(Snapshot {
            moved,
            settled: true,
            ..last
        }))
    }

    /// Remembers an applied record that was written to the tree, or removed from it.
    pub(super) fn keep_applied(&self, place: &Place, record: Option<Arc<Stored<AppliedDocument>>>) {
        let key = (place.kind, place.name.clone());
        if let Some(last) = &mut self.memory.lock().last {
            match record {
                Some(record) => drop(Arc::make_mut(last).applied.insert(key, record)),
                None if last.applied.contains_key(&key) => {
                    Arc::make_mut(last).applied.remove(&key);
                }
                None => {}
            }
        }
    }

    /// Restores the applied records that another program removed or damaged since the last listing.
    /// Only the agent may forget applied objects: without a record a missing document would look as
    /// if it had never been applied.
    pub(super) fn restore_applied(&self, listed: &mut Snapshot) {
        let Some(last) = self.memory.lock().last.clone() else {
            return;
        };
        for (key, record) in &last.applied {
            if listed.applied.contains_key(key) {
                continue;
            }
            let path = self.path(&Place::new(Area::Applied, key.0, &key.1));
            let write = || {
                drop(self.writable()?);
                self.put(&path, &record.text)
            };
            if self.is_writable()
                && let Err(error) = write()
            {
                listed.problems.push(read::error(&path, error.to_string()));
            }
            listed.applied.insert(key.clone(), Arc::clone(record));
        }
    }

    /// Remembers a listing of the tree of the history's branch.
    pub(super) fn keep_listing(&self, snapshot: &Arc<Snapshot>, listed: Option<Listed>) {
        let mut last = Arc::clone(snapshot);
        let has_edits = !last.edits.is_empty();
        if has_edits {
            Arc::make_mut(&mut last).edits.clear();
        }
        let mut memory = self.memory.lock();
        memory.last = Some(last);
        memory.listed = listed.filter(|_| !has_edits);
    }

    /// Begins a listing of the tree of the history's branch. Returns the files that changed since the last listing, and the
    /// last listing, if it was at rest.
    pub(super) fn begin_listing(
        &self,
        root: (u64, u64),
    ) -> (Listed, ChangedFiles, Option<Arc<Snapshot>>) {
        let mut memory = self.memory.lock();
        let is_at_rest = memory.last.as_ref().is_some_and(|last| last.is_at_rest());
        // What the watch announces while files are read is compared with no listing.
        let before = memory.listed.take().filter(|_| is_at_rest);
        let (listed, changed) = Listed::begin(before.as_ref(), &self.changes, root);
        let last = memory
            .last
            .clone()
            .filter(|_| is_at_rest && memory.pending.is_empty());
        (listed, changed, last)
    }

    /// Returns the last listing, with the applied records that were written since, if another one would be the same.
    pub(super) fn current_listing(&self, root: (u64, u64)) -> Option<Arc<Snapshot>> {
        let memory = self.memory.lock();
        let (last, listed) = (memory.last.as_ref()?, memory.listed.as_ref()?);
        let is_current = memory.pending.is_empty() && listed.is_current(last, &self.changes, root);
        is_current.then(|| Arc::clone(last))
    }

    /// Takes the tree of the history's branch, as files by their paths, for a start while HEAD is at another commit.
    ///
    /// # Errors
    /// The files cannot be written to a temporary folder.
    pub fn take_branch(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), StoreError> {
        let folder = fs::temporary_dir()
            .map_err(StoreError::io("create a folder in", &std::env::temp_dir()))?;
        for (path, bytes) in files {
            let path = folder.path().join(path);
            if let Some(parent) = path.parent() {
                atomic::create_below(folder.path(), parent, 0o755)?;
            }
            fs::write(&path, bytes).map_err(StoreError::io("write", &path))?;
        }
        let patience = super::Debounce::default();
        let mut caches = super::Caches::default();
        let mut listed = caches.load(folder.path(), true, &patience, &ChangedFiles::Anything);
        listed.uncopied.clear();
        listed.problems.retain(|problem| {
            let file = problem.file.as_deref();
            file.is_none_or(|file| !file.starts_with(folder.path()))
        });
        self.keep_listing(&Arc::new(listed), None);
        self.read_pending();
        Ok(())
    }

    /// Returns the maintenance document that waits for the tree.
    fn waiting_maintenance(&self, text: &str) -> Option<Slot<MaintenanceSpec>> {
        let path = self.path(&Place::single(Area::Documents, Kind::Maintenance));
        let stored = Stored {
            document: Arc::new(parse(text).ok()?),
            hash: read::hash(text),
            path,
            owner: 0,
            text: text.into(),
        };
        Some(Ok(Arc::new(stored)))
    }

    /// Writes an applied record while the tree is moved; `None`: removes it. Returns whether it changed.
    pub(super) fn put_applied_pending(
        &self,
        place: &Place,
        text: Option<&str>,
    ) -> Result<bool, StoreError> {
        if self
            .applied_kept(place)
            .map(|record| record.text.to_string())
            .as_deref()
            == text
        {
            return Ok(false);
        }
        self.put_pending(place, text)
    }

    /// Writes a file for the return of the tree; `None`: removes it then. Returns whether it changed.
    pub(super) fn put_pending(
        &self,
        place: &Place,
        text: Option<&str>,
    ) -> Result<bool, StoreError> {
        let path = self.pending_path(place);
        atomic::create_below(&self.dir, path.parent().unwrap_or(&path), 0o755)?;
        atomic::write(&path, text.unwrap_or(REMOVED).as_bytes(), 0o644)?;
        self.note_pending(place, text.map(str::to_owned));
        Ok(true)
    }

    /// Updates the last listing as if this had been written, so that a removed record is not restored.
    fn note_pending(&self, place: &Place, text: Option<String>) {
        if place.area == Area::Applied {
            let record = text.as_deref();
            let record = record.and_then(|text| stored(&self.dir, place, text));
            self.keep_applied(place, record.map(Arc::new));
        }
        self.memory.lock().pending.insert(place.clone(), text);
    }

    /// Returns whether a record waits for the tree.
    pub(super) fn waits(&self, place: &Place) -> bool {
        self.memory.lock().pending.contains_key(place)
    }

    /// Adds the records that could not be written to the tree yet to a listing.
    pub(super) fn add_pending(&self, listed: &mut Snapshot) {
        for (place, text) in &self.memory.lock().pending {
            let record = text.as_ref();
            if is_maintenance(place) {
                let waiting = record.and_then(|text| self.waiting_maintenance(text));
                listed.maintenance = waiting.or(listed.maintenance.take());
                continue;
            }
            let key = (place.kind, place.name.clone());
            match record.and_then(|text| stored(&self.dir, place, text)) {
                Some(record) => drop(listed.applied.insert(key, Arc::new(record))),
                None => drop(listed.applied.remove(&key)),
            }
        }
    }

    /// Returns the applied record to use while the tree is moved.
    pub(super) fn applied_kept(&self, place: &Place) -> Option<Arc<Stored<AppliedDocument>>> {
        let memory = self.memory.lock();
        match memory.pending.get(place) {
            Some(text) => stored(&self.dir, place, text.as_ref()?).map(Arc::new),
            None => {
                let key = (place.kind, place.name.clone());
                memory.last.as_ref()?.applied.get(&key).cloned()
            }
        }
    }

    /// Returns the text of an applied record, as last written.
    pub(crate) fn applied_text(&self, place: &Place) -> Option<Arc<str>> {
        Some(Arc::clone(&self.applied_kept(place)?.text))
    }

    /// Handles the return of the tree: recreates its empty folders, which Git does not keep, and
    /// writes the waiting records. A record that cannot be written keeps waiting, and stays in
    /// effect meanwhile.
    fn returned(&self) -> Result<(), StoreError> {
        let (returned, pending) = {
            let memory = self.memory.lock();
            (memory.moved.is_some(), memory.pending.clone())
        };
        if !self.is_writable() || (!returned && pending.is_empty()) {
            return Ok(());
        }
        // Prevents writes into a different directory at the same path.
        drop(self.writable()?);
        if returned {
            self.make_empty_folders()?;
            self.memory.lock().moved = None;
        }
        for (place, text) in pending {
            // The store's trouble reports the error, and the next listing retries.
            let _ = self.write_pending(&place, text.as_deref());
        }
        Ok(())
    }

    /// Writes a waiting record to the tree. Its copy is removed last: after a crash it is written once more.
    pub(super) fn write_pending(
        &self,
        place: &Place,
        text: Option<&str>,
    ) -> Result<(), StoreError> {
        let path = self.path(place);
        let there = read::text(&path).ok().flatten();
        match text {
            Some(text) if there.is_some_and(|there| there.text == text) => {}
            Some(text) => self.put(&path, text)?,
            None => {
                self.remove_file(&path)?;
                self.note_gone(place);
            }
        }
        atomic::remove(&self.pending_path(place))?;
        self.memory.lock().pending.remove(place);
        Ok(())
    }

    /// Recreates the folders that had no file at the last listing. A missing folder that had files leaves a doubt.
    fn make_empty_folders(&self) -> Result<(), StoreError> {
        let full = self.memory.lock().last.as_ref().map(|last| last.folders());
        let full = full.unwrap_or_default();
        for folder in super::layout::folders() {
            if !full.contains(&folder) {
                atomic::create_below(&self.dir, &self.dir.join(folder), 0o755)?;
            }
        }
        Ok(())
    }

    /// Reads the records that wait for the tree: at a start, and for every listing without the lock.
    pub(super) fn read_pending(&self) {
        if !self.is_writable() {
            self.memory.lock().pending.clear();
        }
        let base = self.dir.join(PENDING);
        let maintenance = Place::single(Area::Documents, Kind::Maintenance);
        let waiting = read::text(&self.pending_path(&maintenance)).ok().flatten();
        if let Some(waiting) = waiting
            && self.waiting_maintenance(&waiting.text).is_some()
        {
            self.note_pending(&maintenance, Some(waiting.text));
        }
        for kind in super::place::PLACED {
            let folder = base.join(super::place::folder(Area::Applied, kind));
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let place = path.strip_prefix(&base).ok().and_then(Place::parse);
                let Some(place) = place.filter(|place| place.area == Area::Applied) else {
                    continue;
                };
                match read::text(&path).ok().flatten().map(|read| read.text) {
                    Some(text) if text == REMOVED => self.note_pending(&place, None),
                    Some(text) if stored(&self.dir, &place, &text).is_some() => {
                        self.note_pending(&place, Some(text));
                    }
                    // A record that a power failure truncated is ignored; the record in the tree counts.
                    _ => tracing::warn!(
                        file = %path.display(),
                        "a waiting applied record cannot be read; the record in the tree is used"
                    ),
                }
            }
        }
    }

    fn pending_path(&self, place: &Place) -> PathBuf {
        self.dir.join(PENDING).join(place.relative())
    }
}

/// Returns whether a place is that of the maintenance document.
pub(super) fn is_maintenance(place: &Place) -> bool {
    place.kind == Kind::Maintenance && place.area == Area::Documents
}

/// Waits while a git changes the tree, with a limit since `begun` for a git that hangs.
pub(super) fn wait_for_git(dir: &Path, after: Duration, begun: Instant) {
    while is_worth_waiting(dir, after, begun) {
        pause(GIT_AT_WORK_CHECK);
    }
}

/// Returns whether a git changes the tree, and a wait since `begun` has not reached its limit.
pub(super) fn is_worth_waiting(dir: &Path, after: Duration, begun: Instant) -> bool {
    begun.elapsed() < TREE_CHANGING_MAX && head::is_moving(dir, after)
}

fn stored(dir: &Path, place: &Place, text: &str) -> Option<Stored<AppliedDocument>> {
    Some(Stored {
        document: Arc::new(parse_value(text).ok()?),
        hash: read::hash(text),
        path: dir.join(place.relative()),
        owner: 0,
        text: text.into(),
    })
}
