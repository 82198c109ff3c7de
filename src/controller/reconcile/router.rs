//! The node itself: its own addresses, and the files that all sessions share.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::apply::{self, Trouble};
use super::record::{self, InForce, NodeInForce};
use super::{Claims, LATER, Round, SOON, Subject, round};
use crate::bird::Fragment;
use crate::controller::FirewallState;
use crate::controller::context::{Context, Look};
use crate::controller::planning::{self, Key};
use crate::controller::queue::Outcome;
use crate::controller::world::{Intent, World, node_uid, single};
use crate::controller::{firewall, guard};
use crate::document::{ConditionType as About, Kind, Phase, StatusBody};
use crate::plan::kernel_view::Mark;
use crate::plan::{Action, Plan, forwarding_blocked};
use crate::status::{Acceptance, Conditions, Verdict};
use crate::store::{AppliedFirewall, AppliedOverride};

pub(super) async fn reconcile(ctx: &Context, due: Instant) -> Outcome {
    let world = ctx.world();
    let (key, name, uid) = (Key::Router, single(Kind::Node), node_uid());
    let interface = world.loopback.as_ref().map(|loopback| loopback.interface.clone());
    let subject = Subject {
        key: &key,
        kind: Kind::Node,
        name: &name,
        uid: &uid,
        generation: world.router_documents.node.2,
        endpoint: None,
        claims: Some(Claims { interface, protocols: Vec::new() }),
        hands_off: false,
    };
    let before = record::status_before(ctx, &subject).await;
    let plan = |look: &Look| planning::router(&world, &look.view());
    let mut round = match round(ctx, &subject, due, plan).await {
        Ok(round) => round,
        Err(error) => {
            warn!(object = %key, %error, "cannot be looked at");
            return Outcome::Failed;
        }
    };
    if needs_dummy(&round) && use_lo(ctx, &subject).await {
        return Outcome::Settled(std::time::Duration::ZERO);
    }
    orphans(ctx, &world, &round.look);
    let error = set_base(ctx, &subject, &world, &mut round).await;
    conclude(ctx, &subject, &world, &before, round, error).await
}

/// Our table in nftables. How it is, is told in the node's status.
pub(super) async fn firewall(ctx: &Context, due: Instant) -> Outcome {
    match firewall::follow(ctx, due).await {
        Some(error) => {
            ctx.board.set(
                Key::Firewall,
                StatusBody { phase: Phase::Error, last_error: Some(error), ..StatusBody::default() },
            );
            Outcome::Failed
        }
        None => {
            ctx.board.remove(&Key::Firewall);
            Outcome::Settled(LATER)
        }
    }
}

/// Links that carry our mark and that neither a document nor `applied/` knows of. Absence is proved only
/// by a complete listing, and many at once are left for a human.
fn orphans(ctx: &Context, world: &World, look: &Look) {
    let known = world.uids();
    let marked = look.kernel.links.values().filter_map(|link| match &link.mark {
        Mark::Ours(uid) => Some(uid.clone()),
        _ => None,
    });
    let (owned, orphans): (BTreeSet<_>, BTreeSet<_>) = marked.partition(|uid| known.contains(uid));
    let total = owned.len() + orphans.len();
    let held = guard::held(&orphans, &BTreeSet::new(), total, world.max_removals, world.complete);
    if !held.keys.is_empty() {
        debug!(links = held.keys.len(), why = held.why, "links of ours that no document knows of stay");
    }
    for uid in orphans.difference(&held.keys) {
        ctx.hint(Key::Orphan(uid.clone()));
    }
}

/// The kernel has no dummy devices, as the one step that failed says.
fn needs_dummy(round: &Round) -> bool {
    matches!(round.trouble, Some(Trouble::Unsupported(_)))
}

