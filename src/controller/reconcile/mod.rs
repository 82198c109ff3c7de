//! Reconciles one key: observe, plan, apply, observe again, report the state that was read back.

mod apply;
mod facts;
mod node_status;
mod object;
mod orphan;
mod record;
mod router;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::{Context, Look};
use super::planning::KeyPlan;
use super::queue::Outcome;
use super::world::World;
use crate::document::Kind;
use crate::effective::Claim;
use crate::intervals::{COMMIT_WAIT, COMMIT_WAIT_ATTENDED, MOVING_OBJECT, SETTLED_OBJECT};
use crate::model::{Endpoint, InterfaceName, ObjectKey, ObjectName, Uid};
use crate::observed::bird::BirdName;
use crate::observed::kernel::KernelView;
use crate::plan::{Action, Drift, HANDSHAKE_FRESH_SECONDS, Plan, Refusal, Step};

use apply::Trouble;
pub use object::target;

/// Brings one key to its wanted state. It takes the key and no reason: after any event, it compares everything
/// again.
pub(super) async fn reconcile(ctx: &Arc<Context>, key: &ObjectKey, due: Instant) -> Outcome {
    match key {
        ObjectKey::Router | ObjectKey::Policy => router::reconcile(ctx, due).await,
        ObjectKey::Orphan(uid) => orphan::reconcile(ctx, uid, due).await,
        ObjectKey::Firewall => router::firewall(ctx, due).await,
        ObjectKey::Session(_) | ObjectKey::Mesh(_) | ObjectKey::Ibgp(_) => {
            object::reconcile(ctx, key, due).await
        }
    }
}

/// Facts about the object of a reconcile, besides how to plan for it.
struct Subject<'a> {
    key: &'a ObjectKey,
    kind: Kind,
    name: &'a ObjectName,
    uid: &'a Uid,
    generation: u64,
    endpoint: Option<&'a Endpoint>,
    /// The claims of a wanted object, recorded before the first step.
    claims: Option<Claims>,
    /// Whether nothing may be written.
    hands_off: bool,
    /// The whole specification, as the applied record has it after the apply.
    spec: Option<&'a serde_json::Value>,
}

/// The claims of an object, for its finalizer.
struct Claims {
    interface: Option<InterfaceName>,
    protocols: Vec<String>,
}

/// Findings and steps of a reconcile.
struct Round {
    /// The steps that ran, each with its reason.
    steps: Vec<String>,
    /// The reason why it ended early.
    trouble: Option<Trouble>,
    /// The refusal that blocks the plan.
    refusal: Option<Refusal>,
    /// The remaining steps.
    remaining: Plan,
    /// The observation that was read back.
    look: Look,
}

impl Round {
    /// Returns whether the state that was read back is as wanted.
    fn is_settled(&self) -> bool {
        self.trouble.is_none() && self.refusal.is_none() && self.remaining.is_done()
    }

    /// Returns the obstacle of the whole router that BIRD waits for before it loads anything: reason and message.
    fn waits(&self) -> Option<(&'static str, String)> {
        let blocked = self.look.bird.blocked()?;
        let message = format!("waits for the node: {}", blocked.message);
        Some((blocked.reason, message))
    }

    /// Returns the time of the next reconcile, if all remaining steps wait for BIRD.
    fn waits_for_bird(&self) -> Option<Outcome> {
        match self.trouble.as_ref()? {
            Trouble::Waiting(_) if self.look.bird.silent.is_some() => {
                Some(Outcome::Settled(SETTLED_OBJECT))
            }
            Trouble::Waiting(_) => Some(Outcome::Settled(MOVING_OBJECT)),
            Trouble::TooSoon { left, .. } => Some(Outcome::Settled(*left)),
            _ => None,
        }
    }

    /// Returns the reason why the object cannot be applied.
    fn error(&self) -> Option<String> {
        let trouble = || self.trouble.as_ref().and_then(|trouble| trouble.error());
        self.refusal
            .as_ref()
            .map(ToString::to_string)
            .or_else(trouble)
    }
}

