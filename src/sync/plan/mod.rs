//! Plans the changes of documents from the Control Plane's lists: which to write, which to remove. Pure; the caller
//! fetches and writes.
//!
//! Absence from a list removes a document only when the list is complete, and never an operator's document. The
//! guard decides, later and in one place, whether an applied object is then removed.

mod peers;
mod sessions;

pub use peers::{plan_peers, plan_single};
pub use sessions::{PortBases, SessionChange, plan_sessions};

use crate::document::{Document, Spec};
use crate::model::ObjectName;
use crate::store::{BrokenDocument, Place, Snapshot};

/// The change of one document.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<S> {
    /// Write it; it is new or different.
    Write(Box<Document<S>>),
    /// Write it in place of an invalid file: the Control Plane wants the object down.
    Displace(Box<Document<S>>),
    /// Remove it; the Control Plane does not list it any more.
    Remove(ObjectName),
}

/// Returns the sync's documents of a kind whose file is invalid.
fn broken<S: Spec>(snapshot: &Snapshot) -> impl Iterator<Item = (&ObjectName, &BrokenDocument)> {
    let of_kind = snapshot
        .broken
        .iter()
        .filter(|((kind, _), _)| *kind == S::KIND);
    of_kind.map(|((_, name), document)| (name, document))
}

/// Returns the document with its generation: the next generation when the specification changed, and `None` when
/// nothing changed. An unchanged document without a copy is written again to restore the copy.
fn updated<S: Spec>(
    name: ObjectName,
    uid: crate::model::Uid,
    spec: S,
    existing: Option<&Document<S>>,
    generation_in_effect: u64,
    snapshot: &Snapshot,
) -> Option<Document<S>> {
    match existing {
        Some(document) if document.spec == spec && document.metadata.uid.as_ref() == Some(&uid) => {
            let place = Place::document(S::KIND, &document.metadata.name);
            snapshot.uncopied.contains(&place).then(|| document.clone())
        }
        Some(document) => Some(Document::new(
            name,
            Some(uid),
            document.metadata.generation + 1,
            spec,
        )),
        None => Some(Document::new(
            name,
            Some(uid),
            generation_in_effect + 1,
            spec,
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::MeshPeerSpec;
    use crate::store::{Store, Written};
    use crate::wire::{Listing, PeerItem};

    #[test]
    fn missing_copy_is_created_and_later_edits_are_detected() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let spec =
            json!({"nodeId": 2, "publicKey": "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg="});
        let spec: MeshPeerSpec = serde_json::from_value(spec).unwrap();
        let item = PeerItem {
            name: "hk1".parse().unwrap(),
            spec,
        };
        let listing = Listing {
            items: vec![item],
            rejected: Vec::new(),
            complete: true,
        };
        let sync = |store: &Store| {
            let snapshot = store.load().unwrap();
            match plan_peers(&listing, &snapshot.mesh, &snapshot).as_slice() {
                [] => None,
                [Change::Write(document)] => Some(store.write_document(document).unwrap()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((sync(&store), sync(&store)), (Some(Written::Changed), None));
        let (document, copy) = (
            dir.path().join("mesh/hk1.yaml"),
            dir.path().join(".synced/mesh/hk1.yaml"),
        );
        let text = std::fs::read_to_string(&document).unwrap();
        // This happens after a restore from the history, which has no copies, and after a power cut.
        for broken in [None, Some("")] {
            // A running agent puts a lost copy back from memory.
            drop(store);
            store = Store::open(dir.path()).unwrap();
            match broken {
                None => std::fs::remove_file(&copy).unwrap(),
                Some(text) => std::fs::write(&copy, text).unwrap(),
            }
            assert_eq!(
                (sync(&store), sync(&store)),
                (Some(Written::Unchanged), None)
            );
            assert_eq!(std::fs::read_to_string(&copy).unwrap(), text);
        }
        std::fs::write(
            &document,
            text.replace("nodeId: 2", "nodeId: 2\n  mtu: 1400"),
        )
        .unwrap();
        assert_eq!(store.load().unwrap().edits.len(), 1);
    }
}
