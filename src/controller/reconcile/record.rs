//! Writes the records of an object: its finalizer before the first step, the applied state after the last, and its
//! status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Claims, ReconcileResult, ReconciledObject, is_bird};
use crate::controller::context::{AppliedChange, Context};
use crate::controller::planning::KeyObservation;
use crate::controller::records::StatusWrite;
use crate::controller::reports::Report;
use crate::document::{ApiVersion, Metadata, PackedSpec, StatusBody, StatusDocument};
use crate::intervals::LATE_LINKS;
use crate::model::{InterfaceName, ObjectKey};
use crate::plan::Plan;
use crate::redact::redact;
use crate::status::changed;
use crate::store::{
    AppliedBody, AppliedDocument, AppliedFirewall, AppliedOverride, Area, Place, StoreError,
    Written,
};
use crate::telemetry::failed;
use crate::util::sorted::Sorted as _;

fn metadata(meta: &ReconciledObject<'_>) -> Metadata {
    Metadata {
        name: meta.name.clone(),
        uid: Some(meta.uid.clone()),
        generation: meta.generation,
    }
}

/// Records the claims that the object is about to make, so that after a crash at any point the agent finds
/// everything again.
pub(super) async fn finalizer(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    plan: &Plan,
    observation: &KeyObservation,
) -> Result<(), StoreError> {
    let Some(claims) = &meta.claims else {
        return Ok(());
    };
    let mut body = observation
        .applied
        .as_ref()
        .map(|applied| applied.applied.clone())
        .unwrap_or_default();
    body.interfaces.extend(claims.interface.clone());
    body.protocols.extend(claims.protocols.iter().cloned());
    body.creating = body.creating.or_else(|| plan.creates().cloned());
    for key in plan.host_sysctls() {
        let have = observation
            .kernel
            .all
            .get(&key)
            .copied()
            .unwrap_or_default();
        body.sysctls.entry(key.to_string()).or_insert(have);
    }
    let on_lo: BTreeSet<_> = plan.adds_to_lo().sorted_set();
    if !on_lo.is_empty() {
        body.loopback_addresses = Some(body.added_to_lo().into_iter().chain(on_lo).sorted_set());
    }
    if observation
        .applied
        .as_ref()
        .is_some_and(|applied| applied.applied == body)
    {
        return Ok(());
    }
    let metadata = observation
        .applied
        .as_ref()
        .map_or_else(|| metadata(meta), |applied| applied.metadata.clone());
    let document = AppliedDocument::new(meta.kind, metadata, body);
    ctx.write_applied(document).await.map(drop)
}

/// Claims another interface than that of the object, which could not be created. The rest of the record stays.
/// Returns whether the record was written.
pub(super) async fn claim_instead(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    interface: InterfaceName,
    before: Option<&AppliedDocument>,
) -> bool {
    let new = || AppliedDocument::new(meta.kind, metadata(meta), AppliedBody::default());
    let mut document = before.cloned().unwrap_or_else(new);
    let claimed = meta
        .claims
        .as_ref()
        .and_then(|claims| claims.interface.as_ref());
    document.applied.claim_instead(claimed, interface);
    let written = ctx.write_applied(document).await;
    let is_written = written.is_ok();
    recorded(ctx, meta, written);
    is_written
}

/// The applied state: a settled object's whole specification.
pub(super) struct InEffect {
    pub(super) spec: Option<PackedSpec>,
    pub(super) overridden: Option<AppliedOverride>,
}

/// Writes the applied record, and sends the steps that led to it to the history. `before` is the previous record,
/// as just read, if there was one.
pub(super) async fn in_effect(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    in_effect: InEffect,
    before: Option<&AppliedDocument>,
) {
    of_node(ctx, meta, in_effect, NodeInEffect::default(), before).await;
}

/// The node's applied state besides its specification.
#[derive(Default)]
pub(super) struct NodeInEffect {
    /// Content of the agent's table in nftables.
    pub(super) firewall: Option<AppliedFirewall>,
    /// Changed sysctls that apply to all links, each with its value before the change.
    pub(super) sysctls: BTreeMap<String, i64>,
    /// Addresses that the agent added to `lo`.
    pub(super) loopback_addresses: Option<BTreeSet<IpAddr>>,
}

