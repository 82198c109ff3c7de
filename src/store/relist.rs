//! A listing after an earlier one at rest looks at the changed files alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::cache::{Cache, Slot, Stored};
use super::changed::ChangedFiles;
use super::debounce::Debounce;
use super::list::{Pair, in_plain_sight};
use super::manual_edit::edit;
use super::place::folder;
use super::snapshot::{Caches, Snapshot};
use super::{AppliedDocument, Area, Place, SYNCED};
use crate::document::{Document, Kind, Spec};
use crate::model::ObjectName;
use crate::util::fs;

impl Caches {
    /// Returns an earlier listing with the changed files as they are now. `None` where only a listing of everything can
    /// tell: a file is gone, invalid, still written, no document of many, edited by an operator, or has the uid of another.
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
            let (path, kind) = (dir.join(folder(place.area, place.kind)), place.kind);
            // A linked folder could be outside of the state directory; see `names`.
            if !fs::symlink_metadata(&path).ok()?.is_dir() || before.uncopied.contains(place) {
                return None;
            }
            let file = File {
                dir,
                place,
                patience,
            };
            match (place.area, kind) {
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

/// Returns the places of the changed files, for a copy of the sync's that of its document; `None` if a file has no place.
fn places(dir: &Path, changed: &ChangedFiles) -> Option<BTreeSet<Place>> {
    let ChangedFiles::Files(files) = changed else {
        return None;
    };
    let place = |path: &Path| {
        let inside = path.strip_prefix(dir).ok()?;
        Place::parse(inside.strip_prefix(SYNCED).unwrap_or(inside))
    };
    files.iter().map(|path| place(path)).collect()
}

/// A changed file.
struct File<'a> {
    dir: &'a Path,
    place: &'a Place,
    patience: &'a Debounce,
}

impl File<'_> {
    fn record(
        &self,
        cache: &mut Cache<AppliedDocument>,
        all: &mut BTreeMap<(Kind, ObjectName), Arc<Stored<AppliedDocument>>>,
    ) -> Option<()> {
        let path = self.dir.join(self.place.relative());
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
        let path = self.dir.join(place.relative());
        let found = pair.now.look_patiently(&path, place, self.patience)?;
        let document = found.as_ref().ok()?;
        if pair.now.waits() || in_plain_sight(&path, &document.text).is_some() {
            return None;
        }
        let path = self.dir.join(SYNCED).join(place.relative());
        let copy = pair.synced.look_beside(&path, place, Some(document));
        let uid = document.document.metadata.uid.as_ref();
        let is_as_synced = match copy {
            Some(copy) => edit(place.clone(), &*copy.ok()?, Some(&found)).is_none(),
            None => uid.is_none(),
        };
        if !is_as_synced {
            return None;
        }
        let of_another = |(other, slot): (&ObjectName, &Slot<S>)| {
            let has_it = |it: &Arc<Stored<Document<S>>>| uid == it.document.metadata.uid.as_ref();
            other != name && slot.as_ref().is_ok_and(has_it)
        };
        if uid.is_some() && all.iter().any(of_another) {
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
    use crate::document::MeshPeerSpec;
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
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn listing_after_changes_equals_one_of_everything(
            events in prop::collection::vec((prop::sample::select(&EVENTS[..]), prop::sample::select(vec!["a", "b", "c"]), 1..3u8), 1..8),
            at_once in 1..3usize,
        ) {
            let directory = Directory::new();
            for events in events.chunks(at_once) {
                for (event, name, number) in events {
                    directory.happen(*event, name, *number);
                }
                directory.list();
            }
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
