//! Result of a listing of the state directory. Everything that the store keeps for each kind is in this file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::{
    BgpSessionSpec, Document, DocumentError, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec,
    Metadata, NodeSpec, OverrideSpec, RoutingPolicySpec, Spec,
};
use crate::model::{InterfaceName, ObjectName, Uid};
use crate::util::sorted::Sorted as _;

use super::any::{AnyDocuments, AnySlot, any};
use super::cache::{Cache, Outcome, Slot, Stored};
use super::changed::ChangedFiles;
use super::debounce::Debounce;
use super::list::{AnyPair, Listing, Pair};
use super::manual_edit::Edit;
use super::names::Folders;
use super::place::folder;
use super::read::Text;
use super::synced::BrokenDocument;
use super::{AppliedDocument, Area, Place};

/// The content of the state directory at one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The identity of this router.
    pub node: Option<Slot<NodeSpec>>,
    /// Filters, limits, RPKI and classes.
    pub policy: Option<Slot<RoutingPolicySpec>>,
    /// The maintenance state: drained or not.
    pub maintenance: Option<Slot<MaintenanceSpec>>,
    /// The external peerings. An invalid file is an error here.
    pub sessions: BTreeMap<ObjectName, Slot<BgpSessionSpec>>,
    /// The backbone tunnels.
    pub mesh: BTreeMap<ObjectName, Slot<MeshPeerSpec>>,
    /// The internal BGP neighbours.
    pub ibgp: BTreeMap<ObjectName, Slot<IbgpPeerSpec>>,
    /// The operator's overrides, by target.
    pub overrides: BTreeMap<(Kind, ObjectName), Slot<OverrideSpec>>,
    pub applied: BTreeMap<(Kind, ObjectName), Arc<Stored<AppliedDocument>>>,
    /// Synced documents that were edited or deleted manually; see [`super::Store::import_edit`].
    pub edits: Vec<Edit>,
    /// The last versions of the sync's documents that are invalid now; their errors are in the maps too.
    pub broken: BTreeMap<(Kind, ObjectName), BrokenDocument>,
    /// Synced documents without a copy of the sync's last version, as after a restore from the
    /// history: a manual edit of them could not be distinguished from a write of the sync.
    pub uncopied: BTreeSet<Place>,
    /// Files restored by Git whose objects the Control Plane has removed: not listed, and due for removal.
    pub revived: Vec<Place>,
    /// Copies that a tool removed, with their texts.
    pub(super) lost_copies: Vec<(PathBuf, Arc<str>)>,
    /// All problems with their files; errors in the maps are here too.
    pub problems: Vec<DocumentError>,
    /// Whether absence proves a removal. While `false`, a document or override that is not listed
    /// may still be desired: a folder could not be read, or vanished, or the directory is new.
    pub complete: bool,
    /// Whether the absence of an operator's document proves that the operator removed it. While
    /// `false`, it may have been lost, and a list of the Control Plane says nothing about it.
    pub operators_complete: bool,
    /// Whether all changes are included. While `false`, a file is being written, and its previous
    /// content is listed; list again soon.
    pub settled: bool,
    /// Whether an override that is not listed does not exist.
    pub overrides_complete: bool,
    /// Position of the repository's HEAD while it is not at the history's branch: this is the last
    /// listing then, and the tree is not read.
    pub moved: Option<String>,
}

/// The parsed documents of all kinds.
#[derive(Debug, Default)]
pub(super) struct Caches {
    node: Pair<NodeSpec>,
    policy: Pair<RoutingPolicySpec>,
    maintenance: Pair<MaintenanceSpec>,
    pub(super) sessions: Pair<BgpSessionSpec>,
    pub(super) mesh: Pair<MeshPeerSpec>,
    pub(super) ibgp: Pair<IbgpPeerSpec>,
    overrides: Cache<Document<OverrideSpec>>,
    pub(super) applied: Cache<AppliedDocument>,
    folders: Folders,
}

/// Borrows the field of a kind; overrides are listed apart.
macro_rules! of_kind {
    ($kind:expr, & $($all:ident)+) => {
        Some(match $kind {
            Kind::Node => &$($all)+.node,
            Kind::RoutingPolicy => &$($all)+.policy,
            Kind::Maintenance => &$($all)+.maintenance,
            Kind::BgpSession => &$($all)+.sessions,
            Kind::MeshPeer => &$($all)+.mesh,
            Kind::IbgpPeer => &$($all)+.ibgp,
            Kind::Override => return None,
        })
    };
}

impl Caches {
    fn of_kind(&mut self, kind: Kind) -> Option<&mut dyn AnyPair> {
        of_kind!(kind, &mut self)
    }

    /// Number of parsed texts so far.
    pub(super) fn parsed(&mut self) -> u64 {
        let mut parsed = self.overrides.parsed + self.applied.parsed;
        for kind in Kind::ALL {
            parsed += self.of_kind(kind).map_or(0, |pair| pair.parsed());
        }
        parsed
    }

