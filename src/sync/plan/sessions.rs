use std::collections::{BTreeMap, BTreeSet};

use super::{Change, updated};
use crate::document::{self, BgpSessionSpec, Document, Kind, MeshPeerSpec};
use crate::model::{
    AdminState, Asn, InterfaceName, ObjectName, Port, PublicKey, Secret, TunnelType, Uid,
};
use crate::store::{AppliedDocument, Slot, Snapshot};
use crate::util::sorted::Sorted as _;
use crate::wire::{Listing, SessionItem, WireStatus};

/// The change of a session's document, and of its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionChange {
    /// The document's name.
    pub name: ObjectName,
    /// The document; `None` when it stays unchanged.
    pub document: Option<Change<BgpSessionSpec>>,
    /// Secrets by their files: the content to write, or `None` to remove the file.
    pub secrets: Vec<(String, Option<Secret<String>>)>,
    /// The former uuid of the same peering, if the Control Plane has given it another one.
    pub formerly: Option<Uid>,
}

/// First ports for tunnels without a configured port.
#[derive(Debug, Clone, Copy)]
pub struct PortBases {
    /// `wireguard.listenPortBase` of the configuration.
    pub sessions: u16,
    /// `mesh.listenPortBase` of the configuration; a peer's node id is added to it.
    pub mesh: u16,
}

/// Returns the changes to documents of external peerings. `is_gone` returns whether nothing of a session exists on this
/// router, which is reported then: an item that stays listed after its removal makes no document again.
pub fn plan_sessions(
    listing: &Listing<SessionItem>,
    snapshot: &Snapshot,
    bases: PortBases,
    is_gone: impl Fn(&Uid) -> bool,
) -> Vec<SessionChange> {
    let mut names = Names::new(snapshot);
    let mut ports = Ports {
        snapshot,
        listing,
        bases,
        taken: None,
    };
    let mut changes = Vec::new();
    let mut unlisted = Unlisted::new(listing, snapshot);
    for item in &listing.items {
        let known = names.of_uid(&item.uid);
        if known.is_none()
            && let Some((name, formerly)) = unlisted.take_same(item)
        {
            // An incomplete list may have the former uuid in an item that cannot be read.
            if listing.complete {
                let change = change(item, name, snapshot, &mut ports);
                changes.extend(change.map(|change| SessionChange {
                    formerly: Some(formerly),
                    ..change
                }));
            }
            continue;
        }
        let leaving = item.status == WireStatus::QueuedForDelete;
        if leaving && known.is_none() && is_gone(&item.uid) {
            continue;
        }
        let name = known.unwrap_or_else(|| names.choose(item));
        changes.extend(change(item, name, snapshot, &mut ports));
    }
    let renewed: BTreeSet<&ObjectName> = unlisted.taken.iter().sorted_set();
    let removals = removals(listing, snapshot).into_iter();
    changes.extend(removals.filter(|change| !renewed.contains(&change.name)));
    changes
}

/// Sessions whose uuid is not listed. A Control Plane that re-created its database lists the same peerings under
/// new uuids: they are the same objects, and none of them is removed or created.
struct Unlisted {
    sessions: Vec<(Peering, ObjectName, Uid)>,
    taken: Vec<ObjectName>,
}

/// The identity of a peering.
type Peering = (InterfaceName, Asn, Option<PublicKey>);

impl Unlisted {
    fn new(listing: &Listing<SessionItem>, snapshot: &Snapshot) -> Self {
        let rejected = listing
            .rejected
            .iter()
            .filter_map(|rejected| rejected.uid.as_ref());
        let listed: BTreeSet<&Uid> = listing
            .items
            .iter()
            .map(|item| &item.uid)
            .chain(rejected)
            .sorted_set();
        let documents = snapshot.sessions.iter().filter_map(|(name, slot)| {
            let document = synced(Some(slot))?;
            let uid = document.metadata.uid.clone()?;
            Some((peering(&document.spec)?, name.clone(), uid))
        });
        // An applied object without a document is held, or is about to be removed.
        let applied = snapshot
            .applied
            .iter()
            .filter_map(|((kind, name), stored)| {
                let is_left = *kind == Kind::BgpSession && !snapshot.sessions.contains_key(name);
                let uid = stored
                    .document
                    .metadata
                    .uid
                    .clone()
                    .filter(|uid| is_left && !uid.is_ours())?;
                Some((
                    peering(&spec_in_effect(Some(&*stored.document))?)?,
                    name.clone(),
                    uid,
                ))
            });
        let sessions = documents
            .chain(applied)
            .filter(|(_, _, uid)| !listed.contains(uid))
            .collect();
        Self {
            sessions,
            taken: Vec::new(),
        }
    }

    /// Returns the session that is the same peering as this item, with its former uuid.
    fn take_same(&mut self, item: &SessionItem) -> Option<(ObjectName, Uid)> {
        let wanted = peering(item.spec.as_ref()?)?;
        let index = self
            .sessions
            .iter()
            .position(|(peering, ..)| *peering == wanted)?;
        let (_, name, uid) = self.sessions.swap_remove(index);
        self.taken.push(name.clone());
        Some((name, uid))
    }
}

