use std::borrow::Cow;
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
    let mut names = Names::new(listing, documents, snapshot);
    let mut changes = Vec::new();
    for item in &listing.items {
        let Some(name) = names.of(item) else {
            continue;
        };
        let slot = documents.get(&name);
        if slot.is_some_and(|slot| synced(slot).is_none()) {
            // The operator's own document of this name, or a broken one: it stays unchanged.
            continue;
        }
        let applied = snapshot.applied.get(&(S::KIND, name.clone()));
        let applied = applied.map_or(0, |stored| stored.document.metadata.generation);
        // The uid marks the link, so the folder's name cannot change any more.
        let uid = derived(S::KIND.folder(), item.spec.node_id());
        let existing = slot.and_then(synced);
        let document = updated(name, uid, item.spec.clone(), existing, applied, snapshot);
        changes.extend(document.map(|document| Change::Write(Box::new(document))));
    }
    if listing.complete {
        changes.extend(names.gone().map(|name| Change::Remove(name.clone())));
    }
    changes
}

/// The names of peers by their node ids, and names for new ones.
struct Names<'a, S: PeerSpec> {
    listing: &'a Listing<PeerItem<S>>,
    documents: &'a BTreeMap<ObjectName, Slot<S>>,
    snapshot: &'a Snapshot,
    /// The node ids of the list, those of rejected items among them.
    listed: BTreeSet<u16>,
    /// The peers of the Control Plane that the router has: those with a document, and those that are applied still, for
    /// instance because their removal is held.
    known: BTreeMap<&'a ObjectName, Cow<'a, S>>,
    by_id: BTreeMap<u16, &'a ObjectName>,
    /// The documents that get another node id.
    renumbered: BTreeSet<ObjectName>,
}

impl<'a, S: PeerSpec> Names<'a, S> {
    fn new(
        listing: &'a Listing<PeerItem<S>>,
        documents: &'a BTreeMap<ObjectName, Slot<S>>,
        snapshot: &'a Snapshot,
    ) -> Self {
        let of_documents = documents
            .iter()
            .filter_map(|(name, slot)| Some((name, Cow::Borrowed(&synced(slot)?.spec))));
        let of_records = snapshot
            .applied
            .iter()
            .filter_map(|((kind, name), stored)| {
                let is_left = *kind == S::KIND && !documents.contains_key(name);
                let document = Some(&stored.document).filter(|_| is_left)?;
                document.metadata.uid.as_ref()?;
                let spec = document.applied.spec.as_ref()?.read().ok()?;
                Some((name, Cow::Owned(spec)))
            });
        let of_broken = super::broken::<S>(snapshot).filter_map(|(name, document)| {
            let spec = document::read::<S>(&document.spec, Scalars::Typed).ok()?;
            Some((name, Cow::Owned(spec)))
        });
        let known = of_records.chain(of_documents).chain(of_broken);
        let known: BTreeMap<_, Cow<'a, S>> = known.sorted_map();
        let items = listing.items.iter().map(|item| item.spec.node_id());
        let rejected = listing.rejected.iter().filter_map(|item| item.node_id);
        Self {
            listing,
            documents,
            snapshot,
            listed: items.chain(rejected).sorted_set(),
            by_id: known
                .iter()
                .map(|(name, spec)| (spec.node_id(), *name))
                .sorted_map(),
            known,
            renumbered: BTreeSet::new(),
        }
    }

    /// Returns the name of a peer's document: that of its node id, else the listed one if no other peer has it. `None`
    /// if the list does not say whether it is the peer that has this name.
    fn of(&mut self, item: &PeerItem<S>) -> Option<ObjectName> {
        if let Some(name) = self.by_id.get(&item.spec.node_id()) {
            return Some((*name).clone());
        }
        let Some(other) = self.known.get(&item.name) else {
            return Some(item.name.clone());
        };
        let is_same = other.is_same_peer(&item.spec) && !self.listed.contains(&other.node_id());
        if !is_same {
            return Some(self.free(item));
        }
        // An incomplete list may have the former node id in an item that cannot be read.
        if !self.listing.complete {
            return None;
        }
        self.renumbered.insert(item.name.clone());
        Some(item.name.clone())
    }