/// Writes down that the node's addresses go on `lo`, which the next world reads. Returns whether that is
/// news.
async fn use_lo(ctx: &Context, subject: &Subject<'_>) -> bool {
    let Ok(lo) = "lo".parse() else { return false };
    let loopback = Claims { interface: Some(lo), protocols: Vec::new() };
    if subject.claims.as_ref().is_some_and(|claims| claims.interface == loopback.interface) {
        return false;
    }
    info!(object = %subject.key, "this kernel has no dummy devices; the node's addresses go on lo");
    let on_lo = Subject { claims: Some(loopback), ..*subject };
    record::in_force(ctx, &on_lo, InForce { spec: None, overridden: None }, &[]).await;
    ctx.reports.reload();
    true
}

/// Sets the shared files, and with them every session's file that is to change: texts of one world belong
/// together, and one reload loads them all.
async fn set_base(ctx: &Context, subject: &Subject<'_>, world: &World, round: &mut Round) -> Option<String> {
    let Ok(files) = &world.base else { return None };
    let steps = base_steps(world, &round.look);
    if steps.is_empty() {
        return None;
    }
    let live = &round.look.bird.live.tree.fragments;
    let sessions = world.sessions.iter().filter_map(|(name, entry)| match &entry.intent {
        // One that is paused, or may be, is left as it is.
        _ if entry.paused.is_some() || entry.exception_unreadable => None,
        Intent::Present(session, text) if live.get(name.as_str()).is_some_and(|there| there != text) => {
            let protocols = session.neighbours.iter().map(|neighbour| neighbour.protocol.clone()).collect();
            Some(ctx.committer.set_fragment(name.as_str(), Some(Fragment { text: text.clone(), protocols })))
        }
        _ => None,
    });
    // What is wrong with a session's text is told by that session's own reconcile.
    let (base, _) = tokio::join!(apply::base(ctx, files), join_all(sessions));
    if let Err(error) = base {
        return Some(error);
    }
    for step in &steps {
        info!(object = %subject.key, step = %step.action, because = %step.because, "applied");
    }
    round.steps.extend(steps.iter().map(ToString::to_string));
    match ctx.look(Some((subject.kind, subject.name)), None, Instant::now()).await {
        Ok(look) => {
            let rest = planning::router(world, &look.view());
            round.remaining =
                rest.map(|plan| plan.steps.iter().map(ToString::to_string).collect()).unwrap_or_default();
            round.look = look;
            None
        }
        Err(error) => Some(error),
    }
}

fn base_steps(world: &World, look: &Look) -> Vec<crate::plan::Step> {
    let Ok(Plan { steps }) = planning::router(world, &look.view()) else { return Vec::new() };
    let of_base = |action: &Action| matches!(action, Action::WriteBase { .. } | Action::RemoveBase { .. });
    steps.into_iter().filter(|step| of_base(&step.action)).collect()
}

async fn conclude(
    ctx: &Context,
    subject: &Subject<'_>,
    world: &World,
    before: &StatusBody,
    round: Round,
    error: Option<String>,
) -> Outcome {
    let error = error.or_else(|| round.error()).or_else(|| round.look.bird.files_error.clone());
    let settled = round.is_settled() && error.is_none();
    let filter = ctx.firewall.state();
    let (_, node, _) = &world.router_documents.node;
    if settled && world.router.is_ok() {
        let spec = node.as_ref().and_then(|node| serde_json::to_value(node).ok());
        let in_force = InForce { spec, overridden: world.router_documents.node_exception.clone() };
        let (sysctls, left) = sysctls_in_force(world, &round);
        let node = NodeInForce { firewall: firewall_in_force(world, &round, &filter), sysctls };
        let steps: Vec<_> =
            round.steps.iter().cloned().chain(ctx.firewall.take_steps()).chain(left).collect();
        record::of_node(ctx, subject, in_force, node, &steps).await;
    }
    let status = status(world, before, &round, &filter, error.as_deref());
    let failed = error.is_some() || (!settled && world.base.is_ok());
    if let Some(error) = &error {
        warn!(object = %subject.key, %error, "failed");
    }
    record::status(ctx, subject, before, status).await;
    policy_in_force(ctx, world, settled).await;
    match (failed, round.look.bird.is_running()) {
        (true, _) => Outcome::Failed,
        (false, true) => Outcome::Settled(LATER),
        (false, false) => Outcome::Settled(SOON),
    }
}

