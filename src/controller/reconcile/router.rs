//! Reconciles the node itself: its own addresses, and the files that all sessions share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;
use tracing::info;

use super::node_status::{accepted, fields, origins, rpki_names, status};
use super::record::{self, InEffect, NodeInEffect};
use super::{Advance, Claims, Next, Progress, ReconcileResult, ReconciledObject, advance};
use crate::controller::context::Context;
use crate::controller::error::{FailedPart, Trouble};
use crate::controller::pass::Observation;
use crate::controller::planning::{self, KeyObservation};
use crate::controller::queue::Outcome;
use crate::controller::{Convenience, FirewallState, LoggedStep, firewall};
use crate::desired::{Desired, Maintenance as MaintenanceState, node_uid, single};
use crate::document::{ConditionType, Kind, PackedSpec, Phase, StatusBody};
use crate::intervals::{MOVING_OBJECT, SETTLED_OBJECT};
use crate::model::{ErrorClass, ObjectKey};
use crate::plan::{Drift, Plan};
use crate::status::{Acceptance, Conditions, POLICY_MISSING};
use crate::store::{AppliedDocument, AppliedFirewall};
use crate::telemetry::failed;
use crate::util::sorted::Sorted as _;

pub(super) async fn reconcile(
    ctx: &Arc<Context>,
    desired: &Arc<Desired>,
    seen: &Observation,
    progress: Progress,
) -> Next {
    let (key, name, uid) = (ObjectKey::Router, single(Kind::Node), node_uid());
    let interface = desired
        .loopback
        .as_ref()
        .map(|loopback| loopback.interface.clone());
    let spec = node_spec(desired);
    let meta = ReconciledObject {
        generation: desired.router_documents.node.generation,
        claims: Some(Claims {
            interface,
            protocols: Vec::new(),
        }),
        spec: spec.as_ref(),
        overridden: desired.router_documents.node.override_.clone(),
        ..ReconciledObject::bare(&key, Kind::Node, &name, &uid)
    };
    let before = record::status_before(ctx, &meta).await;
    // An interface that is refused for the node's own addresses keeps no session from BIRD.
    let plan = |observation: &KeyObservation| Ok(possible(desired, observation));
    match advance(ctx, &meta, desired, seen, plan, progress).await {
        Ok(Advance::Next(next)) => match *next {
            // The next desired state follows without an observation; a single pass has none.
            Next::Observe(progress) if progress.is_unsupported() && !ctx.observer.is_patient() => {
                let applied =
                    ctx.disk(|store| Ok(store.read_applied(Kind::Node, &single(Kind::Node))));
                let applied = applied.await.ok().flatten();
                match use_lo(ctx, &meta, applied.as_ref()).await {
                    true => Next::Done(Outcome::Settled(SETTLED_OBJECT)),
                    false => Next::Observe(progress),
                }
            }
            next => next,
        },
        Ok(Advance::Ended(result)) => Next::Done(end(ctx, &meta, desired, &before, *result).await),
        Err(error) => {
            failed(error.class(), &key, &error, "reconcile not begun");
            Next::Done(Outcome::Failed(error.class()))
        }
    }
}

async fn end(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    desired: &Desired,
    before: &StatusBody,
    mut result: ReconcileResult,
) -> Outcome {
    let applied = result.observation.applied.as_ref();
    if needs_dummy(&result) && use_lo(ctx, meta, applied).await {
        // For the desired state that reads it.
        return Outcome::Waiting;
    }
    orphans(ctx, desired, &result.observation);
    // The shared files depend on the protocols that the operator's main file defines.
    if result.observation.bird.live.main != desired.main {
        ctx.reports.reload();
    }
    result.refusal = planning::router(desired, &result.observation).err();
    conclude(ctx, meta, desired, before, result).await
}

fn node_spec(desired: &Desired) -> Option<PackedSpec> {
    let spec = desired.router_documents.node.spec.as_ref()?;
    PackedSpec::of(spec).ok()
}

/// Reconciles the agent's table in nftables. The node's status reports its state.
pub(super) async fn firewall(ctx: &Context, seen: &Observation) -> Outcome {
    match firewall::follow(ctx, Some(seen)).await {
        Some(error) => {
            ctx.statuses.set(
                ObjectKey::Firewall,
                StatusBody {
                    phase: Phase::Error,
                    last_error: Some(error),
                    ..StatusBody::default()
                },
            );
            Outcome::Failed(ErrorClass::Transient)
        }
        None => {
            ctx.statuses.remove(&ObjectKey::Firewall);
            Outcome::Settled(SETTLED_OBJECT)
        }
    }
}

/// Schedules links without a record that are to be removed, and stores those whose removal is held.
fn orphans(ctx: &Context, desired: &Desired, observation: &KeyObservation) {
    let found = planning::orphans(desired, &observation.kernel);
    ctx.unrecorded.set(found.held.into_iter().collect());
    found
        .go
        .into_iter()
        .for_each(|uid| ctx.hint(ObjectKey::Orphan(uid)));
}

