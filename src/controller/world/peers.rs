//! The backbone: mesh tunnels and internal neighbours.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entry, Inputs, Intent, Layered, beside, layered};
use crate::controller::guard;
use crate::document::{IbgpPeerSpec, MeshPeerSpec, Spec};
use crate::effective::{FieldError, InternalNeighbour, MeshTunnel, Router};
use crate::model::{AdminState, ObjectName};
use crate::status::Acceptance;
use crate::store::Slot;

pub(super) fn mesh(inputs: &Inputs<'_>, router: Option<&Router>) -> BTreeMap<ObjectName, Entry<MeshTunnel>> {
    let mesh = &inputs.config.mesh;
    let wanted = |name: &ObjectName, layers: &Layered<MeshPeerSpec>, spec: &MeshPeerSpec| {
        MeshTunnel::resolve(name, &layers.uid, spec, &mesh.interface_prefix, mesh.listen_port_base)
    };
    let ourselves = |spec: &MeshPeerSpec| router.is_some_and(|router| router.id == spec.node_id);
    let off =
        |spec: &MeshPeerSpec| !mesh.enabled || ourselves(spec) || spec.admin_state != AdminState::Enabled;
    entries(inputs, &inputs.snapshot.mesh, router.is_some(), off, wanted)
}

pub(super) fn ibgp(
    inputs: &Inputs<'_>,
    router: Option<&Router>,
) -> BTreeMap<ObjectName, Entry<InternalNeighbour>> {
    let (v4, v6) = router.map_or((None, None), |router| (router.loopback_ipv4, router.loopback_ipv6));
    let wanted = |name: &ObjectName, _: &Layered<IbgpPeerSpec>, spec: &IbgpPeerSpec| {
        InternalNeighbour::resolve(name, spec, v4, v6)
    };
    let ourselves = |spec: &IbgpPeerSpec| router.is_some_and(|router| router.id == spec.node_id);
    let off = |spec: &IbgpPeerSpec| ourselves(spec) || spec.admin_state != AdminState::Enabled;
    entries(inputs, &inputs.snapshot.ibgp, router.is_some(), off, wanted)
}

fn entries<S: Spec, T>(
    inputs: &Inputs<'_>,
    documents: &BTreeMap<ObjectName, Slot<S>>,
    router_known: bool,
    off: impl Fn(&S) -> bool,
    wanted: impl Fn(&ObjectName, &Layered<S>, &S) -> Result<T, FieldError>,
) -> BTreeMap<ObjectName, Entry<T>> {
    let in_force =
        || inputs.snapshot.applied.keys().filter(|(kind, _)| *kind == S::KIND).map(|(_, name)| name);
    let names: BTreeSet<&ObjectName> = documents.keys().chain(in_force()).collect();
    let absent: BTreeSet<ObjectName> =
        in_force().filter(|name| !documents.contains_key(*name)).cloned().collect();
    let limit = inputs.config.guard.max_removals;
    let approved = guard::approved(inputs.approved, S::KIND);
    let held = guard::held(&absent, &approved, in_force().count(), limit, inputs.snapshot.complete);
    let entry = |name: &ObjectName| {
        let beside = beside(inputs, S::KIND, name);
        let mut layers = layered::<S>(name, documents.get(name), &beside);
        let waits = held.keys.contains(name).then(|| held.why.clone());
        if waits.is_some() {
            // What is held stays in force: also in the files that all sessions share.
            let spec = beside.applied.and_then(|applied| applied.applied.spec.clone());
            layers.spec = spec.and_then(|spec| serde_json::from_value(spec).ok());
        }
        entry(name, layers, waits, router_known, &off, &wanted)
    };
    names.into_iter().map(|name| (name.clone(), entry(name))).collect()
}

fn entry<S: Spec, T>(
    name: &ObjectName,
    mut layers: Layered<S>,
    held: Option<String>,
    router_known: bool,
    off: impl Fn(&S) -> bool,
    wanted: impl Fn(&ObjectName, &Layered<S>, &S) -> Result<T, FieldError>,
) -> Entry<T> {
    let mut admin_state = AdminState::Enabled;
    let intent = match &layers.spec {
        None if held.is_some() => Intent::Stay,
        None if !layers.documented => Intent::Absent,
        None => Intent::Stay,
        Some(_) if !router_known => {
            layers.acceptance = Acceptance::Waiting("who this router is, is not known yet".to_owned());
            Intent::Stay
        }
        Some(spec) if off(spec) => {
            admin_state = AdminState::Disabled;
            Intent::Absent
        }
        Some(spec) => match wanted(name, &layers, spec) {
            Ok(object) => Intent::Present(Box::new(object), String::new()),
            Err(error) => {
                layers.acceptance = Acceptance::Invalid(layers.placed(&error));
                Intent::Stay
            }
        },
    };
    let spec = layers.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok());
    layers.into_entry(intent, admin_state, spec, held)
}
