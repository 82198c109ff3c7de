//! What a listing of the state directory finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::document::{
    BgpSessionSpec, Document, DocumentError, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec,
    NodeSpec, OverrideSpec, RoutingPolicySpec, Spec,
};
use crate::model::{InterfaceName, ObjectName, Uid};

use super::cache::{Slot, Stored};
use super::inplace::Edit;
use super::place::folder;
use super::{AppliedDocument, Area, Place};

/// Everything in the state directory, as it was at one moment.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// Who this router is.
    pub node: Option<Slot<NodeSpec>>,
    /// Filters, limits, RPKI and classes.
    pub policy: Option<Slot<RoutingPolicySpec>>,
    /// Drained or not.
    pub maintenance: Option<Slot<MaintenanceSpec>>,
    /// The external peerings. A file that is no valid document is here as its error.
    pub sessions: BTreeMap<ObjectName, Slot<BgpSessionSpec>>,
    /// The backbone tunnels.
    pub mesh: BTreeMap<ObjectName, Slot<MeshPeerSpec>>,
    /// The internal BGP neighbours.
    pub ibgp: BTreeMap<ObjectName, Slot<IbgpPeerSpec>>,
    /// The operator's exceptions, by the object they are about.
    pub overrides: BTreeMap<(Kind, ObjectName), Slot<OverrideSpec>>,
    /// What is in force.
    pub applied: BTreeMap<(Kind, ObjectName), Arc<Stored<AppliedDocument>>>,
    /// Synced documents that were edited or deleted by hand; see [`super::Store::absorb`].
    pub edits: Vec<Edit>,
    /// The sync's documents that are none any more, as it last wrote them; in their maps as errors too.
    pub broken: BTreeMap<(Kind, ObjectName), BrokenDocument>,
    /// Synced documents without a copy of what the sync last wrote, as after a restore from the history: an edit
    /// of them by hand could not be told from what the sync wrote.
    pub uncopied: BTreeSet<Place>,
    /// Files of objects that the Control Plane has removed, which Git brought back: not listed, and to be removed.
    pub revived: Vec<Place>,
    /// Copies that a tool removed, with their texts.
    pub(super) lost_copies: Vec<(PathBuf, Arc<str>)>,
    /// All that is wrong, with its file; what is in a map as an error is here too.
    pub problems: Vec<DocumentError>,
    /// Whether absence proves anything. While `false`, a document or override that is not listed may
    /// still be wanted: a folder could not be read, or vanished, or the directory is new.
    pub complete: bool,
    /// Whether a document of the operator that is not listed was removed by the operator. While `false`, it may have
    /// been lost, and a list of the Control Plane says nothing about it.
    pub operators_complete: bool,
    /// Whether all changes are in it. While `false`, a file is being written, and what was in it before
    /// is listed; look again soon.
    pub settled: bool,
    /// Whether an override that is not listed is none.
    pub overrides_complete: bool,
    /// Where HEAD of the repository is, while it is not at the history's branch: this is the last listing then, and
    /// the tree is not read.
    pub moved: Option<String>,
}

/// What the sync last wrote where something stands by now that is no document.
#[derive(Debug, Clone)]
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

impl Snapshot {
    /// The interfaces that applied records name, each with its object.
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

    /// Whether an applied record names our table in nftables.
    pub fn applied_firewall(&self) -> bool {
        let mut records = self.applied.values().map(|stored| &stored.document);
        records.any(|record| record.applied.firewall.is_some())
    }

    /// The folders that something was listed in.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let documents = [
            (Kind::BgpSession, self.sessions.is_empty()),
            (Kind::MeshPeer, self.mesh.is_empty()),
            (Kind::IbgpPeer, self.ibgp.is_empty()),
        ];
        let documents = documents.into_iter().filter(|(_, is_empty)| !is_empty);
        let documents = documents.map(|(kind, _)| folder(Area::Documents, kind));
        let overrides = self.overrides.keys();
        let overrides = overrides.map(|(kind, _)| folder(Area::Overrides, *kind));
        let applied = self.applied.keys();
        let applied = applied.map(|(kind, _)| folder(Area::Applied, *kind));
        documents.chain(overrides).chain(applied).collect()
    }

    /// Whether an object of the operator is applied and has no document.
    pub(super) fn lacks_operators_documents(&self) -> bool {
        self.applied.iter().any(|((kind, name), stored)| {
            let uid = stored.document.metadata.uid.as_ref();
            let documented = match kind {
                Kind::BgpSession => self.sessions.contains_key(name),
                Kind::MeshPeer => self.mesh.contains_key(name),
                Kind::IbgpPeer => self.ibgp.contains_key(name),
                _ => true,
            };
            uid.is_some_and(Uid::is_local) && !documented
        })
    }
}