/// What the record says of our table in nftables; until the first look of this run, what it said before.
fn firewall_in_force(world: &World, round: &Round, filter: &FirewallState) -> Option<AppliedFirewall> {
    match &filter.in_force {
        Some(ruleset) => {
            Some(AppliedFirewall { ports: ruleset.ports(), tunnels: ruleset.interfaces().cloned().collect() })
        }
        None if world.firewall => round.look.applied.as_ref()?.applied.firewall.clone(),
        None => None,
    }
}

/// The sysctls of all links that the agent changed and still needs; and what to say of those that it needs
/// no more. They stay as they are: nobody can tell who else counts on them by now.
fn sysctls_in_force(world: &World, round: &Round) -> (BTreeMap<String, i64>, Vec<String>) {
    let changed =
        round.look.applied.as_ref().map(|applied| applied.applied.sysctls.clone()).unwrap_or_default();
    if !world.has_done_with_tunnels() {
        return (changed, Vec::new());
    }
    let left = changed.iter().map(|(key, before)| {
        let text =
            format!("leave sysctl as it is (no tunnel needs it any more): {key} of all was {before} before");
        info!(object = %Key::Router, step = %text, "left behind");
        text
    });
    (BTreeMap::new(), left.collect())
}

/// The policy's own record and status.
async fn policy_in_force(ctx: &Context, world: &World, settled: bool) {
    let (acceptance, spec, generation) = &world.router_documents.policy;
    let name = single(Kind::RoutingPolicy);
    let uid = crate::model::Uid::local(Kind::RoutingPolicy.folder(), &name);
    let key = Key::Policy;
    let subject = Subject {
        key: &key,
        kind: Kind::RoutingPolicy,
        name: &name,
        uid: &uid,
        generation: *generation,
        endpoint: None,
        claims: None,
        hands_off: false,
    };
    if settled && *acceptance == Acceptance::Valid && *generation > 0 {
        let spec = serde_json::to_value(spec).ok();
        let overridden = world.router_documents.policy_exception.clone();
        record::in_force(ctx, &subject, InForce { spec, overridden }, &[]).await;
    }
    let before = record::status_before(ctx, &subject).await;
    let mut conditions = Conditions::new(&before.conditions, jiff::Timestamp::now());
    let last_error = accepted(acceptance, &mut conditions);
    origins(world, &mut conditions);
    let phase = if last_error.is_some() { Phase::Error } else { Phase::Configured };
    let status = StatusBody {
        observed_generation: *generation,
        phase,
        conditions: conditions.into_vec(),
        overridden: fields(world.router_documents.policy_exception.as_ref()),
        last_error,
        ..StatusBody::default()
    };
    record::status(ctx, &subject, &before, status).await;
}

/// The fields that an override sets.
fn fields(exception: Option<&AppliedOverride>) -> Vec<String> {
    exception.map(|exception| exception.fields.clone()).unwrap_or_default()
}

fn accepted(acceptance: &Acceptance, conditions: &mut Conditions<'_>) -> Option<String> {
    match acceptance {
        Acceptance::Valid => conditions.set(About::Accepted, true, "Valid", ""),
        Acceptance::Invalid(why) | Acceptance::Clash(why) => {
            conditions.set(About::Accepted, false, "Invalid", why);
            return Some(why.clone());
        }
        Acceptance::Waiting(why) => conditions.unknown(About::Accepted, "Waiting", why),
    }
    None
}

fn origins(world: &World, conditions: &mut Conditions<'_>) {
    let (verdict, message) = (world.origins.verdict(), world.origins.message());
    match verdict {
        Verdict::NotRead => conditions.unknown(About::OriginsValidated, verdict.reason(), message),
        Verdict::Live | Verdict::FromCache => {
            conditions.set(About::OriginsValidated, true, verdict.reason(), message);
        }
        Verdict::NoServer | Verdict::Collapsed | Verdict::NoRoas => {
            conditions.set(About::OriginsValidated, false, verdict.reason(), message);
        }
    }
}

