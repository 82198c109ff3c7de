//! Builds the backbone: mesh tunnels and internal neighbours.

use std::collections::{BTreeMap, BTreeSet};

use super::reach::{Verdict, check_internal, check_mesh, ibgp_addresses};
use super::sessions::claims_of;
use super::{
    AppliedSpecs, Inputs, Intent, MergedLayers, Object, Objects, Reach, Wanted, is_operators,
    layer_inputs, merge_layers, rules,
};
use crate::desired::guard::{Fate, Ledger, Member};
use crate::document::{IbgpPeerSpec, Kind, MeshPeerSpec, PackedSpec, PeerSpec, Spec};
use crate::effective::{
    Claim, Claimant, Clash, FieldError, InternalNeighbour, MeshDefaults, MeshTunnel, Router,
    conflicts,
};
use crate::model::{AdminState, LinkLocal, ObjectName, Uid};
use crate::status::{Acceptance, Hold};
use crate::store::{AppliedDocument, Slot};
use crate::util::sorted::Sorted as _;
use crate::wire::Rejected;

/// Returns the objects of the backbone.
pub(super) fn backbone(
    inputs: &Inputs<'_>,
    router: Option<&Router>,
    (reach, applied): (&Reach, &AppliedSpecs<'_>),
    ledger: &mut Ledger,
) -> Objects {
    let mut objects = ibgp(inputs, router, reach, ledger);
    objects.extend(mesh(inputs, router, (reach, applied), ledger));
    objects
}

fn mesh(
    inputs: &Inputs<'_>,
    router: Option<&Router>,
    (reach, applied): (&Reach, &AppliedSpecs<'_>),
    ledger: &mut Ledger,
) -> Objects {
    let mesh = &inputs.material.config.mesh;
    let wanted = |name: &ObjectName, uid: &Uid, spec: &MeshPeerSpec| {
        // Without a router no specification is resolved, so its ASN does not matter.
        let asn = router
            .map(|router| router.asn)
            .ok_or_else(|| FieldError::new("spec", "no router"))?;
        let defaults = MeshDefaults {
            prefix: &mesh.interface_prefix,
            port_base: mesh.listen_port_base,
            asn,
            keepalive: inputs
                .material
                .config
                .wireguard
                .persistent_keepalive_interval,
        };
        let tunnel = MeshTunnel::resolve(name, uid, spec, &defaults)?;
        let spec = tunnel.filled(spec);
        Ok((tunnel, spec))
    };
    let ourselves = |spec: &MeshPeerSpec| router.is_some_and(|router| router.id == spec.node_id);
    let off = |spec: &MeshPeerSpec| {
        !mesh.enabled || ourselves(spec) || spec.admin_state != AdminState::Enabled
    };
    let (documents, said) = (&inputs.snapshot.mesh, &inputs.material.refused.mesh);
    let refused = refused(inputs, documents, said);
    let held = removals(inputs, documents, &refused, &off, ledger);
    let check = |spec: &MeshPeerSpec, applied: Option<&AppliedDocument>| {
        let mut verdict = check_mesh(spec, reach, applied);
        let own = router.and_then(|router| own_link_local(spec, router));
        verdict.refused.extend(own);
        verdict
    };
    let known = Known {
        refused: &refused,
        held: &held,
        router: router.is_some(),
    };
    let mut objects = objects(inputs, documents, &known, off, wanted, check);
    let clashes = clashes(inputs, applied, &objects);
    for object in objects.values_mut() {
        if let Some(clash) = clashes.get(&label(Kind::MeshPeer, &object.name)) {
            let before = in_effect(inputs, &object.name, &wanted);
            object.acceptance = Acceptance::Clash(clash.to_string());
            object.intent = before.map_or(Intent::Stay, present);
        }
    }
    objects
}

/// Returns the error of a peer that would have this router's own address in the tunnel.
fn own_link_local(spec: &MeshPeerSpec, router: &Router) -> Option<FieldError> {
    let derived = || LinkLocal::derived(router.asn, spec.node_id);
    let theirs = spec.link_local.unwrap_or_else(derived);
    let reason = format!(
        "{theirs} is this router's own address in the tunnel; one of the two sides must use another"
    );
    (theirs == router.link_local).then(|| FieldError::new("spec.linkLocal", reason))
}

/// Returns clashes with another tunnel of the backbone, or with a session whose claims are applied. A session that
/// is not applied yet gives way; it is judged later, against the tunnels accepted here.
fn clashes(
    inputs: &Inputs<'_>,
    specs: &AppliedSpecs<'_>,
    mesh: &Objects,
) -> BTreeMap<String, Clash> {
    if mesh.is_empty() {
        return BTreeMap::new();
    }
    let applied = || inputs.snapshot.applied.iter();
    let sessions = applied()
        .filter(|((kind, _), _)| *kind == Kind::BgpSession)
        .map(|((kind, name), stored)| {
            let claims = claims_of(&stored.document, specs.get(name));
            let uid = stored.document.metadata.uid.clone();
            let uid = uid.unwrap_or_else(|| Uid::local(kind.folder(), name));
            Claimant {
                name: label(*kind, name),
                uid,
                holds: claims.clone(),
                claims,
            }
        });
    let tunnels = mesh.values().filter_map(Object::mesh).map(|tunnel| {
        let key = (Kind::MeshPeer, tunnel.name.clone());
        let holds = inputs.snapshot.applied.get(&key);
        let holds = holds
            .map(|stored| mesh_claims(&stored.document))
            .unwrap_or_default();
        Claimant {
            name: label(Kind::MeshPeer, &tunnel.name),
            uid: tunnel.uid.clone(),
            claims: tunnel.claims(),
            holds,
        }
    });
    conflicts(&sessions.chain(tunnels).collect::<Vec<_>>())
}

/// Returns the name of an object in a clash message.
fn label(kind: Kind, name: &ObjectName) -> String {
    format!("{}/{name}", kind.folder())
}

/// Returns the applied claims of a tunnel of the backbone.
fn mesh_claims(applied: &AppliedDocument) -> BTreeSet<Claim> {
    let body = &applied.applied;
    let spec = body
        .spec
        .as_ref()
        .and_then(|spec| spec.read::<MeshPeerSpec>().ok());
    let port = spec
        .and_then(|spec| spec.listen_port)
        .map(Claim::ListenPort);
    body.interfaces
        .iter()
        .cloned()
        .map(Claim::Interface)
        .chain(port)
        .sorted_set()
}

fn ibgp(
    inputs: &Inputs<'_>,
    router: Option<&Router>,
    reach: &Reach,
    ledger: &mut Ledger,
) -> Objects {
    let (v4, v6) = router.map_or((None, None), |router| {
        (router.loopback_ipv4, router.loopback_ipv6)
    });
    let wanted = |name: &ObjectName, _: &Uid, spec: &IbgpPeerSpec| {
        Ok((
            InternalNeighbour::resolve(name, spec, v4, v6)?,
            spec.clone(),
        ))
    };
    let ourselves = |spec: &IbgpPeerSpec| router.is_some_and(|router| router.id == spec.node_id);
    let off = |spec: &IbgpPeerSpec| ourselves(spec) || spec.admin_state != AdminState::Enabled;
    let (documents, said) = (&inputs.snapshot.ibgp, &inputs.material.refused.ibgp);
    let refused = refused(inputs, documents, said);
    let held = removals(inputs, documents, &refused, &off, ledger);
    let check = |spec: &IbgpPeerSpec, applied: Option<&AppliedDocument>| {
        check_internal(spec, ibgp_addresses, reach, applied)
    };
    let known = Known {
        refused: &refused,
        held: &held,
        router: router.is_some(),
    };
    objects(inputs, documents, &known, off, wanted, check)
}

/// Facts about the objects of a kind before their specifications are resolved.
struct Known<'a> {
    /// The reason why the Control Plane's item for an object is invalid.
    refused: &'a BTreeMap<ObjectName, String>,
    /// The removals that do not happen now.
    held: &'a BTreeMap<ObjectName, Hold>,
    /// Whether the identity of this router is known.
    router: bool,
}

/// Returns the Control Plane's peer items that do not decode, by their objects.
fn refused<S: PeerSpec>(
    inputs: &Inputs<'_>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
    said: &[Rejected],
) -> BTreeMap<ObjectName, String> {
    if said.is_empty() {
        return BTreeMap::new();
    }
    let known = names_by_node_id(inputs, documents);
    let said = said.iter().rev().filter_map(|rejected| {
        let name = object_of(rejected, &known, documents)?;
        Some((name, rejected.to_string()))
    });
    said.sorted_map()
}

/// Returns the object with the same node id, else an object that exists only to report the error; `None` for an
/// item with neither a number nor a name.
fn object_of<S: PeerSpec>(
    rejected: &Rejected,
    known: &BTreeMap<u16, &ObjectName>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
) -> Option<ObjectName> {
    let node_id = rejected.node_id;
    if let Some(name) = node_id.and_then(|id| known.get(&id)) {
        return Some((*name).clone());
    }
    let name = rejected.name.clone();
    let free = name.filter(|name| !documents.contains_key(name));
    free.or_else(|| Some(ObjectName::sanitised(&format!("node{}", node_id?))))
}

/// Returns the names of peers by their node ids: those of documents, and of applied records without a valid one.
fn names_by_node_id<'a, S: PeerSpec>(
    inputs: &Inputs<'a>,
    documents: &'a BTreeMap<ObjectName, Slot<S>>,
) -> BTreeMap<u16, &'a ObjectName> {
    let valid = |slot: &'a Slot<S>| slot.as_ref().ok();
    let of_documents = documents
        .iter()
        .filter_map(|(name, slot)| Some((valid(slot)?.document.spec.node_id(), name)));
    let applied = inputs.snapshot.applied.iter();
    let of_records = applied.filter_map(|((kind, name), stored)| {
        let is_left = *kind == S::KIND && documents.get(name).and_then(valid).is_none();
        let spec = stored.document.applied.spec.as_ref().filter(|_| is_left)?;
        Some((spec.read::<S>().ok()?.node_id(), name))
    });
    of_records.chain(of_documents).sorted_map()
}

