//! What stays in effect while Git has moved the work tree: the last listing, and the applied records and the
//! maintenance document that were written since. They go to the tree when it is back; until then each is in
//! `.pending/`, so that a crash loses none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::document::{Kind, MaintenanceSpec, parse, parse_value};

use super::cache::{Slot, Stored};
use super::{
    AppliedDocument, Area, Place, Snapshot, Store, StoreError, atomic, create_folder, head, read,
};

/// The folder of files that wait for the tree; hidden, so that Git leaves it alone.
const PENDING: &str = ".pending";
/// A tree that Git is said to change for longer than this is read.
const LONGEST: Duration = Duration::from_secs(5);

/// What is kept from one listing to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last listing of the tree of the history's branch.
    last: Option<Snapshot>,
    /// Where HEAD is, while it is elsewhere.
    moved: Option<String>,
    /// Since when Git is changing the tree.
    moving: Option<Instant>,
    /// Files that were written while the tree was elsewhere; `None`: removed.
    pending: BTreeMap<Place, Option<String>>,
}

impl Store {
    /// Where HEAD of the repository is, in words, while it is not at the history's branch. Nothing is read from the
    /// tree then, and no document or override is written to it.
    pub fn moved(&self) -> Option<String> {
        head::moved(&self.dir)
    }

    /// The listing to go by while the tree cannot be read. `None`: read it.
    pub(super) fn listing_kept(&self) -> Result<Option<Snapshot>, StoreError> {
        let moved = self.moved();
        let mut memory = self.memory();
        if moved.is_none() {
            let returned = memory.moved.take().is_some();
            let moving = head::is_moving(&self.dir, self.patience.quiet());
            memory.moving = moving.then(|| memory.moving.unwrap_or_else(Instant::now));
            let patient = memory.moving.is_some_and(|since| since.elapsed() < LONGEST);
            if patient && let Some(last) = &memory.last {
                return Ok(Some(Snapshot {
                    settled: false,
                    ..last.clone()
                }));
            }
            let pending = std::mem::take(&mut memory.pending);
            drop(memory);
            return self.returned(returned, pending).map(|()| None);
        }
        memory.moved.clone_from(&moved);
        let Some(mut last) = memory.last.clone() else {
            let at = moved.unwrap_or_default();
            return Err(StoreError::Moved {
                dir: self.dir.clone(),
                at,
            });
        };
        for (place, text) in &memory.pending {
            if place.kind == Kind::Maintenance && place.area == Area::Documents {
                let waiting = text
                    .as_ref()
                    .and_then(|text| self.waiting_maintenance(text));
                last.maintenance = waiting.or(last.maintenance);
                continue;
            }
            let key = (place.kind, place.name.clone());
            match text
                .as_ref()
                .and_then(|text| stored(&self.dir, place, text))
            {
                Some(record) => drop(last.applied.insert(key, Arc::new(record))),
                None => drop(last.applied.remove(&key)),
            }
        }
        Ok(Some(Snapshot {
            moved,
            settled: true,
            ..last
        }))
    }

    /// Keeps an applied record that was written to the tree, or removed from it.
    pub(super) fn keep_applied(&self, place: &Place, text: Option<&str>) {
        let record = text.and_then(|text| stored(&self.dir, place, text));
        let key = (place.kind, place.name.clone());
        if let Some(last) = &mut self.memory().last {
            match record {
                Some(record) => drop(last.applied.insert(key, Arc::new(record))),
                None => drop(last.applied.remove(&key)),
            }
        }
    }

    /// Puts back the applied records that another program removed or broke since the last listing. Only the agent may
    /// forget what it applied: without a record a missing document would look as if it never took effect.
    pub(super) fn restore_applied(&self, listed: &mut Snapshot) {
        let kept = match &self.memory().last {
            Some(last) => last.applied.clone(),
            None => return,
        };
        for ((kind, name), record) in kept {
            if listed.applied.contains_key(&(kind, name.clone())) {
                continue;
            }
            let path = self.path(&Place::new(Area::Applied, kind, &name));
            let write = || {
                drop(self.writable()?);
                self.put(&path, &record.text)
            };
            if self.is_writable()
                && let Err(error) = write()
            {
                listed.problems.push(read::error(&path, error.to_string()));
            }
            listed.applied.insert((kind, name), record);
        }
    }

