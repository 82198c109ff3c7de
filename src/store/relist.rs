//! A listing after an earlier one at rest looks at the changed files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::{Cache, Slot, Stored};
use super::changed::ChangedFiles;
use super::debounce::Debounce;
use super::list::{Pair, in_plain_sight};
use super::manual_edit::edit;
use super::snapshot::{Caches, Snapshot};
use super::{AppliedDocument, Area, Place, SYNCED};
use crate::document::{Kind, Spec};
use crate::model::ObjectName;
use crate::util::fs;

impl Caches {
    /// Returns an earlier listing, which [`Snapshot::is_at_rest`], with the changed files as they are now. `None` where only a
    /// listing of everything can tell: a file is gone, invalid or still written, an operator edited it, its uid is another one,
    /// or it is an override or the document of a kind with one document.
    pub(super) fn relist(
        &mut self,
        dir: &Path,
        before: &Snapshot,
        patience: &Debounce,
        changed: &ChangedFiles,
    ) -> Option<Snapshot> {
        let places = places(dir, changed)?;
        let mut listed = before.clone();
        for place in &places {
            if before.uncopied.contains(place) {
                return None;
            }
            let file = File {
                dir,
                place,
                patience,
            };
            match (place.area, place.kind) {
                (Area::Applied, _) => file.record(&mut self.applied, &mut listed.applied),
                (Area::Documents, Kind::BgpSession) => {
                    file.document(&mut self.sessions, &mut listed.sessions)
                }
                (Area::Documents, Kind::MeshPeer) => {
                    file.document(&mut self.mesh, &mut listed.mesh)
                }
                (Area::Documents, Kind::IbgpPeer) => {
                    file.document(&mut self.ibgp, &mut listed.ibgp)
                }
                _ => None,
            }?;
        }
        Some(listed)
    }
}

/// Returns the places of the changed files, where a copy of the sync's counts as its document; `None` if a file has none.
fn places(dir: &Path, changed: &ChangedFiles) -> Option<BTreeSet<Place>> {
    let ChangedFiles::Files(files) = changed else {
        return None;
    };
    let place = |path: &Path| {
        let inside = path.strip_prefix(dir).ok()?;
        Place::parse(inside.strip_prefix(SYNCED).unwrap_or(inside))
    };
    let mut places = BTreeSet::new();
    for path in files {
        places.insert(place(path)?);
    }
    Some(places)
}

/// A changed file.
struct File<'a> {
    dir: &'a Path,
    place: &'a Place,
    patience: &'a Debounce,
}