/// Returns the objects of a kind that have a document, a record, or an invalid item of the Control Plane.
fn names<S: Spec>(
    inputs: &Inputs<'_>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
    refused: &BTreeMap<ObjectName, String>,
) -> BTreeSet<ObjectName> {
    let applied = inputs.snapshot.applied.keys();
    let recorded = applied
        .filter(|(kind, _)| *kind == S::KIND)
        .map(|(_, name)| name);
    let all = documents.keys().chain(recorded).chain(refused.keys());
    all.cloned().sorted_set()
}

/// Returns the removals that do not happen now.
fn removals<S: Spec>(
    inputs: &Inputs<'_>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
    refused: &BTreeMap<ObjectName, String>,
    off: &impl Fn(&S) -> bool,
    ledger: &mut Ledger,
) -> BTreeMap<ObjectName, Hold> {
    let fate = |name: &ObjectName| match documents.get(name) {
        Some(Ok(stored)) if off(&stored.document.spec) => Fate::Leaving,
        Some(_) => Fate::Wanted,
        None if refused.contains_key(name) => Fate::Wanted,
        None => Fate::Absent,
    };
    let member = |name: ObjectName| {
        let applied = inputs.snapshot.applied.get(&(S::KIND, name.clone()));
        let member = Member {
            fate: fate(&name),
            applied: applied.is_some(),
            operators: applied.is_some_and(|stored| is_operators(&stored.document)),
            undisproved: applied.is_some_and(|stored| is_operators(&stored.document))
                && !inputs.snapshot.operators_complete,
        };
        (name, member)
    };
    let members = names(inputs, documents, refused)
        .into_iter()
        .map(member)
        .sorted_map();
    ledger.removals(S::KIND, &members, &rules(inputs))
}

