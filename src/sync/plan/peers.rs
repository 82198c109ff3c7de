use std::collections::{BTreeMap, BTreeSet};

use super::{Change, updated};
use crate::document::{self, Document, PeerSpec, Scalars, Spec};
use crate::model::{ObjectName, Uid};
use crate::store::{Slot, Snapshot};
use crate::util::sorted::Sorted as _;
use crate::wire::{Listing, PeerItem};

/// Returns the changes to documents of one kind of peers. A peer's identity is its node id, also where the Control
/// Plane gives it a name for reports: otherwise its link's mark would change with the name.
pub fn plan_peers<S: PeerSpec>(
    listing: &Listing<PeerItem<S>>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
    snapshot: &Snapshot,
) -> Vec<Change<S>> {
    let mut changes = Vec::new();
    let rejected = listing.rejected.iter();
    let mut listed: BTreeSet<u16> = rejected
        .filter_map(|rejected| rejected.node_id)
        .sorted_set();
    for PeerItem { name, spec } in &listing.items {
        let node_id = spec.node_id();
        listed.insert(node_id);
        let known = documents
            .iter()
            .find(|(_, slot)| synced(slot).is_some_and(|d| d.spec.node_id() == node_id));
        let name = known.map_or(name, |(name, _)| name).clone();
        let slot = documents.get(&name);
        if slot.is_some_and(|slot| synced(slot).is_none()) {
            // The operator's own document of this name, or a broken one: it stays unchanged.
            continue;
        }
        let key = (S::KIND, name.clone());
        let applied = snapshot
            .applied
            .get(&key)
            .map_or(0, |stored| stored.document.metadata.generation);
        // The uid marks the link, so the folder's name cannot change any more.
        let uid = derived(S::KIND.folder(), node_id);
        let existing = slot.and_then(synced);
        let document = updated(name, uid, spec.clone(), existing, applied, snapshot);
        changes.extend(document.map(|document| Change::Write(Box::new(document))));
    }
    if listing.complete {
        let gone = documents
            .iter()
            .filter(|(_, slot)| synced(slot).is_some_and(|d| !listed.contains(&d.spec.node_id())))
            .map(|(name, _)| name);
        let broken = super::broken::<S>(snapshot);
        let gone_though_broken = broken.filter(|(_, document)| {
            let spec = document::read::<S>(&document.spec, Scalars::Typed);
            spec.is_ok_and(|spec| !listed.contains(&spec.node_id()))
        });
        let gone = gone.chain(gone_though_broken.map(|(name, _)| name));
        changes.extend(gone.map(|name| Change::Remove(name.clone())));
    }
    changes
}

/// Returns the document of a single-instance kind, when it is new or different.
pub fn plan_single<S: Spec>(
    spec: S,
    existing: Option<&Slot<S>>,
    snapshot: &Snapshot,
) -> Option<Document<S>> {
    // An invalid document stays unchanged, and its status reports the reason.
    let existing = existing
        .map(|slot| slot.as_ref().map(|stored| &*stored.document))
        .transpose()
        .ok()?;
    if existing.is_some_and(|document| document.metadata.uid.is_none()) {
        return None;
    }
    let name = ObjectName::sanitised(S::KIND.folder());
    let name = existing.map_or(name, |document| document.metadata.name.clone());
    updated(
        name,
        derived("control-plane", 0),
        spec,
        existing,
        0,
        snapshot,
    )
}

/// Returns an identity for an object without one on the wire; it also distinguishes a synced document from an
/// operator's own.
fn derived(word: &str, node_id: u16) -> Uid {
    Uid::derived(word, node_id)
}

fn synced<S: Spec>(slot: &Slot<S>) -> Option<&Document<S>> {
    slot.as_ref()
        .ok()
        .map(|stored| &*stored.document)
        .filter(|document| document.metadata.uid.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::{MeshPeerSpec, NodeSpec, parse};
    use crate::model::ObjectName;
    use crate::store::Store;
    use crate::wire::reference::decode_mesh;

    #[test]
    fn broken_mesh_peer_is_removed_by_complete_lists_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spec =
            json!({"nodeId": 2, "publicKey": "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg="});
        let spec: MeshPeerSpec = serde_json::from_value(spec).unwrap();
        let document = Document::new(
            ObjectName::sanitised("hk1"),
            Some(derived("mesh", 2)),
            1,
            spec,
        );
        store.write_document(&document).unwrap();
        std::fs::write(dir.path().join("mesh/hk1.yaml"), "").unwrap();
        let snapshot = store.load().unwrap();
        let plan = |complete| {
            let listing: Listing<PeerItem<MeshPeerSpec>> = Listing {
                items: Vec::new(),
                rejected: Vec::new(),
                complete,
            };
            plan_peers(&listing, &snapshot.mesh, &snapshot)
        };
        assert_eq!(
            (plan(true), plan(false)),
            (vec![Change::Remove(ObjectName::sanitised("hk1"))], vec![])
        );
    }

    #[test]
    fn peer_without_a_key_changes_no_document() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spec =
            json!({"nodeId": 2, "publicKey": "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg="});
        let spec: MeshPeerSpec = serde_json::from_value(spec).unwrap();
        let name = ObjectName::sanitised("hk1");
        let document = Document::new(name, Some(derived("mesh", 2)), 1, spec);
        store.write_document(&document).unwrap();
        let snapshot = store.load().unwrap();
        let body = json!({"peers": [{"nodeId": 2, "name": "hk1"}, {"nodeId": 3, "name": "de1"}]});
        let listing = decode_mesh(body.to_string().as_bytes()).unwrap();
        assert_eq!(plan_peers(&listing, &snapshot.mesh, &snapshot), vec![]);
    }

    #[test]
    fn a_node_that_is_no_document_is_left_alone() {
        let spec: NodeSpec = serde_json::from_value(json!({"id": 1, "asn": 1})).unwrap();
        let nothing = Snapshot::default();
        assert!(plan_single(spec.clone(), None, &nothing).is_some());
        let broken: Slot<NodeSpec> = Err(parse::<NodeSpec>("spec: {").unwrap_err());
        assert!(plan_single(spec, Some(&broken), &nothing).is_none());
    }
}