/// Returns whether the kernel lacks dummy devices, as the failed step reports.
fn needs_dummy(result: &ReconcileResult) -> bool {
    result.trouble.as_ref().is_some_and(Trouble::is_unsupported)
}

/// Records that the node's addresses go on `lo`, which the next desired state reads. Returns whether this desired state does not yet.
async fn use_lo(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    applied: Option<&AppliedDocument>,
) -> bool {
    let Ok(lo) = "lo".parse() else { return false };
    let claimed = meta
        .claims
        .as_ref()
        .and_then(|claims| claims.interface.as_ref());
    if claimed == Some(&lo) {
        return false;
    }
    let recorded = |applied: &AppliedDocument| applied.applied.interfaces.contains(&lo);
    if !applied.is_some_and(recorded) {
        info!(object = %meta.key, "kernel has no dummy devices; using lo for the node's addresses");
    }
    let is_recorded = record::claim_instead(ctx, meta, lo, applied).await;
    ctx.reports.reload();
    is_recorded
}

/// Returns the plan of the node; without its own addresses if their interface is refused.
fn possible(desired: &Desired, observation: &KeyObservation) -> Plan {
    planning::router(desired, observation)
        .unwrap_or_else(|_| planning::shared(desired, observation))
}

/// Returns the current state of the node's conveniences.
fn conveniences(
    ctx: &Context,
    desired: &Desired,
    result: &ReconcileResult,
) -> BTreeMap<ConditionType, Convenience> {
    let mut all = ctx.conveniences.all();
    all.entry(ConditionType::HistoryRecorded)
        .or_insert_with(|| Convenience::works("Committed"));
    if desired.has_tunnels() {
        let sysctls = ctx.sysctls.state(&result.observation.kernel);
        all.insert(ConditionType::SysctlsConfigured, sysctls);
    }
    all
}

/// Errors of a reconcile of the node.
struct Errors {
    /// The error of the files that all sessions share.
    of_bird: Option<String>,
    /// That error, and the error of the node's own addresses.
    all: Option<String>,
}

impl Errors {
    fn of(desired: &Desired, result: &ReconcileResult) -> Self {
        let bird = &result.observation.bird;
        let blocked = planning::router_error(desired, bird).map(|problem| problem.to_string());
        let of_base = || result.failed(FailedPart::Base);
        let of_bird = blocked.or_else(of_base);
        let of_bird = of_bird.or_else(|| bird.files_error.clone());
        let all: Vec<_> = of_bird.clone().into_iter().chain(result.error()).collect();
        Self {
            of_bird,
            all: (!all.is_empty()).then(|| all.join("; ")),
        }
    }
}

async fn conclude(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    desired: &Desired,
    before: &StatusBody,
    result: ReconcileResult,
) -> Outcome {
    let Errors {
        of_bird,
        all: error,
    } = Errors::of(desired, &result);
    // The interface of the node's own addresses concerns neither the policy nor a drain.
    let is_shared_settled = result.trouble.is_none()
        && result.remaining.is_done()
        && of_bird.is_none()
        && !result.observation.bird.unread;
    let settled = is_shared_settled && error.is_none();
    let waits = result.waits_for_bird().filter(|_| error.is_none());
    let filter = ctx.firewall.state();
    let node = async {
        if settled && desired.router.is_ok() {
            record_applied(ctx, meta, desired, &result, &filter).await;
        }
    };
    // Together, so that their records are flushed together.
    tokio::join!(node, policy_in_effect(ctx, desired, is_shared_settled));
    let status = status(
        desired,
        before,
        &result,
        &filter,
        (error.as_deref(), of_bird.as_deref()),
        &conveniences(ctx, desired, &result),
    );
    record::status(ctx, meta, before, status).await;
    if is_shared_settled {
        maintenance_in_effect(ctx, desired).await;
    }
    let failed = error.is_some() || (!settled && desired.base.is_ok());
    match (waits, failed, result.observation.bird.is_running()) {
        (Some(outcome), ..) => outcome,
        (None, true, _) => result.failure(),
        (None, false, true) => Outcome::Settled(SETTLED_OBJECT),
        (None, false, false) => Outcome::Settled(MOVING_OBJECT),
    }
}

/// Writes the applied record of the node.
async fn record_applied(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    desired: &Desired,
    result: &ReconcileResult,
    filter: &FirewallState,
) {
    let in_effect = InEffect {
        spec: node_spec(desired),
        overridden: desired.router_documents.node.override_.clone(),
    };
    let node = NodeInEffect {
        firewall: firewall_in_effect(desired, result, filter),
        sysctls: sysctls_in_effect(ctx, desired, result),
        loopback_addresses: loopback_addresses(desired, result),
    };
    record::of_node(
        ctx,
        meta,
        in_effect,
        node,
        result.observation.applied.as_ref(),
    )
    .await;
}

