use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::{Change, updated};
use crate::document::{self, Document, Kind, PeerSpec, Scalars, Spec};
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
        let items = listing.items.iter().map(|item| item.spec.node_id());
        let rejected = listing.rejected.iter().filter_map(|item| item.node_id);
        let mut names = Self {
            listing,
            documents,
            snapshot,
            listed: items.chain(rejected).sorted_set(),
            by_id: BTreeMap::new(),
            renumbered: BTreeSet::new(),
        };
        let of_kind = |(kind, name): &'a (Kind, ObjectName)| (*kind == S::KIND).then_some(name);
        let records = snapshot.applied.keys().filter_map(of_kind);
        let left = records.filter(|name| !documents.contains_key(*name));
        let known = left.chain(documents.keys());
        let ids = known.filter_map(|name| Some((names.peer(name)?.node_id(), name)));
        names.by_id = ids.sorted_map();
        names
    }

    /// Returns the peer of the Control Plane that the router has under this name: that of a document, or one that is
    /// applied still, for instance because its removal is held.
    fn peer(&self, name: &ObjectName) -> Option<Cow<'a, S>> {
        let key = (S::KIND, name.clone());
        let owned = match self.documents.get(name) {
            Some(Ok(stored)) => {
                let document = Some(&stored.document).filter(|it| it.metadata.uid.is_some())?;
                return Some(Cow::Borrowed(&document.spec));
            }
            Some(Err(_)) => {
                let broken = self.snapshot.broken.get(&key)?;
                document::read(&broken.spec, Scalars::Typed).ok()?
            }
            None => {
                let record = &self.snapshot.applied.get(&key)?.document;
                record.metadata.uid.as_ref().filter(|uid| !uid.is_local())?;
                record.applied.spec.as_ref()?.read().ok()?
            }
        };
        Some(Cow::Owned(owned))
    }

    /// Returns the name of a peer's document: that of its node id, else the listed one if no other peer has it. `None`
    /// if the list does not say whether it is the peer that has this name.
    fn of(&mut self, item: &PeerItem<S>) -> Option<ObjectName> {
        if let Some(name) = self.by_id.get(&item.spec.node_id()) {
            return Some((*name).clone());
        }
        let Some(other) = self.peer(&item.name) else {
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
        // A broken document is removed, and written again by the next list.
        if self.documents.get(&item.name).is_none_or(Result::is_ok) {
            self.renumbered.insert(item.name.clone());
        }
        Some(item.name.clone())
    }

    /// Returns the documents of peers that are not listed.
    fn gone(&self) -> impl Iterator<Item = &'a ObjectName> {
        self.documents.keys().filter(|name| {
            let is_gone = |peer: Cow<'_, S>| !self.listed.contains(&peer.node_id());
            !self.renumbered.contains(*name) && self.peer(name).is_some_and(is_gone)
        })
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
    use crate::document::{MeshPeerSpec, Metadata, NodeSpec, PackedSpec, parse};
    use crate::model::ObjectName;
    use crate::store::{AppliedBody, AppliedDocument, Store};
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

    /// A node id, a name and the index of a key.
    type Peer = (u16, &'static str, usize);

    fn spec((node_id, _, key): Peer) -> MeshPeerSpec {
        let spec = json!({"nodeId": node_id, "publicKey": KEYS[key]});
        serde_json::from_value(spec).unwrap()
    }

    /// Writes the Control Plane's document of a peer.
    fn write(store: &Store, peer: Peer) {
        let (name, uid) = (ObjectName::sanitised(peer.1), derived("mesh", peer.0));
        let document = Document::new(name, Some(uid), 1, spec(peer));
        store.write_document(&document).unwrap();
    }

    /// Writes the applied record of a peer.
    fn record(store: &Store, peer: Peer, uid: Uid) {
        let metadata = Metadata {
            name: ObjectName::sanitised(peer.1),
            uid: Some(uid),
            generation: 1,
        };
        let applied = AppliedBody {
            spec: PackedSpec::of(&spec(peer)).ok(),
            ..AppliedBody::default()
        };
        let record = AppliedDocument::new(Kind::MeshPeer, metadata, applied);
        store.write_applied(&record).unwrap();
    }

    /// Returns the plan for a list of peers: the written names with their node ids, and the removed names.
    fn plan(store: &Store, peers: &[Peer], complete: bool) -> (Vec<(String, u16)>, Vec<String>) {
        let snapshot = store.load().unwrap();
        let item = |peer: &Peer| PeerItem {
            name: ObjectName::sanitised(peer.1),
            spec: spec(*peer),
        };
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

    /// As [`plan`], where the document `hk1` has node id 2 and the first key.
    fn planned(peers: &[Peer], complete: bool) -> (Vec<(String, u16)>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        write(&store, (2, "hk1", 0));
        plan(&store, peers, complete)
    }

    #[test]
    fn record_without_a_document_keeps_the_name_of_its_peer() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        record(&store, (2, "hk1", 0), derived("mesh", 2));
        let own = Uid::local("mesh", &ObjectName::sanitised("friend"));
        record(&store, (7, "friend", 1), own);
        let new = |name: &str, id| (vec![(name.to_owned(), id)], Vec::new());
        assert_eq!(plan(&store, &[(2, "hk2", 0)], true), new("hk1", 2));
        assert_eq!(plan(&store, &[(5, "hk1", 1)], true), new("hk1-5", 5));
        assert_eq!(
            plan(&store, &[(7, "hk7", 1)], true),
            new("hk7", 7),
            "the operator's object stays the operator's"
        );
        write(&store, (2, "aa1", 0));
        assert_eq!(
            plan(&store, &[(2, "hk1", 0)], true),
            (Vec::new(), Vec::new()),
            "a document comes before a record"
        );
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