fn objects<S: Spec, T: Into<Wanted>>(
    inputs: &Inputs<'_>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
    known: &Known<'_>,
    off: impl Fn(&S) -> bool,
    wanted: impl Fn(&ObjectName, &Uid, &S) -> Result<(T, S), FieldError>,
    check: impl Fn(&S, Option<&AppliedDocument>) -> Verdict,
) -> Objects {
    let Known { refused, held, .. } = known;
    let object = |name: ObjectName| {
        let name = &name;
        let mut layers = merge_layers::<S>(
            name,
            documents.get(name),
            &layer_inputs(inputs, S::KIND, name),
        );
        if let Some(why) = refused.get(name) {
            layers.documented = true;
            layers.acceptance = Acceptance::Invalid(why.clone());
        }
        let waits = held.get(name).cloned();
        let before = in_effect(inputs, name, &wanted);
        let applied = inputs.snapshot.applied.get(&(S::KIND, name.clone()));
        let applied = applied.map(|stored| &*stored.document);
        let wanted = |name: &ObjectName, uid: &Uid, spec: &S| {
            let resolved = wanted(name, uid, spec).map_err(|error| vec![error])?;
            let verdict = check(spec, applied);
            match verdict.refused.is_empty() {
                true => Ok((resolved, verdict.remark())),
                false => Err(verdict.refused),
            }
        };
        object(name, layers, waits, known.router, before, &off, wanted)
    };
    names(inputs, documents, refused)
        .into_iter()
        .map(object)
        .map(|object| (object.key(), object))
        .sorted_map()
}