/// Returns the record of the agent's table in nftables; until the first observation of this run, the previous
/// record.
fn firewall_in_effect(
    desired: &Desired,
    result: &ReconcileResult,
    filter: &FirewallState,
) -> Option<AppliedFirewall> {
    match &filter.in_effect {
        Some(ruleset) => Some(AppliedFirewall {
            ports: ruleset.ports(),
            tunnels: ruleset.interfaces().cloned().sorted_set(),
        }),
        None if desired.firewall => result
            .observation
            .applied
            .as_ref()?
            .applied
            .firewall
            .clone(),
        None => None,
    }
}

/// Returns the addresses on `lo` that the agent added and that still exist. An address that the agent found there
/// is not its own, although the node has it.
fn loopback_addresses(desired: &Desired, result: &ReconcileResult) -> Option<BTreeSet<IpAddr>> {
    let wanted = desired.loopback.as_ref()?;
    if wanted.interface.as_str() != "lo" {
        return None;
    }
    let applied = result.observation.applied.as_ref();
    let mut added = applied.map(|applied| applied.applied.added_to_lo());
    let there = result.observation.kernel.links.get(&wanted.interface);
    if let (Some(added), Some(link)) = (&mut added, there) {
        let has = |address: &IpAddr| {
            link.addresses
                .iter()
                .any(|there| there.local.addr() == *address)
        };
        added.retain(has);
    }
    Some(added.unwrap_or_default())
}

/// Returns the sysctls for all links that the agent changed and still needs. Those it no longer needs keep their
/// values, and the agent logs that: it cannot know which other programs depend on them by now.
fn sysctls_in_effect(
    ctx: &Context,
    desired: &Desired,
    result: &ReconcileResult,
) -> BTreeMap<String, i64> {
    let changed = result
        .observation
        .applied
        .as_ref()
        .map(|applied| applied.applied.sysctls.clone())
        .unwrap_or_default();
    if !desired.has_done_with_tunnels() {
        return changed;
    }
    for (key, before) in &changed {
        let because = Drift::new(
            "node.sysctl",
            "(none): no tunnel needs it any more",
            format!("{before} before"),
        );
        let step = LoggedStep {
            action: format!("leave sysctl {key} of all as it is"),
            because,
            resets: Vec::new(),
        };
        info!(object = %ObjectKey::Router, step = %step, "sysctl no longer needed, keeping its value");
        ctx.step_log.note(&ObjectKey::Router, step);
    }
    BTreeMap::new()
}

/// Records whether the router is drained: an auditor asks since when. The request was recorded before this desired state
/// was built.
async fn maintenance_in_effect(ctx: &Context, desired: &Desired) {
    let name = single(Kind::Maintenance);
    let uid = crate::model::Uid::local(Kind::Maintenance.folder(), &name);
    let meta = ReconciledObject::bare(&ObjectKey::Router, Kind::Maintenance, &name, &uid);
    if desired.maintenance.enabled {
        let MaintenanceState {
            enabled,
            since,
            ebgp_disabled,
        } = desired.maintenance;
        let spec =
            json!({"enabled": enabled, "since": since, "externalSessionsDisabled": ebgp_disabled});
        let spec = Some(PackedSpec::from(&spec));
        record::in_effect(
            ctx,
            &meta,
            InEffect {
                spec,
                overridden: None,
            },
            None,
        )
        .await;
    } else {
        record::withdrawn(ctx, &meta).await;
    }
}

/// Writes the policy's own record and status.
async fn policy_in_effect(ctx: &Context, desired: &Desired, settled: bool) {
    let policy = &desired.router_documents.policy;
    let name = single(Kind::RoutingPolicy);
    let uid = crate::model::Uid::local(Kind::RoutingPolicy.folder(), &name);
    let meta = ReconciledObject {
        generation: policy.generation,
        ..ReconciledObject::bare(&ObjectKey::Policy, Kind::RoutingPolicy, &name, &uid)
    };
    if settled && policy.valid {
        let spec = PackedSpec::of(&policy.spec).ok();
        let in_effect = InEffect {
            spec,
            overridden: policy.override_.clone(),
        };
        record::in_effect(ctx, &meta, in_effect, None).await;
    }
    let before = record::status_before(ctx, &meta).await;
    let status = policy_status(desired, &before, jiff::Timestamp::now());
    record::status(ctx, &meta, &before, status).await;
}

/// Returns the policy's status.
pub(super) fn policy_status(
    desired: &Desired,
    before: &StatusBody,
    now: jiff::Timestamp,
) -> StatusBody {
    let policy = &desired.router_documents.policy;
    let mut conditions = Conditions::new(&before.conditions, now);
    let last_error = accepted(&policy.acceptance, &desired.remarks, &mut conditions);
    if matches!(policy.acceptance, Acceptance::Waiting(_)) {
        conditions.act(POLICY_MISSING);
    }
    origins(desired, &mut conditions);
    rpki_names(desired, &mut conditions);
    let phase = match (&last_error, desired.router_documents.has_policy) {
        (Some(_), _) => Phase::Error,
        (None, true) => Phase::Configured,
        (None, false) => Phase::Pending,
    };
    StatusBody {
        observed_generation: policy.generation,
        phase,
        conditions: conditions.into_vec(),
        overridden: fields(policy.override_.as_ref()),
        last_error,
        ..StatusBody::default()
    }
}
