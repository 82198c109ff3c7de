//! Builds the router's identity, its policy, whether it is drained, and its own addresses.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::reach::check_loopbacks;
use super::{
    AppliedSpecs, Inputs, LayerInputs, Maintenance, MergedLayers, Reach, RouterDocuments,
    RouterError, SingleDocument, merge_layers, node_uid,
};
use crate::config::Node;
use crate::desired::guard::{self, IdentityChange, Ledger};
use crate::document::{
    DocumentError, Kind, MaintenanceSpec, NodeSpec, RoutingPolicySpec, RpkiServer, Spec,
};
use crate::effective::Router;
use crate::model::{Address, AddressRange, Host, InterfaceName, ObjectName};
use crate::plan::Loopback;
use crate::render::check_policy;
use crate::status::{Acceptance, RpkiName};
use crate::store::{AppliedDocument, Snapshot};
use crate::util::sorted::Sorted as _;

/// Returns the name of a document of a single-instance kind; also its name in `applied/` and `status/`.
pub(crate) fn single(kind: Kind) -> ObjectName {
    ObjectName::sanitised(kind.folder())
}

/// Returns the documents of the router, and the addresses that it must reach.
pub(super) fn documents(
    inputs: &Inputs<'_>,
    applied: &AppliedSpecs<'_>,
    ledger: &mut Ledger,
) -> (RouterDocuments, Reach) {
    let policy = policy(inputs);
    let has_policy = policy.spec.is_some();
    let policy = in_effect(
        policy,
        &inputs.material.refused.policy,
        Option::unwrap_or_default,
    );
    let reach = Reach::of(inputs, &policy.spec, applied);
    let mut node: MergedLayers<NodeSpec> = merge_layers(
        &single(Kind::Node),
        inputs.snapshot.node.as_ref(),
        &layer_inputs(inputs, Kind::Node),
    );
    node.overridden
        .retain(|field, _| !is_configured(&inputs.material.config.node, field));
    let node = refuse_loopbacks(inputs, node, &reach, &policy.spec.extra_ranges);
    let mut node = in_effect(node, &inputs.material.refused.node, |node| node);
    let (node_change, node_held) = guard_node(inputs, &mut node, ledger);
    let documents = RouterDocuments {
        node,
        node_change,
        node_held,
        policy,
        has_policy,
    };
    (documents, reach)
}

fn policy(inputs: &Inputs<'_>) -> MergedLayers<RoutingPolicySpec> {
    let applied = applied(inputs, Kind::RoutingPolicy);
    let mut policy: MergedLayers<RoutingPolicySpec> = merge_layers(
        &single(Kind::RoutingPolicy),
        inputs.snapshot.policy.as_ref(),
        &layer_inputs(inputs, Kind::RoutingPolicy),
    );
    if let Some(Err(error)) = policy.spec.as_ref().map(check_policy) {
        policy.fall_back(vec![DocumentError::whole(error.to_string())], applied);
    }
    keep_last_policy(&mut policy, applied);
    policy
}

/// Puts the configuration's values into the node, and keeps the applied loopback address of each family whose new one
/// clashes with an address that the router must reach.
fn refuse_loopbacks(
    inputs: &Inputs<'_>,
    mut node: MergedLayers<NodeSpec>,
    reach: &Reach,
    extra: &[AddressRange],
) -> MergedLayers<NodeSpec> {
    node.spec = configured_node(&inputs.material.config.node, node.spec.take());
    let Some(spec) = &mut node.spec else {
        return node;
    };
    let before = applied(inputs, Kind::Node).and_then(|applied| applied.applied.spec.as_ref());
    let before = before.and_then(|spec| spec.read::<NodeSpec>().ok());
    let verdict = check_loopbacks(spec, reach, extra, before.as_ref());
    for error in &verdict.refused {
        match error.field.as_str() {
            "spec.loopbackIpv4" => {
                spec.loopback_ipv4 = before.as_ref().and_then(|it| it.loopback_ipv4);
            }
            _ => spec.loopback_ipv6 = before.as_ref().and_then(|it| it.loopback_ipv6),
        }
    }
    let refused = node.placed(&verdict.refused);
    node.remark = verdict.remark();
    match node.acceptance {
        Acceptance::Valid | Acceptance::Waiting(_) if !refused.is_empty() => node.reject(refused),
        _ => node.faults.extend(refused),
    }
    node
}

/// Keeps the last applied policy in effect if the policy is missing: a missing policy never means that everything
/// is allowed.
fn keep_last_policy(
    policy: &mut MergedLayers<RoutingPolicySpec>,
    applied: Option<&AppliedDocument>,
) {
    if policy.documented {
        return;
    }
    let last = applied.and_then(|applied| applied.applied.spec.as_ref());
    policy.spec = last.and_then(|spec| spec.read().ok());
    policy.acceptance.wait(match policy.spec {
        Some(_) => {
            "policy.yaml is missing; the last applied policy stays in effect until there is another"
        }
        None => "policy.yaml does not exist yet",
    });
}

