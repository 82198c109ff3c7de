//! Documents of the sync that the Control Plane has removed. Git may restore such a file (`git
//! reset --hard OLD`, a restore from a copy): it is not desired then, and is removed again. The
//! list is kept in `.git`, which no tool that cleans or restores the tree touches, and in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::model::Uid;
use crate::util::file;
use crate::util::fs;

use super::{Area, Place, Snapshot, Store, StoreError, atomic};

/// The list below the state directory.
const LIST: &str = ".git/moenet-removed";
/// Maximum number of remembered objects; the oldest are dropped.
const MOST: usize = 2000;
/// Size limit of the list, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Markers: the object itself is gone, or only its document.
const GONE: &str = "gone";
const REMOVED: &str = "removed";

/// One removed document.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Removal {
    /// Path of the document, below the state directory.
    document: PathBuf,
    uid: String,
    /// The applied record was removed too; a restored one has no meaning then.
    is_gone: bool,
}

/// The removed documents, oldest first.
#[derive(Debug, Default)]
pub(super) struct Removed(Vec<Removal>);

impl Removed {
    pub(super) fn read(dir: &Path) -> Self {
        let text = file::read_text(&dir.join(LIST), MAX_BYTES).unwrap_or_default();
        Self(text.lines().filter_map(Removal::parse).collect())
    }

    fn text(&self) -> String {
        self.0.iter().map(Removal::line).collect()
    }

    /// Returns whether this document of this object was removed.
    fn is_removed(&self, document: &Path, uid: &Uid) -> bool {
        self.0.iter().any(|removal| removal.is_of(document, uid))
    }

    /// Returns the removals by document and uid, for many lookups, each with whether the object is gone.
    fn by_object(&self) -> HashMap<(&Path, &str), bool> {
        let removals = self.0.iter();
        removals
            .map(|it| ((it.document.as_path(), it.uid.as_str()), it.is_gone))
            .collect()
    }

    fn forget(&mut self, document: &Path, uid: &Uid) {
        self.0.retain(|removal| !removal.is_of(document, uid));
    }
}

impl Removal {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let (document, state, uid) = (words.next()?, words.next()?, words.next()?);
        (state == GONE || state == REMOVED).then(|| Self {
            document: document.into(),
            uid: uid.to_owned(),
            is_gone: state == GONE,
        })
    }

    fn is_of(&self, document: &Path, uid: &Uid) -> bool {
        self.document == document && self.uid == uid.as_str()
    }

    fn line(&self) -> String {
        let state = if self.is_gone { GONE } else { REMOVED };
        format!("{} {state} {}\n", self.document.display(), self.uid)
    }
}

impl Store {
    /// Records that the Control Plane has removed a document.
    pub(super) fn note_removed(&self, place: &Place, uid: &Uid) {
        let record = self.path(&place.within(Area::Applied));
        let mut removed = self.removed.lock();
        removed.forget(&place.relative(), uid);
        removed.0.push(Removal {
            document: place.relative(),
            uid: uid.as_str().to_owned(),
            is_gone: !fs::exists(record),
        });
        let surplus = removed.0.len().saturating_sub(MOST);
        removed.0.drain(..surplus);
        drop(removed);
        self.keep_removed();
    }

    /// Records that the applied record of an object was removed.
    pub(super) fn note_gone(&self, place: &Place) {
        self.set_gone(place, true);
    }

    /// Records that the agent writes the applied record of an object: Git did not restore it, though the sync may have
    /// removed the document since the desired state that wants the object.
    pub(super) fn note_applied(&self, place: &Place) {
        self.set_gone(place, false);
    }

    fn set_gone(&self, place: &Place, is_gone: bool) {
        let document = place.within(Area::Documents).relative();
        let mut removed = self.removed.lock();
        let known = removed.0.iter_mut();
        let mut changed = false;
        for known in known.filter(|known| known.is_gone != is_gone && known.document == document) {
            (known.is_gone, changed) = (is_gone, true);
        }
        drop(removed);
        if changed {
            self.keep_removed();
        }
    }

    /// Records that the Control Plane sends a document again.
    pub(super) fn note_wanted(&self, place: &Place, uid: &Uid) {
        let (document, mut removed) = (place.relative(), self.removed.lock());
        if !removed.is_removed(&document, uid) {
            return;
        }
        removed.forget(&document, uid);
        drop(removed);
        self.keep_removed();
    }

    /// Writes the list, if it changed. Without a repository no document can be restored.
    pub(super) fn keep_removed(&self) {
        let (path, text) = (self.dir.join(LIST), self.removed.lock().text());
        let kept = file::read_text(&path, MAX_BYTES).unwrap_or_default();
        if kept != text && self.is_writable() && fs::is_dir(self.dir.join(".git")) {
            // The next listing retries.
            let _ = atomic::write(&path, text.as_bytes(), 0o644);
        }
    }

    /// Removes documents from a listing that the Control Plane had removed before, and applied
    /// records of objects that are gone.
    pub(super) fn take_out_revived(&self, snapshot: &mut Snapshot) {
        let removed = self.removed.lock();
        if removed.0.is_empty() {
            return;
        }
        let removed = removed.by_object();
        let state = |document: &Path, uid: &Option<Uid>| {
            let uid = uid.as_ref()?.as_str();
            removed.get(&(document, uid)).copied()
        };
        let mut revived = Vec::new();
        snapshot.retain(|place, metadata| {
            let stays = state(&place.relative(), &metadata.uid).is_none();
            if !stays {
                revived.push(place);
            }
            stays
        });
        snapshot.applied.retain(|(kind, name), stored| {
            let document = Place::document(*kind, name).relative();
            let stays = state(&document, &stored.document.metadata.uid) != Some(true);
            if !stays {
                revived.push(Place::new(Area::Applied, *kind, name));
            }
            stays
        });
        let is_revived = |place: &Place| revived.contains(place);
        snapshot.edits.retain(|edit| !is_revived(&edit.place));
        snapshot.uncopied.retain(|place| !is_revived(place));
        snapshot.revived = revived;
    }

    /// Removes files restored by Git whose objects the Control Plane has removed. Returns the removed ones.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_revived(&self, places: &[Place]) -> Result<Vec<Place>, StoreError> {
        let _one_at_a_time = self.tree_turn()?;
        let mut gone = Vec::new();
        for place in places {
            if self.remove_file(&self.path(place))? {
                self.count(1);
                gone.push(place.clone());
            }
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_reads_back_as_written_and_skips_other_lines() {
        let text = "sessions/wg_1.yaml gone u 1\nmesh/b.yaml removed mesh/2\n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        std::fs::write(dir.path().join(LIST), format!("{text}nonsense\n")).unwrap();
        let removed = Removed::read(dir.path());
        assert_eq!(removed.text(), text);
        let uid = "mesh/2".parse().unwrap();
        let document = Path::new("mesh/b.yaml");
        assert!(removed.is_removed(document, &uid));
        assert!(!removed.by_object()[&(document, uid.as_str())]);
        assert!(!removed.is_removed(Path::new("mesh/other.yaml"), &uid));
    }
}