/// Observes, plans, applies, and observes again.
async fn round(
    ctx: &Arc<Context>,
    subject: &Subject<'_>,
    due: Instant,
    plan: impl Fn(&Look) -> KeyPlan,
) -> Result<Round, String> {
    let object = Some((subject.kind, subject.name));
    let (begun, world) = (Instant::now(), ctx.world());
    let mut look = ctx.look(&world, object, subject.endpoint, due).await?;
    let mut waiting = ctx.restarts.take(subject.key);
    if subject.hands_off {
        waiting
            .drain(..)
            .for_each(|waiter| drop(waiter.send(Err(paused(subject)))));
    }
    if !waiting.is_empty()
        && let Some(why) = unmakeable(subject, &look, &plan)
    {
        let why = format!("{} is left as it is: {why}", subject.key);
        waiting
            .drain(..)
            .for_each(|waiter| drop(waiter.send(Err(why.clone()))));
    }
    if !waiting.is_empty() {
        take_down(ctx, subject, &look).await?;
        look = ctx
            .look(&world, object, subject.endpoint, Instant::now())
            .await?;
    }
    let patience = match waiting.is_empty() {
        true => COMMIT_WAIT,
        false => COMMIT_WAIT_ATTENDED,
    };
    let round = converge(ctx, subject, &world, look, plan, patience).await;
    ctx.announced.forget(subject.key, begun);
    for waiter in waiting {
        let settled =
            round
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|round| match round.is_settled() {
                    true => Ok(()),
                    false => Err(round.error().unwrap_or_else(|| round.remaining.to_string())),
                });
        // The caller may have disconnected meanwhile.
        let _ = waiter.send(settled);
    }
    round
}

/// Returns the reason why an object could not be recreated, if its link were removed now.
fn unmakeable(
    subject: &Subject<'_>,
    look: &Look,
    plan: impl Fn(&Look) -> KeyPlan,
) -> Option<String> {
    if let Some(endpoint) = subject.endpoint
        && look.resolved.is_none()
    {
        let why = look.name_error.as_deref().unwrap_or("not looked up yet");
        return Some(format!(
            "the name of its endpoint {endpoint} has no address ({why})"
        ));
    }
    let mut kernel = KernelView::clone(&look.kernel);
    kernel.links.retain(|_, link| !link.mark.is(subject.uid));
    let taken_down = Look {
        kernel: Arc::new(kernel),
        ..look.clone()
    };
    match plan(&taken_down) {
        Ok(plan) => plan.waits,
        Err(refusal) => Some(refusal.to_string()),
    }
}

/// Returns the reason why a paused object is not recreated.
fn paused(subject: &Subject<'_>) -> String {
    let (key, folder, name) = (subject.key, subject.kind.folder(), subject.name);
    format!(
        "{key} is paused, so nothing is written for it; end that in overrides/{folder}/{name}.yaml first"
    )
}

/// Removes an object's link so that it is recreated, and its BGP sessions with it.
async fn take_down(ctx: &Arc<Context>, subject: &Subject<'_>, look: &Look) -> Result<(), String> {
    let because = Drift::new("restart", "a new link", "the old one");
    for step in crate::plan::plan_tunnel_removal(subject.uid, &look.kernel).steps {
        let step = Step {
            because: because.clone(),
            ..step
        };
        let plan = Plan {
            steps: vec![step],
            waits: None,
        };
        let (_, trouble) = apply::run(ctx, subject, &plan, look, COMMIT_WAIT_ATTENDED).await;
        if let Some(error) = trouble.and_then(|trouble| trouble.error()) {
            return Err(error);
        }
    }
    let protocols = subject.claims.iter().flat_map(|claims| &claims.protocols);
    for name in protocols.filter_map(|name| BirdName::new(name).ok()) {
        // BIRD may be down, or not have the protocol yet; then there is nothing to restart.
        let _ = tokio::time::timeout(COMMIT_WAIT, ctx.committer.restart(name)).await;
    }
    Ok(())
}