/// Holds a change of the node by the Control Plane that resets every session: its fields stay as applied. A change
/// by the operator, in the configuration, in an override, or in a `node.yaml` without `uid`, takes effect at once.
fn guard_node(
    inputs: &Inputs<'_>,
    node: &mut SingleDocument<Option<NodeSpec>>,
    ledger: &mut Ledger,
) -> (Option<IdentityChange>, Option<guard::HeldChange>) {
    let record = applied(inputs, Kind::Node).map(|applied| &applied.applied);
    let before = record
        .and_then(|body| body.spec.as_ref())
        .and_then(|spec| spec.read::<NodeSpec>().ok());
    let overridden_before = record.and_then(|body| body.overridden.as_ref());
    let operators: BTreeSet<String> = CONFIGURABLE
        .into_iter()
        .filter(|field| is_configured(&inputs.material.config.node, field))
        .map(str::to_owned)
        .chain(node.overridden.keys().cloned())
        .chain(
            overridden_before
                .into_iter()
                .flat_map(|it| it.fields.clone()),
        )
        .sorted_set();
    let change = before.as_ref().zip(node.spec.as_ref());
    let change = change
        .filter(|_| !node.operator_owned)
        .and_then(|(before, desired)| guard::identity_change(before, desired, &operators));
    if ledger
        .node(change.as_ref(), &super::rules(inputs))
        .is_none()
    {
        return (change, None);
    }
    if let (Some(change), Some(before)) = (&change, &before) {
        node.spec = node
            .spec
            .take()
            .map(|desired| change.without(desired, before));
    }
    (change, ledger.held.get(guard::NODE).cloned())
}

/// The fields of the node that the configuration may set.
const CONFIGURABLE: [&str; 6] = [
    "spec.id",
    "spec.asn",
    "spec.region",
    "spec.loopbackIpv4",
    "spec.loopbackIpv6",
    "spec.linkLocal",
];

/// Returns the RPKI servers that have names, and the addresses of these names.
pub(super) fn rpki_names(inputs: &Inputs<'_>, policy: &RoutingPolicySpec) -> Vec<RpkiName> {
    let endpoints: BTreeSet<_> = policy
        .rpki
        .servers
        .iter()
        .map(RpkiServer::endpoint)
        .sorted_set();
    let named = endpoints
        .into_iter()
        .filter(|endpoint| matches!(endpoint.host, Host::Name(_)));
    let name = |endpoint| {
        let known = inputs.material.rpki.get(&endpoint).cloned();
        known.unwrap_or_else(|| RpkiName::unknown(endpoint))
    };
    named.map(name).collect()
}

/// Returns the document with its specification in effect. `refused` is the Control Plane's last item if it is
/// invalid; `spec` fills in missing values.
fn in_effect<S: Spec, T>(
    layers: MergedLayers<S>,
    refused: &Option<String>,
    spec: impl FnOnce(Option<S>) -> T,
) -> SingleDocument<T> {
    let override_ = layers.applied_override();
    let valid = layers.acceptance == Acceptance::Valid;
    let (faults, remark) = (layers.faults, layers.remark);
    let acceptance = match (layers.acceptance, refused) {
        (Acceptance::Valid | Acceptance::Waiting(_), Some(why)) => Acceptance::Invalid(why.clone()),
        (acceptance, _) => acceptance,
    };
    SingleDocument {
        acceptance,
        faults,
        remark,
        valid,
        spec: spec(layers.spec),
        generation: layers.generation,
        operator_owned: layers.operator_owned,
        override_,
        overridden: layers.overridden,
    }
}

fn layer_inputs<'a>(inputs: &Inputs<'a>, kind: Kind) -> LayerInputs<'a> {
    super::layer_inputs(inputs, kind, &single(kind))
}

pub(super) fn applied<'a>(inputs: &Inputs<'a>, kind: Kind) -> Option<&'a AppliedDocument> {
    inputs
        .snapshot
        .applied
        .get(&(kind, single(kind)))
        .map(|stored| &*stored.document)
}

/// Returns the node with the configuration's values, which take precedence over the document; with id and ASN it
/// needs no document.
pub(crate) fn configured_node(ours: &Node, document: Option<NodeSpec>) -> Option<NodeSpec> {
    let mut node = match document {
        Some(node) => node,
        None => NodeSpec {
            id: ours.id?,
            asn: ours.asn?,
            region: None,
            loopback_ipv4: None,
            loopback_ipv6: None,
            link_local: None,
        },
    };
    node.id = ours.id.unwrap_or(node.id);
    node.asn = ours.asn.unwrap_or(node.asn);
    node.region = ours.region.clone().or(node.region);
    node.loopback_ipv4 = ours.loopback_ipv4.or(node.loopback_ipv4);
    node.loopback_ipv6 = ours.loopback_ipv6.or(node.loopback_ipv6);
    node.link_local = ours.link_local.or(node.link_local);
    Some(node)
}