/// Writes the applied record of the node, like `in_effect`.
pub(super) async fn of_node(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    in_effect: InEffect,
    node: NodeInEffect,
    before: Option<&AppliedDocument>,
) {
    let none = Claims {
        interface: None,
        protocols: Vec::new(),
    };
    let claims = meta.claims.as_ref().unwrap_or(&none);
    let body = AppliedBody {
        interfaces: claims.interface.iter().cloned().sorted_set(),
        creating: None,
        protocols: claims.protocols.iter().cloned().sorted_set(),
        firewall: node.firewall,
        sysctls: node.sysctls,
        loopback_addresses: node.loopback_addresses,
        overridden: in_effect.overridden.map(without_secrets),
        spec: in_effect.spec,
    };
    let document = AppliedDocument::new(meta.kind, metadata(meta), body);
    if before == Some(&document) {
        return recorded(ctx, meta, Ok(Written::Unchanged));
    }
    let written = ctx.write_applied(document).await;
    recorded(ctx, meta, written);
}

/// Redacts secrets: the reason is the operator's text, and the history keeps the record.
fn without_secrets(overridden: AppliedOverride) -> AppliedOverride {
    AppliedOverride {
        reason: redact(&overridden.reason).into_owned(),
        ..overridden
    }
}

/// Sends a written record to the history.
fn recorded(ctx: &Context, meta: &ReconciledObject<'_>, written: Result<Written, StoreError>) {
    match written {
        Ok(Written::Changed) => {
            let place = applied(meta);
            let text = ctx.store.applied_text(&place);
            let file = text.map(|text| (place, Some(text)));
            send_change(ctx, meta, file.into_iter().collect());
        }
        // Records of other objects lead to steps here: the policy and the node to each session's text, and the
        // policy, maintenance and neighbours to the shared files.
        Ok(Written::Unchanged) => send_change(ctx, meta, Vec::new()),
        Err(error) => complain(meta, &error, "applied record not written"),
    }
}

/// Returns whether the link of a missing object may still appear, because an earlier run of the agent was ended while
/// it created the link: its WireGuard process still runs, or was only just forked, when it has the agent's own command
/// line. Without the record, that link would be foreign.
pub(super) async fn may_appear(ctx: &Context, meta: &ReconciledObject<'_>) -> bool {
    let (kind, name) = (meta.kind, meta.name.clone());
    let creating = ctx
        .disk(move |store| Ok(store.read_applied(kind, &name)))
        .await;
    match creating
        .ok()
        .flatten()
        .and_then(|record| record.applied.creating)
    {
        Some(interface) => {
            ctx.begun.elapsed() < LATE_LINKS || ctx.kernel.is_starting(&interface).await
        }
        None => false,
    }
}

/// Removes the record and the status of an object that is gone. Returns whether there was a record.
///
/// The record goes before the document: a desired state that is built in between must not see an applied object without a
/// document, which a guard may hold, and so make it again.
pub(super) async fn remove(ctx: &Context, meta: &ReconciledObject<'_>) -> Result<bool, StoreError> {
    let (kind, name) = (meta.kind, meta.name.clone());
    let removed = ctx.write(move |store| {
        store.remove_status(kind, &name)?;
        store.remove_applied(kind, &name)
    });
    removed.await
}

/// Forgets an object whose record was removed. `document`: its document was removed too.
pub(super) async fn gone(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    removed: Result<bool, StoreError>,
    document: bool,
) {
    let kind = meta.kind;
    let place = document.then(|| Place::document(kind, meta.name));
    let files = place
        .into_iter()
        .chain([applied(meta)])
        .map(|place| (place, None))
        .collect();
    // This may use up an approval, and objects that waited for the interface or port may continue.
    ctx.reports.reload();
    match removed {
        Ok(true) => send_change(ctx, meta, files),
        Ok(false) if document => send_change(ctx, meta, files),
        Ok(false) => drop(ctx.step_log.take(meta.key)),
        Err(error) => complain(meta, &error, "applied record not removed"),
    }
}