fn templates(world: &World, conditions: &mut Conditions<'_>) {
    match &world.templates {
        None => {}
        Some(Ok(())) => conditions.set(About::TemplatesAccepted, true, "InUse", ""),
        Some(Err(why)) => conditions.set(About::TemplatesAccepted, false, "Refused", why),
    }
}

/// How our table in nftables is; nothing is said of one that is not wanted and not in the way.
fn packet_filter(world: &World, filter: &FirewallState, conditions: &mut Conditions<'_>) {
    let about = About::FirewallConfigured;
    match (&filter.error, &filter.in_force) {
        (Some(error), _) => conditions.set(about, false, "Failed", error),
        (None, Some(_)) if filter.dropping.is_empty() => conditions.set(about, true, "InForce", ""),
        (None, Some(ruleset)) => {
            let ports: Vec<_> = ruleset.ports().iter().map(ToString::to_string).collect();
            let message = format!(
                "{} drops what it does not accept itself, which our table cannot override; accept there: \
                 udp dport {{ {} }}",
                filter.dropping.join(", "),
                ports.join(", ")
            );
            conditions.set(about, true, "OthersDrop", message);
        }
        (None, None) if world.firewall => conditions.unknown(about, "NotLookedAt", ""),
        (None, None) => {}
    }
}

/// Whether packets pass through the tunnels as far as the kernel's settings go.
fn forwarding(world: &World, round: &Round, conditions: &mut Conditions<'_>) {
    if !world.has_tunnels() {
        return;
    }
    match forwarding_blocked(&round.look.kernel) {
        Some(why) => conditions.set(About::Forwarding, false, "Blocked", why),
        None => conditions.set(About::Forwarding, true, "Configured", ""),
    }
}

fn status(
    world: &World,
    before: &StatusBody,
    round: &Round,
    filter: &FirewallState,
    error: Option<&str>,
) -> StatusBody {
    let mut conditions = Conditions::new(&before.conditions, round.look.now);
    let (acceptance, _, generation) = &world.router_documents.node;
    let refused = accepted(acceptance, &mut conditions);
    templates(world, &mut conditions);
    match (&world.router, &world.base) {
        (Err(why), _) => conditions.unknown(About::BirdConfigured, "Waiting", why),
        (Ok(_), Err(why)) => conditions.set(About::BirdConfigured, false, "NotRendered", why),
        (Ok(_), Ok(_)) if error.is_some() => {
            conditions.set(About::BirdConfigured, false, "Failed", error.unwrap_or_default());
        }
        (Ok(_), Ok(_)) if !round.look.bird.is_running() => {
            conditions.unknown(
                About::BirdConfigured,
                "NotRunning",
                "BIRD does not answer on its control socket",
            );
        }
        (Ok(_), Ok(_)) => {
            let missing = record::remaining(round, true);
            let reason = if missing.is_none() { "Loaded" } else { "NotLoaded" };
            conditions.set(About::BirdConfigured, missing.is_none(), reason, missing.unwrap_or_default());
        }
    }
    let base_error = world.router.as_ref().ok().and(world.base.as_ref().err()).cloned();
    packet_filter(world, filter, &mut conditions);
    forwarding(world, round, &mut conditions);
    let last_error = error.map(str::to_owned).or(refused).or(base_error);
    let phase = match (&last_error, &world.router) {
        (Some(_), _) => Phase::Error,
        (None, Err(_)) => Phase::Pending,
        (None, Ok(_)) if conditions.holds(About::BirdConfigured) => Phase::Configured,
        (None, Ok(_)) => Phase::Configuring,
    };
    StatusBody {
        observed_generation: *generation,
        phase,
        conditions: conditions.into_vec(),
        overridden: fields(world.router_documents.node_exception.as_ref()),
        last_steps: if round.steps.is_empty() { before.last_steps.clone() } else { round.steps.clone() },
        last_error,
        ..StatusBody::default()
    }
}