fn peering(spec: &BgpSessionSpec) -> Option<Peering> {
    let interface = match &spec.tunnel.interface {
        Some(interface) => interface.clone(),
        None => format!("wg_{}", spec.asn).parse().ok()?,
    };
    Some((interface, spec.asn, spec.tunnel.public_key))
}

fn change(
    item: &SessionItem,
    name: ObjectName,
    snapshot: &Snapshot,
    ports: &mut Ports<'_>,
) -> Option<SessionChange> {
    let slot = snapshot.sessions.get(&name);
    let existing = synced(slot);
    let broken = snapshot.broken.get(&(Kind::BgpSession, name.clone()));
    let down = item.status.admin_state() != AdminState::Enabled;
    if slot.is_some() && existing.is_none() && !(down && broken.is_some()) {
        // An invalid file, or the operator's own, stays unchanged, and its status reports the reason. The Control
        // Plane may still take the session down.
        return None;
    }
    let applied = snapshot
        .applied
        .get(&(Kind::BgpSession, name.clone()))
        .map(|stored| &*stored.document);
    let mut spec = item
        .spec
        .clone()
        .or_else(|| existing.map(|document| document.spec.clone()))
        .or_else(|| spec_in_effect(applied))
        .or_else(|| document::read(&broken?.spec, document::Scalars::Typed).ok())?;
    spec.admin_state = item.status.admin_state();
    let secrets = match item.spec {
        Some(_) => secrets(item, &name, &mut spec, existing),
        None => Vec::new(),
    };
    if spec.tunnel.tunnel_type == TunnelType::Wireguard && spec.tunnel.listen_port.is_none() {
        let before = existing.and_then(|document| document.spec.tunnel.listen_port);
        let before =
            before.or_else(|| spec_in_effect(applied).and_then(|spec| spec.tunnel.listen_port));
        spec.tunnel.listen_port = before.or_else(|| ports.choose(spec.asn.conventional_port()));
    }
    let in_effect = applied.map_or(0, |applied| applied.metadata.generation);
    let document = updated(
        name.clone(),
        item.uid.clone(),
        spec,
        existing,
        in_effect,
        snapshot,
    );
    let write = if broken.is_some() {
        Change::Displace
    } else {
        Change::Write
    };
    let document = document.map(|document| write(Box::new(document)));
    Some(SessionChange {
        name,
        document,
        secrets,
        formerly: None,
    })
}

fn spec_in_effect(applied: Option<&AppliedDocument>) -> Option<BgpSessionSpec> {
    applied?.applied.spec.as_ref()?.read().ok()
}

/// Returns the document in a slot, when it is valid and the sync's own.
fn synced(slot: Option<&Slot<BgpSessionSpec>>) -> Option<&Document<BgpSessionSpec>> {
    slot.and_then(|slot| slot.as_ref().ok())
        .map(|stored| &*stored.document)
        .filter(|d| d.metadata.uid.is_some())
}

/// Returns the secrets by file, and sets the file names in the specification.
fn secrets(
    item: &SessionItem,
    name: &ObjectName,
    spec: &mut BgpSessionSpec,
    existing: Option<&Document<BgpSessionSpec>>,
) -> Vec<(String, Option<Secret<String>>)> {
    let mut found = Vec::new();
    let mut one = |ending: &str, secret: Option<Secret<String>>, before: Option<&String>| {
        let file = format!("secrets/{name}.{ending}");
        let named = secret.is_some().then(|| file.clone());
        if secret.is_some() || before == Some(&file) {
            found.push((file, secret));
        }
        named
    };
    let before = existing.map(|document| &document.spec);
    let psk = item
        .preshared_key
        .as_ref()
        .map(crate::model::PresharedKey::to_base64);
    spec.tunnel.preshared_key_file = one(
        "psk",
        psk,
        before.and_then(|s| s.tunnel.preshared_key_file.as_ref()),
    );
    let password = item.password.clone();
    spec.bgp.password_file = one(
        "bgp",
        password,
        before.and_then(|s| s.bgp.password_file.as_ref()),
    );
    found
}

/// Returns the removals of synced documents that a complete listing lacks. An item that is present but invalid
/// counts as present.
fn removals(listing: &Listing<SessionItem>, snapshot: &Snapshot) -> Vec<SessionChange> {
    if !listing.complete {
        return Vec::new();
    }
    let listed: BTreeSet<&Uid> = listing
        .items
        .iter()
        .map(|item| &item.uid)
        .chain(listing.rejected.iter().filter_map(|r| r.uid.as_ref()))
        .sorted_set();
    let gone = snapshot.sessions.iter().filter(|(_, slot)| {
        synced(Some(slot))
            // A session that is being removed loses its document when it is gone, not when it is no longer listed.
            .filter(|document| document.spec.admin_state != AdminState::Absent)
            .and_then(|document| document.metadata.uid.as_ref())
            .is_some_and(|uid| !listed.contains(uid))
    });
    let broken = super::broken::<BgpSessionSpec>(snapshot);
    let broken = broken
        .filter(|(_, document)| !listed.contains(&document.uid))
        .map(|(name, _)| name);
    gone.map(|(name, _)| name)
        .chain(broken)
        .map(|name| SessionChange {
            name: name.clone(),
            document: Some(Change::Remove(name.clone())),
            secrets: Vec::new(),
            formerly: None,
        })
        .collect()
}