    /// Forgets the copy of a document that the agent removes.
    pub(super) fn forget_copy(&mut self, kind: Kind, path: &Path) {
        if let Some(pair) = self.of_kind(kind) {
            pair.forget_copy(path);
        }
    }

    /// Returns whether a document has a `uid`; `None` if it is missing or invalid.
    pub(super) fn has_uid(&mut self, path: &Path, place: &Place) -> Option<bool> {
        self.of_kind(place.kind)?.has_uid(path, place)
    }

    /// Returns the applied record of one object.
    pub(super) fn in_effect(
        &mut self,
        path: &Path,
        place: &Place,
    ) -> Option<Outcome<AppliedDocument>> {
        self.applied.look(path, place)
    }

    /// Keeps an applied record that was written to its file.
    pub(super) fn wrote_applied(
        &mut self,
        path: &Path,
        place: &Place,
        record: AppliedDocument,
        text: &str,
    ) -> Option<Arc<Stored<AppliedDocument>>> {
        self.applied.wrote(path, place, record, text)
    }

    /// Keeps a document that was written to its file.
    pub(super) fn wrote<S: Spec>(
        &mut self,
        path: &Path,
        place: &Place,
        document: &Document<S>,
        text: &str,
    ) {
        if let Some(pair) = self.of_kind(place.kind) {
            pair.wrote(path, place, document, text);
        }
    }

    /// Lists everything. A file that did not change is as it was found before.
    pub(super) fn load(
        &mut self,
        dir: &Path,
        missing_is_empty: bool,
        patience: &Debounce,
        changed: &ChangedFiles,
    ) -> Snapshot {
        let known = (&mut self.folders, changed);
        let mut listing = Listing::new(dir, missing_is_empty, patience, known);
        let (overrides, overrides_complete) =
            listing.apart(|listing| listing.tree(Area::Overrides, &mut self.overrides));
        listing.strays();
        let node = listing.document(&mut self.node);
        let policy = listing.document(&mut self.policy);
        let maintenance = listing.document(&mut self.maintenance);
        let sessions = listing.documents(&mut self.sessions);
        let mesh = listing.documents(&mut self.mesh);
        let ibgp = listing.documents(&mut self.ibgp);
        let applied = listing.tree(Area::Applied, &mut self.applied).into_iter();
        let applied = applied.filter_map(|(key, slot)| Some((key, slot.ok()?)));
        Snapshot {
            node,
            policy,
            maintenance,
            sessions,
            mesh,
            ibgp,
            overrides,
            overrides_complete,
            applied: applied.sorted_map(),
            edits: listing.edits,
            broken: listing.broken,
            uncopied: listing.uncopied,
            lost_copies: listing.lost_copies,
            problems: listing.problems,
            complete: listing.complete,
            settled: listing.settled,
            revived: Vec::new(),
            operators_complete: false,
            moved: None,
        }
    }
}