    /// Keeps a listing of the tree of the history's branch.
    pub(super) fn keep_listing(&self, listed: &Snapshot) {
        let mut last = listed.clone();
        last.edits.clear();
        self.memory().last = Some(last);
    }

    /// Takes the tree of the history's branch, as files by their paths, for a start while HEAD is elsewhere.
    ///
    /// # Errors
    /// When it cannot be put into a temporary folder.
    pub fn take_branch(&self, files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<(), StoreError> {
        let folder = tempfile::Builder::new()
            .prefix("moenet-branch-")
            .tempdir()
            .map_err(StoreError::io("create a folder in", &std::env::temp_dir()))?;
        for (path, bytes) in files {
            let path = folder.path().join(path);
            if let Some(parent) = path.parent() {
                create_folder(parent, 0o755)?;
            }
            std::fs::write(&path, bytes).map_err(StoreError::io("write", &path))?;
        }
        let patience = super::Patience::default();
        let mut listed = super::Caches::default().load(folder.path(), true, &patience);
        listed.uncopied.clear();
        listed.problems.retain(|problem| {
            let file = problem.file.as_deref();
            file.is_none_or(|file| !file.starts_with(folder.path()))
        });
        self.keep_listing(&listed);
        self.read_pending();
        Ok(())
    }

    /// The maintenance document that waits for the tree.
    fn waiting_maintenance(&self, text: &str) -> Option<Slot<MaintenanceSpec>> {
        let path = self.path(&Place::single(Area::Documents, Kind::Maintenance));
        let stored = Stored {
            document: parse(text).ok()?,
            hash: read::hash(text),
            path,
            owner: 0,
            text: text.into(),
        };
        Some(Ok(Arc::new(stored)))
    }

    /// Writes an applied record while the tree is elsewhere; `None`: removes it. Returns whether it changed.
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
        create_folder(path.parent().unwrap_or(&path), 0o755)?;
        atomic::write(&path, text.unwrap_or_default().as_bytes(), 0o644)?;
        let text = text.map(str::to_owned);
        self.memory().pending.insert(place.clone(), text);
        Ok(true)
    }

    /// The applied record to go by while the tree is elsewhere.
    pub(super) fn applied_kept(&self, place: &Place) -> Option<Arc<Stored<AppliedDocument>>> {
        let memory = self.memory();
        match memory.pending.get(place) {
            Some(text) => stored(&self.dir, place, text.as_ref()?).map(Arc::new),
            None => {
                let key = (place.kind, place.name.clone());
                memory.last.as_ref()?.applied.get(&key).cloned()
            }
        }
    }

    /// The tree is back: its empty folders, which Git does not keep, are made again, and the records that waited are
    /// written.
    fn returned(
        &self,
        returned: bool,
        pending: BTreeMap<Place, Option<String>>,
    ) -> Result<(), StoreError> {
        if !self.is_writable() {
            return Ok(());
        }
        if returned {
            super::create_layout(&self.dir)?;
        }
        for (place, text) in pending {
            let path = self.path(&place);
            match text {
                Some(text) => self.put(&path, &text)?,
                None => drop(self.remove_file(&path)?),
            }
            let _ = atomic::remove(&self.pending_path(&place));
        }
        Ok(())
    }

    /// Reads the records that a crash left waiting.
    pub(super) fn read_pending(&self) {
        let base = self.dir.join(PENDING);
        let maintenance = Place::single(Area::Documents, Kind::Maintenance);
        let waiting = read::text(&self.pending_path(&maintenance)).ok().flatten();
        if let Some(waiting) = waiting {
            self.memory()
                .pending
                .insert(maintenance, Some(waiting.text));
        }
        for kind in super::place::PLACED {
            let folder = base.join(super::place::folder(Area::Applied, kind));
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let place = path.strip_prefix(&base).ok().and_then(Place::parse);
                let Some(place) = place.filter(|place| place.area == Area::Applied) else {
                    continue;
                };
                let text = read::text(&path).ok().flatten().map(|read| read.text);
                self.memory().pending.insert(place, text);
            }
        }
    }

    fn pending_path(&self, place: &Place) -> PathBuf {
        self.dir.join(PENDING).join(place.relative())
    }
}

fn stored(dir: &Path, place: &Place, text: &str) -> Option<Stored<AppliedDocument>> {
    Some(Stored {
        document: parse_value(text).ok()?,
        hash: read::hash(text),
        path: dir.join(place.relative()),
        owner: 0,
        text: text.into(),
    })
}