/// Returns the applied state of an object, if it is known.
fn in_effect<S: Spec, T>(
    inputs: &Inputs<'_>,
    name: &ObjectName,
    wanted: &impl Fn(&ObjectName, &Uid, &S) -> Result<(T, S), FieldError>,
) -> Option<T> {
    let applied = &inputs
        .snapshot
        .applied
        .get(&(S::KIND, name.clone()))?
        .document;
    let spec = applied.applied.spec.as_ref()?.read::<S>().ok()?;
    wanted(name, applied.metadata.uid.as_ref()?, &spec)
        .ok()
        .map(|(object, _)| object)
}

fn present(object: impl Into<Wanted>) -> Intent {
    Intent::Present(object.into())
}

/// An object with its filled specification, and a remark on its addresses.
type Accepted<T, S> = ((T, S), Option<String>);

/// Returns an object. An unchanged object stays *present*: the files that all sessions share are
/// written from the present objects, and a missing object would be removed from BIRD while its removal is held.
fn object<S: Spec, T: Into<Wanted>>(
    name: &ObjectName,
    mut layers: MergedLayers<S>,
    held: Option<Hold>,
    router_known: bool,
    before: Option<T>,
    off: impl Fn(&S) -> bool,
    wanted: impl Fn(&ObjectName, &Uid, &S) -> Result<Accepted<T, S>, Vec<FieldError>>,
) -> Object {
    let mut admin_state = AdminState::Enabled;
    let stay = |before: Option<T>| before.map_or(Intent::Stay, present);
    let mut filled = None;
    let intent = match &layers.spec {
        _ if held.is_some() => stay(before),
        None if !layers.documented => Intent::Absent,
        None => stay(before),
        Some(_) if !router_known => {
            layers.acceptance.wait("the node's identity is unknown");
            Intent::Stay
        }
        Some(spec) if off(spec) => {
            admin_state = AdminState::Disabled;
            Intent::Absent
        }
        Some(spec) => match wanted(name, &layers.uid, spec) {
            Ok(((_, spec), _)) if layers.paused().is_some() => {
                filled = Some(spec);
                stay(before)
            }
            Ok(((object, spec), remark)) => {
                filled = Some(spec);
                layers.remark = remark;
                present(object)
            }
            Err(errors) => {
                layers.reject(layers.placed(&errors));
                stay(before)
            }
        },
    };
    let spec = filled
        .as_ref()
        .or(layers.spec.as_ref())
        .and_then(|spec| PackedSpec::of(spec).ok());
    layers.into_object(name, intent, admin_state, spec, held)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::desired::Refused;
    use crate::desired::testing::desired;
    use crate::document::{Document, Metadata};
    use crate::store::{AppliedBody, Store};

    fn name(text: &str) -> ObjectName {
        text.parse().unwrap()
    }

    fn peer(id: u16, port: Option<u16>) -> Value {
        let mut spec =
            json!({"nodeId": id, "publicKey": "DM06RLaHzdCGBYhFFvrUXIcyqJG1lZAMlPbWzwr4ajg="});
        if let Some(port) = port {
            spec["listenPort"] = json!(port);
        }
        spec
    }

    fn write<S: Spec>(store: &Store, object: &str, spec: Value) {
        let spec = serde_json::from_value(spec).unwrap();
        let uid = Some(format!("uid-{object}").parse().unwrap());
        store
            .write_document(&Document::<S>::new(name(object), uid, 1, spec))
            .unwrap();
    }

    /// Applies a session on interface `mesh_a` and port 23499.
    fn apply_session(store: &Store) {
        let spec = json!({
            "asn": 4_242_421_080u32, "address": {"peerLinkLocal": "fe80::1"},
            "tunnel": {"type": "wireguard", "interface": "mesh_a", "listenPort": 23499}
        });
        let session: crate::document::BgpSessionSpec = serde_json::from_value(spec).unwrap();
        let applied = AppliedBody {
            interfaces: ["mesh_a".parse().unwrap()].into(),
            spec: PackedSpec::of(&session).ok(),
            ..AppliedBody::default()
        };
        let metadata = Metadata {
            name: name("peering"),
            uid: Some("zzz".parse().unwrap()),
            generation: 1,
        };
        let kind = Kind::BgpSession;
        let document = AppliedDocument {
            api_version: Default::default(),
            kind,
            metadata,
            applied,
        };
        store.write_applied(&document).unwrap();
        store
            .write_document(&Document::new(
                name("peering"),
                Some("zzz".parse().unwrap()),
                1,
                session,
            ))
            .unwrap();
    }

    #[test]
    fn tunnel_never_takes_an_applied_interface_or_port() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.confirm().unwrap();
        apply_session(&store);
        // A clash by name, by explicit number, by derived number, and a peer without a clash.
        for (object, spec) in [
            ("a", peer(2, None)),
            ("b", peer(3, Some(23499))),
            ("c", peer(44, None)),
            ("d", peer(5, None)),
        ] {
            write::<MeshPeerSpec>(&store, object, spec);
        }
        let desired = desired(&store, &Refused::default());
        for (object, claim) in [
            ("a", "interface mesh_a"),
            ("b", "listen port 23499"),
            ("c", "listen port 23499"),
        ] {
            let entry = &desired.objects[&Kind::MeshPeer.key(&name(object))];
            assert!(
                matches!(entry.intent, Intent::Stay),
                "{object}: {:?}",
                entry.intent
            );
            let Acceptance::Clash(why) = &entry.acceptance else {
                panic!("{object}: {:?}", entry.acceptance)
            };
            assert!(
                why.starts_with(&format!("{claim} is used by sessions/peering")),
                "{why}"
            );
        }
        let other = &desired.objects[&Kind::MeshPeer.key(&name("d"))];
        assert!(matches!(other.intent, Intent::Present(..)));
    }

    #[test]
    fn rejected_list_item_is_attributed_by_node_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.confirm().unwrap();
        write::<MeshPeerSpec>(&store, "hk1", peer(2, None));
        let rejected = |node_id, given: Option<&str>| Rejected {
            uid: None,
            node_id,
            name: given.map(name),
            status: None,
            interface: None,
            field: "publicKey".to_owned(),
            message: "is wrong".to_owned(),
            reportable: false,
        };
        let mesh = vec![
            rejected(Some(2), Some("renamed")),
            // The name belongs to another peer.
            rejected(Some(3), Some("hk1")),
            rejected(None, Some("jp9")),
            rejected(None, None),
        ];
        let ibgp = vec![rejected(Some(2), None)];
        let desired = desired(
            &store,
            &Refused {
                mesh,
                ibgp,
                ..Refused::default()
            },
        );
        let wrong = Acceptance::Invalid("publicKey: is wrong".to_owned());
        let names: Vec<_> = desired.objects.keys().map(ToString::to_string).collect();
        assert_eq!(names, ["mesh/hk1", "mesh/jp9", "mesh/node3", "ibgp/node2"]);
        assert!(
            desired.objects.values().all(|it| it.acceptance == wrong),
            "{:?}",
            desired.objects
        );
        assert!(
            desired.objects[&Kind::MeshPeer.key(&name("hk1"))]
                .wanted()
                .is_some(),
            "the applied peer stays"
        );
        let unknown = &desired.objects[&Kind::MeshPeer.key(&name("node3"))];
        assert!(matches!(unknown.intent, Intent::Stay));
    }
}