impl File<'_> {
    /// Returns the path in the state directory or in a folder of it; `None` if the file's folder is linked, or gone: what is
    /// behind a link could be outside of the state directory, and its changes cause no events.
    fn path_in(&self, base: &str) -> Option<PathBuf> {
        let path = self.dir.join(base).join(self.place.relative());
        let found = fs::symlink_metadata(path.parent()?).ok()?;
        found.is_dir().then_some(path)
    }

    fn record(
        &self,
        cache: &mut Cache<AppliedDocument>,
        all: &mut BTreeMap<(Kind, ObjectName), Arc<Stored<AppliedDocument>>>,
    ) -> Option<()> {
        let path = self.path_in("")?;
        let record = cache.look(&path, self.place)?.ok()?;
        all.insert((self.place.kind, self.place.name.clone()), record);
        Some(())
    }

    fn document<S: Spec>(
        &self,
        pair: &mut Pair<S>,
        all: &mut BTreeMap<ObjectName, Slot<S>>,
    ) -> Option<()> {
        let (place, name) = (self.place, &self.place.name);
        let path = self.path_in("")?;
        let found = pair.now.look_patiently(&path, place, self.patience)?;
        let document = found.as_ref().ok()?;
        if pair.now.waits() || in_plain_sight(&path, &document.text).is_some() {
            return None;
        }
        let path = self.path_in(SYNCED)?;
        let copy = pair.synced.look_beside(&path, place, Some(document));
        let uid = document.document.metadata.uid.as_ref();
        // Another document may have a new uid too.
        let had = all.get(name).and_then(|slot| slot.as_ref().ok());
        if uid != had.and_then(|had| had.document.metadata.uid.as_ref()) {
            return None;
        }
        let is_as_synced = match copy {
            Some(copy) => edit(place.clone(), &*copy.ok()?, Some(&found)).is_none(),
            None => uid.is_none(),
        };
        if !is_as_synced {
            return None;
        }
        all.insert(name.clone(), found);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::document::{Document, MeshPeerSpec};
    use crate::store::{AppliedBody, Store};

    /// What happens to one of three files, with one of two numbers.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Synced,
        SyncedWithUidOfAnother,
        Own,
        Edited,
        Copied,
        Invalid,
        Removed,
        Recorded,
        RecordLost,
        CopyLost,
    }

    const EVENTS: [Event; 10] = [
        Event::Synced,
        Event::SyncedWithUidOfAnother,
        Event::Own,
        Event::Edited,
        Event::Copied,
        Event::Invalid,
        Event::Removed,
        Event::Recorded,
        Event::RecordLost,
        Event::CopyLost,
    ];

    struct Directory {
        dir: TempDir,
        store: Store,
    }

    impl Directory {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            store.changes.watch(true);
            let new = Self { dir, store };
            for (name, number) in [("a", 1), ("b", 2)] {
                new.sync(name, name, number);
            }
            new.store.confirm().unwrap();
            new.store.load().unwrap();
            new
        }

        fn place(name: &str) -> Place {
            Place::document(Kind::MeshPeer, &name.parse().unwrap())
        }

        fn document(name: &str, uid: Option<&str>, number: u8) -> Document<MeshPeerSpec> {
            let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
            let spec = serde_json::json!({"nodeId": number, "publicKey": key});
            let spec = serde_json::from_value(spec).unwrap();
            let uid = uid.map(|uid| uid.parse().unwrap());
            Document::new(name.parse().unwrap(), uid, 1, spec)
        }

        fn sync(&self, name: &str, uid: &str, number: u8) {
            let document = Self::document(name, Some(uid), number);
            // A refused write is no change.
            let _ = self.store.write_document(&document);
        }

        /// Does what others do to a file, and notes it as the watch would.
        fn change(&self, path: &Path, change: impl FnOnce(&Path)) {
            change(path);
            self.store.changes.note(path);
        }

        fn happen(&self, event: Event, name: &str, number: u8) {
            let place = Self::place(name);
            let path = self.store.path(&place);
            let record = self.dir.path().join("applied").join(place.relative());
            let text = fs::read_to_string(&path).unwrap_or_default();
            let write = |text: String| move |path: &Path| fs::write(path, text).unwrap();
            let remove = |path: &Path| drop(fs::remove_file(path));
            match event {
                Event::Synced => self.sync(name, name, number),
                Event::SyncedWithUidOfAnother => self.sync(name, "a", number),
                Event::Own => {
                    let own = Self::document(name, None, number);
                    let text = crate::document::to_yaml(&own).unwrap();
                    self.change(&path, write(text));
                }
                Event::Edited => {
                    let edited = text.replace("nodeId: 1", &format!("nodeId: {}", number + 4));
                    self.change(&path, write(edited));
                }
                Event::Copied => {
                    let text = text.replace(&format!("name: {name}\n"), "name: c\n");
                    self.change(&self.store.path(&Self::place("c")), write(text));
                }
                Event::Invalid => self.change(&path, write("no: document".to_owned())),
                Event::Removed => self.change(&path, remove),
                Event::Recorded => self.record(name, number),
                Event::RecordLost => self.change(&record, remove),
                Event::CopyLost => {
                    let copy = self.dir.path().join(SYNCED).join(place.relative());
                    self.change(&copy, remove);
                }
            }
        }

        fn record(&self, name: &str, number: u8) {
            let document = Self::document(name, Some(name), number);
            let applied = AppliedBody {
                interfaces: [format!("wg{number}").parse().unwrap()].into(),
                ..AppliedBody::default()
            };
            let record = AppliedDocument::new(Kind::MeshPeer, document.metadata, applied);
            self.store.write_applied(&record).unwrap();
        }

        /// Lists after changes, and compares with a listing of everything.
        fn list(&self) -> Arc<Snapshot> {
            let again = self.store.load().unwrap();
            self.store.changes.note_anything();
            let whole = self.store.load().unwrap();
            assert_eq!(again, whole);
            again
        }

        /// Imports the edits of a listing, as the sync does before it writes.
        fn import(&self, listed: &Snapshot) {
            for edit in &listed.edits {
                // An edit of a file that became invalid stays.
                let _ = self.store.import_edit(edit, jiff::Timestamp::UNIX_EPOCH);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn listing_after_changes_equals_one_of_everything(
            events in prop::collection::vec((prop::sample::select(&EVENTS[..]), prop::sample::select(vec!["a", "b", "c"]), 1..3u8), 1..12),
            at_once in 1..3usize,
        ) {
            let directory = Directory::new();
            for events in events.chunks(at_once) {
                for (event, name, number) in events {
                    directory.happen(*event, name, *number);
                }
                let listed = directory.list();
                directory.import(&listed);
            }
            directory.list();
        }
    }

    #[test]
    fn change_of_one_file_looks_at_no_other() {
        let directory = Directory::new();
        let other = directory.store.path(&Directory::place("b"));
        fs::remove_file(&other).unwrap();
        directory.sync("a", "a", 3);
        let listed = directory.store.load().unwrap();
        let numbers = listed.mesh.values().map(|slot| slot.as_ref().unwrap());
        let numbers: Vec<u16> = numbers.map(|it| it.document.spec.node_id).collect();
        assert_eq!(numbers, [3, 2]);
    }

    #[test]
    fn missing_or_bad_file_needs_a_whole_listing() {
        for event in [
            Event::Removed,
            Event::Invalid,
            Event::Copied,
            Event::Edited,
            Event::CopyLost,
        ] {
            let directory = Directory::new();
            let other = directory.store.path(&Directory::place("b"));
            fs::write(&other, "no: document").unwrap();
            directory.happen(event, "a", 1);
            let listed = directory.store.load().unwrap();
            assert!(!listed.is_at_rest(), "{event:?}");
        }
    }
}
