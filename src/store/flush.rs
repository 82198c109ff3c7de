//! Makes files durable. A file or a name that no step depends on yet waits for the next flush, which is also for others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Store, StoreError};
use crate::util::file::{self, Staged};
use crate::util::sorted::Sorted as _;

impl Store {
    /// Makes files durable before they get their final names, and with them everything that waits for a flush.
    pub(super) fn flush<'a>(
        &self,
        files: impl Iterator<Item = &'a Staged>,
    ) -> Result<(), StoreError> {
        let files: Vec<_> = files.collect();
        match files.is_empty() {
            true => Ok(()),
            false => self.flush_with(files),
        }
    }

    /// Makes everything durable that waits for a flush.
    pub(super) fn flush_owed(&self) -> Result<(), StoreError> {
        self.flush_with(Vec::new())
    }

    fn flush_with(&self, files: Vec<&Staged>) -> Result<(), StoreError> {
        // Held to the end: what waits is durable when another flush finds that nothing does.
        let mut owed = self.owed.lock();
        let flushed = match owed.is_empty() {
            true => file::flush(files),
            false => {
                let owed = owed.iter().map(PathBuf::as_path);
                file::flush_file_systems(owed.chain(files.into_iter().map(Staged::folder)))
            }
        };
        let flushed = flushed.map_err(StoreError::io("flush", &self.dir));
        match &flushed {
            Ok(()) => owed.clear(),
            // Flushing no file says nothing about the disk.
            Err(_) => self.attempts.write(&flushed),
        }
        flushed
    }

    /// Leaves the files and names in these folders to the next flush. Each object's steps follow one.
    pub(super) fn owe(&self, folders: impl IntoIterator<Item = PathBuf>) {
        self.owed.lock().extend(folders);
    }
}

/// Makes the renames of these files durable.
pub(super) fn sync_folders<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), StoreError> {
    let folders: BTreeSet<&Path> = files
        .into_iter()
        .filter_map(|path| path.parent())
        .sorted_set();
    let Some(first) = folders.first().copied() else {
        return Ok(());
    };
    let synced = file::sync_folders(folders);
    synced.map_err(StoreError::io("flush", first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, Kind, MeshPeerSpec};
    use crate::store::{AppliedBody, AppliedDocument};
    use tempfile::TempDir;

    fn store() -> (TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn peer(name: &str) -> Document<MeshPeerSpec> {
        let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        let spec = serde_json::json!({"nodeId": 2, "publicKey": key});
        let spec = serde_json::from_value(spec).unwrap();
        let uid = Some(format!("uid-{name}").parse().unwrap());
        Document::new(name.parse().unwrap(), uid, 1, spec)
    }

    fn record(peer: &Document<MeshPeerSpec>) -> AppliedDocument {
        AppliedDocument::new(
            Kind::MeshPeer,
            peer.metadata.clone(),
            AppliedBody::default(),
        )
    }

    fn waits(store: &Store) -> bool {
        !store.owed.lock().is_empty()
    }

    #[test]
    fn first_record_makes_waiting_documents_durable() {
        let (_dir, store) = store();
        store.write_document(&peer("a")).unwrap();
        store.keep_lightly("held.yaml", "a: 1\n").unwrap();
        assert!(waits(&store));
        store.write_applied(&record(&peer("a"))).unwrap();
        assert!(!waits(&store));
    }

    #[test]
    fn start_before_the_first_record_owes_a_flush() {
        let (dir, store) = store();
        store.write_applied(&record(&peer("a"))).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert!(!waits(&store));
        drop(store);
        std::fs::remove_dir_all(dir.path().join("applied")).unwrap();
        assert!(waits(&Store::open(dir.path()).unwrap()));
    }

    #[test]
    fn folder_that_is_gone_owes_nothing() {
        let (dir, store) = store();
        store.write_document(&peer("a")).unwrap();
        store.owe([dir.path().join("gone")]);
        store.flush_owed().unwrap();
        assert!(!waits(&store));
    }

    #[test]
    fn doubt_ends_after_waiting_documents_are_durable() {
        let (_dir, store) = store();
        store.write_document(&peer("a")).unwrap();
        assert!(waits(&store));
        store.confirm().unwrap();
        assert!(!waits(&store));
    }

    #[test]
    fn document_beside_a_record_is_durable_at_once() {
        let (_dir, store) = store();
        store.write_document(&peer("a")).unwrap();
        store.write_applied(&record(&peer("a"))).unwrap();
        store.write_document(&peer("b")).unwrap();
        assert!(!waits(&store));
    }

    #[test]
    fn replaced_document_is_durable_at_once() {
        let (_dir, store) = store();
        store.write_document(&peer("a")).unwrap();
        store.flush_owed().unwrap();
        let mut changed = peer("a");
        changed.metadata.generation = 2;
        store.write_document(&changed).unwrap();
        assert!(!waits(&store));
    }
}