/// Returns whether the configuration sets a field of the node, so that neither document nor override does.
fn is_configured(ours: &Node, field: &str) -> bool {
    match field {
        "spec.id" => ours.id.is_some(),
        "spec.asn" => ours.asn.is_some(),
        "spec.region" => ours.region.is_some(),
        "spec.loopbackIpv4" => ours.loopback_ipv4.is_some(),
        "spec.loopbackIpv6" => ours.loopback_ipv6.is_some(),
        "spec.linkLocal" => ours.link_local.is_some(),
        _ => false,
    }
}

pub(super) fn router(
    inputs: &Inputs<'_>,
    documents: &RouterDocuments,
) -> Result<Router, RouterError> {
    match (&documents.node.spec, &documents.node.acceptance) {
        (Some(node), _) => Ok(Router::new(
            &inputs.material.config.node.name,
            node,
            inputs.material.key.public(),
        )),
        (None, Acceptance::Invalid(why)) => Err(RouterError::Invalid(why.clone())),
        (None, _) => Err(RouterError::Unknown),
    }
}

/// The part of a drain's record that outlives its document.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    enabled: bool,
    since: Option<Timestamp>,
    #[serde(default)]
    external_sessions_disabled: bool,
}

/// Returns whether the router is drained: by the document, or by the applied record while the document cannot be
/// read or its presence is unknown. A document without a start time was written by hand; the record has the time
/// when it was first seen.
pub fn maintenance_in_effect(snapshot: &Snapshot) -> MaintenanceSpec {
    let before = recorded_maintenance(snapshot);
    match &snapshot.maintenance {
        Some(Ok(stored)) => {
            let MaintenanceSpec { enabled, since } = stored.document.spec;
            MaintenanceSpec {
                enabled,
                since: since.or(before.since).filter(|_| enabled),
            }
        }
        None if snapshot.complete => MaintenanceSpec::default(),
        Some(Err(_)) | None => before,
    }
}

/// Returns the drain in the record: whether it is requested, or applied.
pub fn recorded_maintenance(snapshot: &Snapshot) -> MaintenanceSpec {
    let Recorded { enabled, since, .. } = recorded(snapshot);
    MaintenanceSpec { enabled, since }
}

fn recorded(snapshot: &Snapshot) -> Recorded {
    let applied = snapshot
        .applied
        .get(&(Kind::Maintenance, single(Kind::Maintenance)));
    let spec = applied.and_then(|stored| stored.document.applied.spec.as_ref());
    spec.and_then(|spec| spec.read().ok()).unwrap_or_default()
}

/// Returns the state of maintenance, and the time at which it disables external sessions.
pub(super) fn maintenance(inputs: &Inputs<'_>) -> (Maintenance, Option<Timestamp>) {
    let spec = maintenance_in_effect(inputs.snapshot);
    if !spec.enabled {
        return (Maintenance::default(), None);
    }
    let since = spec.since.unwrap_or(inputs.now);
    let after = inputs
        .material
        .config
        .maintenance
        .disable_after
        .map(|after| after.get());
    let at = after.and_then(|after| {
        since
            .checked_add(SignedDuration::try_from(after).ok()?)
            .ok()
    });
    // Disabled sessions stay down until the drain ends: a clock that is set back enables no session.
    let before = recorded(inputs.snapshot);
    let is_same_drain = before.enabled && before.since.is_none_or(|before| before == since);
    let down_already = before.external_sessions_disabled && is_same_drain;
    let ebgp_disabled = at.is_some_and(|at| at <= inputs.now || down_already);
    let state = Maintenance {
        enabled: true,
        since: Some(since),
        ebgp_disabled,
    };
    (state, at.filter(|_| !ebgp_disabled))
}

pub(super) fn loopback(inputs: &Inputs<'_>, router: &Router) -> Loopback {
    let interface = loopback_interface(inputs);
    Loopback {
        uid: node_uid(),
        addresses: Loopback::addresses(router.loopback_ipv4, router.loopback_ipv6),
        ours_before: addresses_before(inputs, &interface),
        interface,
    }
}

/// Returns the addresses that the agent added to `lo`; on its own device, the addresses that were in effect.
fn addresses_before(inputs: &Inputs<'_>, interface: &InterfaceName) -> BTreeSet<Address> {
    let Some(applied) = applied(inputs, Kind::Node).map(|applied| &applied.applied) else {
        return BTreeSet::new();
    };
    if interface.as_str() == "lo" {
        return applied
            .added_to_lo()
            .into_iter()
            .map(Loopback::host)
            .sorted_set();
    }
    let spec = applied.spec.as_ref();
    let before = spec.and_then(|spec| spec.read::<NodeSpec>().ok());
    before
        .map(|node| Loopback::addresses(node.loopback_ipv4, node.loopback_ipv6))
        .unwrap_or_default()
}

/// Returns the interface of the node's addresses: the configured one, or `lo` once a kernel without dummy devices
/// forced the agent to use it.
pub(super) fn loopback_interface(inputs: &Inputs<'_>) -> InterfaceName {
    let claimed = applied(inputs, Kind::Node).map(|applied| &applied.applied.interfaces);
    let lo = claimed.and_then(|claimed| claimed.iter().find(|name| name.as_str() == "lo"));
    lo.unwrap_or(&inputs.material.config.loopback.interface)
        .clone()
}