    /// Returns the documents of peers that are not listed.
    fn gone(&self) -> impl Iterator<Item = &'a ObjectName> {
        let is_gone = |(name, spec): &(&&ObjectName, &Cow<'_, S>)| {
            self.documents.contains_key(**name)
                && !self.listed.contains(&spec.node_id())
                && !self.renumbered.contains(**name)
        };
        self.known.iter().filter(is_gone).map(|(name, _)| *name)
    }

    /// Returns a name that no other peer has.
    fn free(&self, item: &PeerItem<S>) -> ObjectName {
        let node_id = item.spec.node_id();
        let named = ObjectName::numbered(item.name.as_str(), node_id.into());
        let further = (2..).map(|count| ObjectName::numbered(named.as_str(), count));
        let mut names = std::iter::once(named.clone()).chain(further);
        let is_free = |name: &ObjectName| {
            let is_listed = self.listing.items.iter().any(|item| item.name == *name);
            let is_applied = self.snapshot.applied.contains_key(&(S::KIND, name.clone()));
            !is_listed && !is_applied && !self.documents.contains_key(name)
        };
        names.find(is_free).unwrap_or(named)
    }
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

    const KEYS: [&str; 2] = [
        "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg=",
        "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    ];

    /// Returns the plan for a list of node ids, names and keys, where the document `hk1` has node id 2 and the first key:
    /// the written names with their node ids, and the removed names.
    fn planned(peers: &[(u16, &str, usize)], complete: bool) -> (Vec<(String, u16)>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let item = |(node_id, name, key): &(u16, &str, usize)| {
            let spec = json!({"nodeId": node_id, "publicKey": KEYS[*key]});
            PeerItem {
                name: ObjectName::sanitised(name),
                spec: serde_json::from_value::<MeshPeerSpec>(spec).unwrap(),
            }
        };
        let PeerItem { name, spec } = item(&(2, "hk1", 0));
        let document = Document::new(name, Some(derived("mesh", 2)), 1, spec);
        store.write_document(&document).unwrap();
        let snapshot = store.load().unwrap();
        let listing = Listing {
            items: peers.iter().map(item).collect(),
            rejected: Vec::new(),
            complete,
        };
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for change in plan_peers(&listing, &snapshot.mesh, &snapshot) {
            match change {
                Change::Write(it) => written.push((it.metadata.name.to_string(), it.spec.node_id)),
                Change::Remove(name) => removed.push(name.to_string()),
                Change::Displace(_) => unreachable!("no document is broken"),
            }
        }
        (written, removed)
    }

    #[test]
    fn renumbered_peer_keeps_its_document() {
        let peers = [(12, "hk1", 0)];
        let kept = (vec![("hk1".to_owned(), 12)], Vec::new());
        assert_eq!(planned(&peers, true), kept);
        assert_eq!(planned(&peers, false), (Vec::new(), Vec::new()));
    }

    #[test]
    fn name_of_another_peer_is_not_taken_over() {
        let new = |name: &str, id| vec![(name.to_owned(), id)];
        // Node 2 was renamed, and keeps its document; a new node has the name that it had.
        let renamed = [(2, "hk-old", 0), (5, "hk1", 1)];
        assert_eq!(planned(&renamed, true), (new("hk1-5", 5), Vec::new()));
        assert_eq!(planned(&renamed, false), (new("hk1-5", 5), Vec::new()));
        // Another router took its place: the guard counts the removal.
        let replaced = [(12, "hk1", 1)];
        let removed = vec!["hk1".to_owned()];
        assert_eq!(planned(&replaced, true), (new("hk1-12", 12), removed));
        let taken = [(2, "hk1", 0), (5, "hk1", 1), (6, "hk1-5", 1)];
        let expected = vec![("hk1-5-2".to_owned(), 5), ("hk1-5".to_owned(), 6)];
        assert_eq!(planned(&taken, true), (expected, Vec::new()));
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