/// Removes the record of an object that is gone but whose document stays: its status stays too.
pub(super) async fn withdrawn(ctx: &Context, meta: &ReconciledObject<'_>) {
    let (kind, name) = (meta.kind, meta.name.clone());
    match ctx
        .write(move |store| store.remove_applied(kind, &name))
        .await
    {
        Ok(true) => send_change(ctx, meta, vec![(applied(meta), None)]),
        Ok(false) => drop(ctx.step_log.take(meta.key)),
        Err(error) => complain(meta, &error, "applied record not removed"),
    }
}

fn applied(meta: &ReconciledObject<'_>) -> Place {
    Place::new(Area::Applied, meta.kind, meta.name)
}

/// Sends an entry to the history. The steps are all that ran since the object was last applied.
fn send_change(ctx: &Context, meta: &ReconciledObject<'_>, files: Vec<(Place, Option<Arc<str>>)>) {
    let mut steps = ctx.step_log.take(meta.key);
    if *meta.key == ObjectKey::Router {
        // The agent's table in nftables is a part of the node's record.
        steps.extend(ctx.step_log.take(&ObjectKey::Firewall));
    }
    let entry = AppliedChange {
        key: meta.key.clone(),
        files,
        steps,
    };
    if entry.files.is_empty() && entry.steps.is_empty() {
        return;
    }
    // The history ends when the agent stops; the next start commits the missing entries.
    let _ = ctx.applied_changes.send(entry);
}

/// Stores a status, and writes its file when a field changed that does not change by itself.
pub(super) async fn status(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    before: &StatusBody,
    status: StatusBody,
) {
    status_with(ctx, meta, before, status, None).await;
}

/// As [`status`], and keeps a report.
pub(super) async fn status_with(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    before: &StatusBody,
    status: StatusBody,
    report: Option<Report>,
) {
    let write = changed(before, &status) || ctx.statuses.is_unwritten(meta.key);
    let document = write.then(|| StatusDocument {
        api_version: ApiVersion::V1,
        kind: meta.kind,
        metadata: Metadata {
            generation: 0,
            ..metadata(meta)
        },
        status: status.clone(),
    });
    ctx.statuses.set(meta.key.clone(), status);
    if !write && report.is_none() {
        return;
    }
    let status = document;
    let written = ctx.write_status(StatusWrite { report, status }).await;
    if write {
        ctx.statuses.set_unwritten(meta.key, written.is_err());
    }
    if let Err(error) = written {
        complain(meta, &error, "status not written");
    }
}

/// Logs a failed write. A full disk fails every write; the trouble of the state directory is logged once,
/// elsewhere.
fn complain(meta: &ReconciledObject<'_>, error: &StoreError, what: &str) {
    failed(error.class(), meta.key, error, what);
}

/// Returns the last status: from memory, else from its file.
pub(super) async fn status_before(ctx: &Context, meta: &ReconciledObject<'_>) -> Arc<StatusBody> {
    if let Some(status) = ctx.statuses.get(meta.key) {
        return status;
    }
    // The pass has looked for the file.
    if ctx.statuses.is_unwritten(meta.key) {
        return Arc::default();
    }
    let (kind, name) = (meta.kind, meta.name.clone());
    let read = ctx
        .disk(move |store| Ok(store.read_status(kind, &name)))
        .await;
    let status = read.ok().flatten().map(|document| document.status);
    status.unwrap_or_default().into()
}

/// Returns the remaining steps for BIRD, or those for everything else, as a text for a condition.
pub(super) fn remaining(result: &ReconcileResult, of_bird: bool) -> Option<String> {
    let all = &result.remaining;
    let steps = all.steps.iter();
    let rest = Plan {
        steps: steps
            .filter(|step| is_bird(&step.action) == of_bird)
            .cloned()
            .collect(),
        waits: all.waits.clone().filter(|_| !of_bird),
    };
    (!rest.is_done()).then(|| rest.summary())
}