async fn converge(
    ctx: &Arc<Context>,
    subject: &Subject<'_>,
    world: &World,
    look: Look,
    plan: impl Fn(&Look) -> KeyPlan,
    patience: Duration,
) -> Result<Round, String> {
    let object = Some((subject.kind, subject.name));
    let planned = match plan(&look) {
        Ok(planned) if subject.hands_off => planned,
        Ok(planned) => apply::without_unsettable(ctx, planned),
        Err(refusal) => return Ok(done(look, Some(refusal), Plan::default())),
    };
    if planned.is_empty() || subject.hands_off {
        return Ok(done(look, None, planned));
    }
    record::finalizer(ctx, subject, &planned, &look).await?;
    let (steps, trouble) = apply::run(ctx, subject, &planned, &look, patience).await;
    let before = look;
    let look = ctx
        .look(world, object, subject.endpoint, Instant::now())
        .await?;
    let (refusal, rest) = match plan(&look) {
        Ok(rest) => (None, rest),
        Err(refusal) => (Some(refusal), Plan::default()),
    };
    if trouble.is_none() && refusal.is_none() {
        drift(ctx, subject, &repaired(&planned, &rest), &before);
    }
    let rest = apply::without_unsettable(ctx, rest);
    Ok(Round {
        steps,
        trouble,
        ..done(look, refusal, rest)
    })
}

/// Returns the kernel steps that took effect: the observation that was read back no longer needs them.
fn repaired<'a>(planned: &'a Plan, rest: &Plan) -> Vec<&'a Step> {
    let is_left = |step: &Step| rest.steps.iter().any(|left| left.action == step.action);
    let steps = planned.steps.iter();
    steps
        .filter(|step| matches!(step.action, Action::Kernel(_)) && !is_left(step))
        .collect()
}

/// Logs a repair: steps for an object whose specification was already applied.
fn drift(ctx: &Context, subject: &Subject<'_>, repaired: &[&Step], look: &Look) {
    let applied = look
        .applied
        .as_ref()
        .and_then(|applied| applied.applied.spec.as_ref());
    if applied.is_none() || applied != subject.spec {
        return;
    }
    let Some((first, others)) = repaired.split_first() else {
        return;
    };
    let announced = ctx.announced.take(subject.key);
    tracing::info!(
        object = %subject.key,
        because = %first.because,
        more = others.len(),
        announced,
        "drift repaired"
    );
}

fn done(look: Look, refusal: Option<Refusal>, remaining: Plan) -> Round {
    Round {
        steps: Vec::new(),
        trouble: None,
        refusal,
        remaining,
        look,
    }
}

/// Handles a peer that does not answer and may have moved: looks up its name again, and after a while tries the
/// next of its addresses.
fn chase(ctx: &Context, endpoint: &Endpoint, uid: &Uid, round: &Round) {
    let link = round.look.kernel.owned_by(uid).next().map(|(_, link)| link);
    let Some(wireguard) = link.and_then(|link| link.wireguard.as_ref()) else {
        return;
    };
    let now = round.look.now.as_second();
    let fresh = |at: jiff::Timestamp| (now - at.as_second()).abs() < HANDSHAKE_FRESH_SECONDS;
    if !wireguard
        .peers
        .values()
        .any(|peer| peer.last_handshake.is_some_and(fresh))
    {
        ctx.resolver.next(endpoint);
    }
}

/// Returns whether a step is for BIRD.
fn is_bird(action: &Action) -> bool {
    !matches!(action, Action::Kernel(_) | Action::Firewall(_))
}

/// Returns the claims of an object in the form of its finalizer.
fn claims(claims: impl IntoIterator<Item = Claim>) -> Claims {
    let mut found = Claims {
        interface: None,
        protocols: Vec::new(),
    };
    for claim in claims {
        match claim {
            Claim::Interface(name) => found.interface = Some(name),
            Claim::Protocol(name) => found.protocols.push(name),
            Claim::ListenPort(_) | Claim::Address(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::kernel::Sysctl;
    use crate::plan::action::KernelAction;

    fn plan(steps: &[(Sysctl, i64)]) -> Plan {
        let mut plan = Plan::default();
        plan.extend(steps.iter().map(|(key, value)| {
            let action = KernelAction::SetSysctl {
                interface: "wg_1".parse().ok(),
                key: *key,
                value: *value,
            };
            Step::kernel(action, Drift::new("tunnel.sysctl", value, "another"))
        }));
        plan
    }

    #[test]
    fn only_what_was_read_back_counts_as_repaired() {
        let (works, fails) = ((Sysctl::RpFilter, 0), (Sysctl::AcceptRa, 0));
        let planned = plan(&[works, fails]);
        let repaired = repaired(&planned, &plan(&[fails]));
        assert_eq!(repaired, [&plan(&[works]).steps[0]]);
    }
}