impl Snapshot {
    /// Returns whether everything was listed and nothing in it waits: only a change makes another listing.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_whole = self.settled && self.operators_complete && self.moved.is_none();
        is_whole && self.problems.is_empty() && self.edits.is_empty() && self.revived.is_empty()
    }

    /// Returns the interfaces in applied records, each with its object.
    pub fn applied_links(&self) -> BTreeSet<(InterfaceName, Uid)> {
        let records = self.applied.values().map(|stored| &*stored.document);
        let links = records.filter_map(|record| {
            let uid = record.metadata.uid.clone()?;
            Some((record.applied.interfaces.iter().cloned(), uid))
        });
        links
            .flat_map(|(interfaces, uid)| interfaces.map(move |name| (name, uid.clone())))
            .sorted_set()
    }

    /// Returns whether an applied record names the agent's table in nftables.
    pub fn applied_firewall(&self) -> bool {
        let mut records = self.applied.values().map(|stored| &*stored.document);
        records.any(|record| record.applied.firewall.is_some())
    }

    /// Returns whether an applied record proves that this directory has configured BIRD before. The claims of an object
    /// that is not in effect yet prove nothing, nor do the records of tunnels, which need no BIRD.
    pub fn applied_in_bird(&self) -> bool {
        let mut records = self.applied.values().map(|stored| &*stored.document);
        records.any(|record| record.kind.has_protocols() && record.applied.spec.is_some())
    }

    /// Returns the documents of a kind; overrides are listed apart.
    fn of_kind(&self, kind: Kind) -> Option<&dyn AnyDocuments> {
        of_kind!(kind, &self)
    }

    fn of_kind_mut(&mut self, kind: Kind) -> Option<&mut dyn AnyDocuments> {
        of_kind!(kind, &mut self)
    }

    /// Returns whether a document exists, valid or not.
    pub fn has(&self, kind: Kind, name: &ObjectName) -> bool {
        self.of_kind(kind)
            .is_some_and(|all| all.get(name).is_some())
    }

    /// Returns whether a place has a valid document of the Control Plane.
    pub(super) fn is_synced(&self, place: &Place) -> bool {
        let document = match place.area {
            Area::Documents => self
                .of_kind(place.kind)
                .and_then(|all| all.get(&place.name)),
            Area::Overrides | Area::Applied | Area::Status => None,
        };
        document.is_some_and(|slot| slot.is_ok_and(|it| it.metadata().uid.is_some()))
    }

    /// Returns whether what is in a place now was there when it was listed: this content, or no file. Of no applied record
    /// and no invalid file.
    pub(super) fn had(&self, place: &Place, now: Option<&Text>) -> bool {
        let slot = match place.area {
            Area::Documents => self
                .of_kind(place.kind)
                .and_then(|all| all.get(&place.name)),
            Area::Overrides => self
                .overrides
                .get(&(place.kind, place.name.clone()))
                .map(any),
            Area::Applied | Area::Status => return false,
        };
        match (slot, now) {
            (Some(Ok(listed)), Some(now)) => {
                (*listed.hash(), listed.owner()) == (now.hash, now.owner)
            }
            (None, None) => true,
            _ => false,
        }
    }

    /// Adds or replaces a document; `None` when its text is invalid.
    pub(super) fn put(&mut self, place: &Place, path: PathBuf, text: Text) -> Option<()> {
        self.of_kind_mut(place.kind)?.put(place, path, text)
    }

    /// Removes valid documents of the kinds with many documents, unless `stays`.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(Place, &Metadata) -> bool) {
        for kind in Kind::many() {
            if let Some(all) = self.of_kind_mut(kind) {
                all.retain(&mut stays);
            }
        }
    }

    /// Returns every document except overrides, in the order of their kinds.
    pub fn documents(&self) -> impl Iterator<Item = (Place, AnySlot<'_>)> {
        let kinds = Kind::ALL.into_iter();
        kinds
            .filter_map(|kind| self.of_kind(kind))
            .flat_map(AnyDocuments::all)
    }

    /// Returns the folders of the listed documents.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let places = self.documents().map(|(place, _)| place);
        let documents = places
            .filter(|place| !place.kind.is_single())
            .map(|place| folder(place.area, place.kind));
        let overrides = self.overrides.keys();
        let overrides = overrides.map(|(kind, _)| folder(Area::Overrides, *kind));
        let applied = self.applied.keys();
        let applied = applied.map(|(kind, _)| folder(Area::Applied, *kind));
        documents.chain(overrides).chain(applied).sorted_set()
    }

    /// Returns whether an object of the operator is applied and has no document.
    pub(super) fn lacks_operators_documents(&self) -> bool {
        self.applied.iter().any(|((kind, name), stored)| {
            let uid = stored.document.metadata.uid.as_ref();
            let documented = kind.is_single() || self.has(*kind, name);
            uid.is_some_and(Uid::is_local) && !documented
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn owner_of_a_listed_document_costs_no_parse() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: ObjectName = "a".parse().unwrap();
        let place = Place::document(Kind::MeshPeer, &name);
        assert_eq!(store.has_uid(&place), None);
        let spec = serde_json::json!({"nodeId": 2, "publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="});
        let spec: MeshPeerSpec = serde_json::from_value(spec).unwrap();
        let document = Document::new(name, Some("uid".parse().unwrap()), 1, spec);
        store.write_document(&document).unwrap();
        store.load().unwrap();
        let parsed = store.parsed();
        assert_eq!(store.has_uid(&place), Some(true));
        assert_eq!(store.parsed(), parsed);
        std::fs::write(store.path(&place), "no: document").unwrap();
        assert_eq!(store.has_uid(&place), None);
    }

    #[test]
    fn listing_has_what_the_sync_wrote_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let name: ObjectName = "a".parse().unwrap();
        let place = Place::document(Kind::MeshPeer, &name);
        let write = |uid: Option<&str>, number| {
            let spec = serde_json::json!({"nodeId": number, "publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="});
            let spec: MeshPeerSpec = serde_json::from_value(spec).unwrap();
            let uid = uid.map(|uid| uid.parse().unwrap());
            let document = Document::new(name.clone(), uid, 1, spec);
            store.write_document(&document).unwrap();
            store.load().unwrap()
        };
        let before = write(Some("uid"), 2);
        assert!(store.is_listed(&place, &before));
        let after = write(Some("uid"), 3);
        assert!(!store.is_listed(&place, &before), "another content");
        assert!(store.is_listed(&place, &after));
        let text = std::fs::read_to_string(store.path(&place)).unwrap();
        std::fs::write(store.path(&place), text.replace("nodeId: 3", "nodeId: 4")).unwrap();
        assert!(!store.is_listed(&place, &store.load().unwrap()), "an edit");
    }
}