/// The names of sessions by their uids, and names for new ones.
struct Names<'a> {
    snapshot: &'a Snapshot,
    by_uid: BTreeMap<&'a Uid, &'a ObjectName>,
    chosen: BTreeMap<Uid, ObjectName>,
    /// The names in use, collected for the first new session.
    taken: Option<BTreeSet<ObjectName>>,
}

impl<'a> Names<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        let in_effect = snapshot
            .applied
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::BgpSession);
        let in_effect = in_effect
            .filter_map(|((_, name), stored)| Some((stored.document.metadata.uid.as_ref()?, name)));
        let documents = snapshot
            .sessions
            .iter()
            .filter_map(|(name, slot)| Some((synced(Some(slot))?.metadata.uid.as_ref()?, name)));
        let broken = super::broken::<BgpSessionSpec>(snapshot);
        let broken = broken.map(|(name, document)| (&document.uid, name));
        Self {
            snapshot,
            // A document takes precedence over the applied record.
            by_uid: in_effect.chain(documents).chain(broken).sorted_map(),
            chosen: BTreeMap::new(),
            taken: None,
        }
    }

    fn of_uid(&self, uid: &Uid) -> Option<ObjectName> {
        let known = self.by_uid.get(uid).copied();
        known.or_else(|| self.chosen.get(uid)).cloned()
    }

    /// Returns the interface's name when it is free, else the name with the identity.
    fn choose(&mut self, item: &SessionItem) -> ObjectName {
        let taken = self.taken.get_or_insert_with(|| {
            let known = self.by_uid.values().copied();
            let documents = self.snapshot.sessions.keys();
            documents.chain(known).cloned().sorted_set()
        });
        let hint = item.name_hint.as_ref().map(|hint| hint.as_str().to_owned());
        let base = hint.unwrap_or_else(|| format!("session-{}", item.uid));
        let mut name = ObjectName::sanitised(&base);
        if taken.contains(&name) {
            name = ObjectName::sanitised(&format!("{base}-{}", item.uid));
        }
        let mut count = 2;
        while taken.contains(&name) {
            name = ObjectName::numbered(&base, count);
            count += 1;
        }
        taken.insert(name.clone());
        self.chosen.insert(item.uid.clone(), name.clone());
        name
    }
}

/// Chooses the listen port of a session that has none.
struct Ports<'a> {
    snapshot: &'a Snapshot,
    listing: &'a Listing<SessionItem>,
    bases: PortBases,
    /// The ports in use. Every applied record is parsed for them, and most lists have no new session.
    taken: Option<BTreeSet<Port>>,
}

impl Ports<'_> {
    /// Returns the conventional port, or the next free one from the base. A chosen port never changes, because the
    /// document then contains it.
    fn choose(&mut self, conventional: Port) -> Option<Port> {
        let (snapshot, listing) = (self.snapshot, self.listing);
        let mesh_base = self.bases.mesh;
        let taken = self
            .taken
            .get_or_insert_with(|| in_use(snapshot, listing, mesh_base));
        let further = (self.bases.sessions..=u16::MAX).filter_map(Port::new);
        let mut candidates = std::iter::once(conventional).chain(further);
        let free = candidates.find(|port| !taken.contains(port))?;
        taken.insert(free);
        Some(free)
    }
}

/// Returns the listen ports of documents, of what is in effect, and of the list itself.
fn in_use(snapshot: &Snapshot, listing: &Listing<SessionItem>, mesh_base: u16) -> BTreeSet<Port> {
    let documents = snapshot
        .sessions
        .values()
        .filter_map(|slot| slot.as_ref().ok()?.document.spec.tunnel.listen_port);
    let applied = snapshot
        .applied
        .values()
        .filter_map(|stored| spec_in_effect(Some(&*stored.document))?.tunnel.listen_port);
    let mesh = snapshot
        .mesh
        .values()
        .filter_map(|slot| slot.as_ref().ok())
        .map(|s| s.document.spec.clone());
    let in_effect = snapshot
        .applied
        .iter()
        .filter(|((kind, _), _)| *kind == Kind::MeshPeer);
    let in_effect = in_effect.filter_map(|(_, stored)| {
        let spec = stored.document.applied.spec.as_ref()?;
        spec.read::<MeshPeerSpec>().ok()
    });
    let mesh = mesh
        .chain(in_effect)
        .filter_map(|spec| spec.port(mesh_base));
    let asked = listing
        .items
        .iter()
        .filter_map(|item| item.spec.as_ref()?.tunnel.listen_port);
    documents
        .chain(applied)
        .chain(mesh)
        .chain(asked)
        .sorted_set()
}

#[cfg(test)]
mod tests;
