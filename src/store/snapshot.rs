//! Result of a listing of the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::document::{
    BgpSessionSpec, Document, DocumentError, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec,
    Metadata, NodeSpec, OverrideSpec, RoutingPolicySpec, Spec,
};
use crate::model::{InterfaceName, ObjectName, Uid};

use super::cache::{Slot, Stored};
use super::inplace::Edit;
use super::place::folder;
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
    /// The applied records.
    pub applied: BTreeMap<(Kind, ObjectName), Arc<Stored<AppliedDocument>>>,
    /// Synced documents that were edited or deleted manually; see [`super::Store::absorb`].
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

/// The last version of the sync of a document whose file is invalid now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenDocument {
    /// The identity of the object.
    pub uid: Uid,
    /// Its specification.
    pub spec: Value,
}

impl BrokenDocument {
    pub(super) fn of<S: Spec>(synced: &Document<S>) -> Option<Self> {
        let spec = serde_json::to_value(&synced.spec).ok()?;
        Some(Self {
            uid: synced.metadata.uid.clone()?,
            spec,
        })
    }
}

/// A valid document of any kind, with the attributes of its file.
pub trait AnyDocument {
    /// Returns the object's metadata.
    fn metadata(&self) -> &Metadata;
    /// Returns the specification.
    fn spec(&self) -> Value;
    /// Returns the numeric user ID of the file's owner.
    fn owner(&self) -> u32;
}

impl<S: Spec> AnyDocument for Stored<Document<S>> {
    fn metadata(&self) -> &Metadata {
        &self.document.metadata
    }

    fn spec(&self) -> Value {
        serde_json::to_value(&self.document.spec).unwrap_or_default()
    }

    fn owner(&self) -> u32 {
        self.owner
    }
}

/// An existing document of any kind: valid, or the reason why it is invalid.
pub type AnySlot<'a> = Result<&'a dyn AnyDocument, &'a DocumentError>;

impl Snapshot {
    /// Returns the interfaces in applied records, each with its object.
    pub fn applied_links(&self) -> BTreeSet<(InterfaceName, Uid)> {
        let records = self.applied.values().map(|stored| &stored.document);
        let links = records.filter_map(|record| {
            let uid = record.metadata.uid.clone()?;
            Some((record.applied.interfaces.iter().cloned(), uid))
        });
        links
            .flat_map(|(interfaces, uid)| interfaces.map(move |name| (name, uid.clone())))
            .collect()
    }

    /// Returns whether an applied record names the agent's table in nftables.
    pub fn applied_firewall(&self) -> bool {
        let mut records = self.applied.values().map(|stored| &stored.document);
        records.any(|record| record.applied.firewall.is_some())
    }

    /// Returns whether an applied record proves that this directory has configured BIRD before. The claims of an object
    /// that is not in effect yet prove nothing, nor do the records of tunnels, which need no BIRD.
    pub fn applied_in_bird(&self) -> bool {
        const IN_BIRD: [Kind; 3] = [Kind::BgpSession, Kind::IbgpPeer, Kind::Node];
        let mut records = self.applied.values().map(|stored| &stored.document);
        records.any(|record| IN_BIRD.contains(&record.kind) && record.applied.spec.is_some())
    }

    /// Returns every document of a kind.
    fn of_kind(&self, kind: Kind) -> Vec<(Place, AnySlot<'_>)> {
        match kind {
            Kind::Node => one(self.node.as_ref()),
            Kind::RoutingPolicy => one(self.policy.as_ref()),
            Kind::Maintenance => one(self.maintenance.as_ref()),
            Kind::BgpSession => many(&self.sessions),
            Kind::MeshPeer => many(&self.mesh),
            Kind::IbgpPeer => many(&self.ibgp),
            Kind::Override => Vec::new(),
        }
    }

    /// Returns whether a document exists, valid or not.
    pub fn has(&self, kind: Kind, name: &ObjectName) -> bool {
        match kind {
            Kind::Node => self.node.is_some(),
            Kind::RoutingPolicy => self.policy.is_some(),
            Kind::Maintenance => self.maintenance.is_some(),
            Kind::BgpSession => self.sessions.contains_key(name),
            Kind::MeshPeer => self.mesh.contains_key(name),
            Kind::IbgpPeer => self.ibgp.contains_key(name),
            Kind::Override => false,
        }
    }

    /// Removes valid documents of the kinds with many documents, unless `stays`.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(Place, &Metadata) -> bool) {
        for kind in Kind::ALL {
            match kind {
                Kind::BgpSession => retain(&mut self.sessions, &mut stays),
                Kind::MeshPeer => retain(&mut self.mesh, &mut stays),
                Kind::IbgpPeer => retain(&mut self.ibgp, &mut stays),
                Kind::Node | Kind::RoutingPolicy | Kind::Maintenance | Kind::Override => {}
            }
        }
    }

    /// Returns every document except overrides, in the order of their kinds.
    pub fn documents(&self) -> impl Iterator<Item = (Place, AnySlot<'_>)> {
        Kind::ALL.into_iter().flat_map(|kind| self.of_kind(kind))
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
        documents.chain(overrides).chain(applied).collect()
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

fn one<S: Spec>(slot: Option<&Slot<S>>) -> Vec<(Place, AnySlot<'_>)> {
    let place = Place::single(Area::Documents, S::KIND);
    slot.map(|slot| (place, any(slot))).into_iter().collect()
}

fn many<S: Spec>(slots: &BTreeMap<ObjectName, Slot<S>>) -> Vec<(Place, AnySlot<'_>)> {
    let slots = slots.iter();
    slots
        .map(|(name, slot)| (Place::document(S::KIND, name), any(slot)))
        .collect()
}

fn any<S: Spec>(slot: &Slot<S>) -> AnySlot<'_> {
    let stored = slot.as_ref()?;
    Ok(&**stored)
}

fn retain<S: Spec>(
    slots: &mut BTreeMap<ObjectName, Slot<S>>,
    stays: &mut impl FnMut(Place, &Metadata) -> bool,
) {
    slots.retain(|name, slot| {
        let Ok(stored) = slot else { return true };
        stays(Place::document(S::KIND, name), &stored.document.metadata)
    });
}
