//! Reconciles one key, one part of its plan a pass: plan from the pass's observation, run the kernel's or BIRD's steps,
//! plan again from the next one; once nothing is left to run, record and report what was read back.

mod apply;
mod commit;
mod facts;
mod node_status;
mod object;
mod observed;
mod orphan;
mod progress;
mod record;
mod router;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::{Context, Waiter};
use super::error::{FailedPart, Obstacle, ReconcileError, RestartError, Trouble};
use super::pass::Observation;
use super::planning::{KeyObservation, KeyPlan};
use super::queue::Outcome;
use crate::desired::Desired;
use crate::document::{Kind, PackedSpec};
use crate::effective::Claim;
use crate::intervals::{COMMIT_WAIT, MOVING_OBJECT, SETTLED_OBJECT};
use crate::model::{Endpoint, ErrorClass, InterfaceName, ObjectKey, ObjectName, Uid};
use crate::observed::bird::BirdName;
use crate::observed::kernel::{HANDSHAKE_FRESH_SECONDS, KernelView};
use crate::plan::{Action, Drift, Plan, Refusal};
use crate::store::AppliedOverride;

use commit::Work;
pub(super) use commit::{Asking, BirdSteps, Commit, Committed};
pub use facts::{Sessions, peer, sessions};
pub use object::target;
pub use observed::observed;
pub(super) use progress::{Next, Progress};
use progress::{Part, bird_steps};
use summary::Beginning;

/// Brings one key closer to its wanted state. It takes the key and no reason: after any event, it compares everything
/// again. A reconcile keeps to the desired state in which it began: an object that stops being wanted half-way is recorded as
/// applied first, and then removed or held like any other. If the desired state wants another state by then, the next
/// reconcile follows at once.
pub(super) async fn reconcile(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    seen: &Observation,
    mut progress: Progress,
) -> Next {
    let desired = Arc::clone(progress.desired.get_or_insert_with(|| ctx.desired()));
    let next = match key {
        ObjectKey::Router | ObjectKey::Policy => {
            router::reconcile(ctx, &desired, seen, progress).await
        }
        ObjectKey::Orphan(uid) => orphan::reconcile(ctx, &desired, uid, seen, progress).await,
        ObjectKey::Firewall => Next::Done(router::firewall(ctx, seen).await),
        ObjectKey::Named(..) => object::reconcile(ctx, &desired, key, seen, progress).await,
    };
    match next {
        Next::Done(_) if is_outdated(&desired, &ctx.desired(), key) => {
            Next::Done(Outcome::Again(Duration::ZERO))
        }
        next => next,
    }
}

/// Returns whether the current desired state wants another state of a key than this one.
fn is_outdated(desired: &Arc<Desired>, now: &Arc<Desired>, key: &ObjectKey) -> bool {
    let is_other = match key {
        ObjectKey::Router | ObjectKey::Policy => true,
        ObjectKey::Firewall => false,
        key => desired.objects.get(key) != now.objects.get(key),
    };
    is_other && !Arc::ptr_eq(desired, now)
}

/// Facts about the object of a reconcile, besides how to plan for it.
struct ReconciledObject<'a> {
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
    spec: Option<&'a PackedSpec>,
    overridden: Option<AppliedOverride>,
}

impl<'a> ReconciledObject<'a> {
    /// Returns an object without specification, tunnel and claims.
    fn bare(key: &'a ObjectKey, kind: Kind, name: &'a ObjectName, uid: &'a Uid) -> Self {
        Self {
            key,
            kind,
            name,
            uid,
            generation: 0,
            endpoint: None,
            claims: None,
            hands_off: false,
            spec: None,
            overridden: None,
        }
    }
}

impl ReconciledObject<'_> {
    /// Returns the protocols that the object's text defines.
    fn protocols(&self) -> Vec<String> {
        let claims = self.claims.as_ref();
        claims
            .map(|claims| claims.protocols.clone())
            .unwrap_or_default()
    }
}

/// The claims of an object, for its finalizer.
struct Claims {
    interface: Option<InterfaceName>,
    protocols: Vec<String>,
}

/// Findings and steps of a reconcile.
struct ReconcileResult {
    /// The steps that ran, each with its reason.
    steps: Vec<String>,
    /// The reason why it ended early.
    trouble: Option<Trouble>,
    /// The refusal that blocks the plan.
    refusal: Option<Refusal>,
    remaining: Plan,
    /// The observation that was read back.
    observation: KeyObservation,
}

impl ReconcileResult {
    /// Returns whether the state that was read back is as wanted.
    fn is_settled(&self) -> bool {
        self.trouble.is_none() && self.refusal.is_none() && self.remaining.is_done()
    }

    /// Returns the time of the next reconcile, if all remaining steps wait for BIRD.
    fn waits_for_bird(&self) -> Option<Outcome> {
        match self.trouble.as_ref()? {
            Trouble::TooSoon { left, .. } => Some(Outcome::Settled(*left)),
            trouble if !trouble.waits() => None,
            _ if self.observation.bird.silent.is_some() => Some(Outcome::Settled(SETTLED_OBJECT)),
            trouble if trouble.is_late() => Some(Outcome::Waiting),
            _ => Some(Outcome::Settled(MOVING_OBJECT)),
        }
    }

    /// Returns the outcome of a reconcile that failed. Steps that are left without an error may succeed soon.
    fn failure(&self) -> Outcome {
        let class = match (&self.refusal, &self.trouble) {
            (Some(_), _) => ErrorClass::Conflict,
            (None, Some(trouble)) => trouble.class(),
            (None, None) => ErrorClass::Transient,
        };
        Outcome::Failed(class)
    }

    /// Returns the answer to those that wait until the object is recreated.
    fn answer(&self) -> Result<(), RestartError> {
        let failed = self.trouble.clone();
        let failed = failed.filter(|trouble| trouble.part() == FailedPart::Kernel);
        match (self.refusal.clone(), failed) {
            _ if self.is_settled() => Ok(()),
            (Some(refusal), _) => Err(RestartError::Refused(refusal)),
            (None, Some(trouble)) => Err(RestartError::Failed(trouble)),
            (None, None) => Err(RestartError::Unfinished(Box::new(self.remaining.clone()))),
        }
    }

    /// Returns the reason why the object cannot be applied.
    fn error(&self) -> Option<String> {
        let refusal = self.refusal.as_ref().map(ToString::to_string);
        refusal.or_else(|| self.failed(FailedPart::Kernel))
    }

    /// Returns the text of a failure of this part.
    fn failed(&self, part: FailedPart) -> Option<String> {
        self.trouble.as_ref()?.of(part)
    }
}

/// Runs the next part of an object's plan, or returns what the observation shows once no part is left.
///
/// # Errors
/// When the kernel or the state directory could not be read, or the claims could not be recorded.
async fn advance(
    ctx: &Arc<Context>,
    meta: &ReconciledObject<'_>,
    desired: &Arc<Desired>,
    seen: &Observation,
    plan: impl Fn(&KeyObservation) -> KeyPlan,
    mut progress: Progress,
) -> Result<Advance, ReconcileError> {
    let observation = ctx
        .look(desired, seen, meta.key, meta.endpoint)
        .map_err(|error| progress.failed(error))?;
    progress.begun.get_or_insert_with(Instant::now);
    if restart(ctx, meta, &observation, &plan, &mut progress).await? {
        return Ok(Advance::Next(Box::new(Next::Observe(progress))));
    }
    let planned = match plan(&observation) {
        Ok(planned) if meta.hands_off => planned,
        Ok(planned) => apply::without_unsettable(ctx, planned),
        Err(refusal) => {
            return Ok(Advance::end(ctx, meta, progress, observation, Err(refusal)));
        }
    };
    progress.take_commit(&planned, seen.begun);
    let part = progress.next(&planned, meta.kind == Kind::Node);
    let part = part.filter(|_| !meta.hands_off);
    if part.is_some() && progress.beginning.is_none() {
        progress.beginning = Beginning::of(ctx, meta, &planned, &observation);
    }
    // What BIRD still works on may come or go with its end. A tunnel is repaired meanwhile, and removed only after it.
    let waits = part != Some(Part::Kernel) || meta.claims.is_none();
    if progress.commit.open().is_some() && waits {
        if let Some(wait) = progress.wait(ctx.observer.is_patient()) {
            return Ok(Advance::Next(Box::new(Next::Wait(progress, wait))));
        }
        progress.trouble = Some(Trouble::Busy);
        return Ok(Advance::end(ctx, meta, progress, observation, Ok(planned)));
    }
    match part {
        None => {}
        Some(Part::Kernel) => {
            let recorded = record::finalizer(ctx, meta, &planned, &observation).await;
            recorded.map_err(|error| progress.failed(error))?;
            let (steps, trouble) = apply::kernel(ctx, meta, &planned).await;
            progress.steps.extend(steps);
            progress.trouble = trouble;
            progress.ran_kernel(&planned);
            return Ok(Advance::Next(Box::new(Next::Observe(progress))));
        }
        Some(Part::Bird) => match &observation.bird.silent {
            Some(why) => progress.trouble = Some(Trouble::Silent(why.clone())),
            None => {
                let next = begin_commit(ctx, meta, &planned, &observation, progress).await?;
                return Ok(Advance::Next(Box::new(next)));
            }
        },
    }
    Ok(Advance::end(ctx, meta, progress, observation, Ok(planned)))
}

/// Hands a plan's steps for BIRD to a task of their own.
async fn begin_commit(
    ctx: &Arc<Context>,
    meta: &ReconciledObject<'_>,
    planned: &Plan,
    observation: &KeyObservation,
    mut progress: Progress,
) -> Result<Next, ReconcileError> {
    let recorded = record::finalizer(ctx, meta, planned, observation).await;
    recorded.map_err(|error| progress.failed(error))?;
    progress.begin_commit();
    let steps = BirdSteps {
        ctx: Arc::clone(ctx),
        key: meta.key.clone(),
        generation: meta.generation,
        protocols: meta.protocols(),
        steps: bird_steps(planned).cloned().collect(),
        commit: Commit::begin(Work::of(bird_steps(planned))),
        before: Box::new(progress.before()),
        bird: Arc::clone(&observation.bird),
    };
    Ok(Next::Commit(progress, steps))
}

/// Result of [`advance`].
enum Advance {
    /// The reconcile continues with the next pass.
    Next(Box<Next>),
    /// Nothing is left to run.
    Ended(Box<ReconcileResult>),
}

impl Advance {
    /// Ends the parts of a reconcile, logs what changed, and answers those that wait for a restart.
    fn end(
        ctx: &Context,
        meta: &ReconciledObject<'_>,
        progress: Progress,
        observation: KeyObservation,
        planned: KeyPlan,
    ) -> Self {
        let (refusal, remaining) = match planned {
            Ok(remaining) => (None, remaining),
            Err(refusal) => (Some(refusal), Plan::default()),
        };
        let (steps, is_failed) = (progress.steps.len(), progress.trouble.is_some());
        if let Some(beginning) = &progress.beginning
            && steps > 0
            && !is_failed
            && refusal.is_none()
        {
            beginning.log(ctx, meta, steps, &remaining);
        }
        if let Some(begun) = progress.begun {
            ctx.announced.forget(meta.key, begun);
        }
        let waiting = progress.waiting;
        let result = ReconcileResult {
            steps: progress.steps,
            trouble: progress.trouble,
            refusal,
            remaining,
            observation,
        };
        let answer = result.answer();
        waiting
            .into_iter()
            .for_each(|waiter| drop(waiter.send(answer.clone())));
        Self::Ended(Box::new(result))
    }
}

/// Takes an object down that is to be recreated. Returns whether it did.
async fn restart(
    ctx: &Arc<Context>,
    meta: &ReconciledObject<'_>,
    observation: &KeyObservation,
    plan: impl Fn(&KeyObservation) -> KeyPlan,
    progress: &mut Progress,
) -> Result<bool, ReconcileError> {
    let asked = ctx.restarts.take(meta.key);
    if asked.is_empty() {
        return Ok(false);
    }
    let key = meta.key.clone();
    let refused = match meta.hands_off {
        true => Some(RestartError::Paused { key }),
        false => {
            unmakeable(meta, observation, plan).map(|why| RestartError::NotMakeable { key, why })
        }
    };
    if let Some(why) = refused {
        let refuse = |waiter: Waiter| drop(waiter.send(Err(why.clone())));
        asked.into_iter().for_each(refuse);
        return Ok(false);
    }
    progress.waiting.extend(asked);
    progress.taken_down();
    let taken_down = take_down(ctx, meta, observation).await;
    taken_down.map_err(|error| progress.failed(error))?;
    Ok(true)
}

/// Returns the reason why an object could not be recreated, if its link were removed now.
fn unmakeable(
    meta: &ReconciledObject<'_>,
    observation: &KeyObservation,
    plan: impl Fn(&KeyObservation) -> KeyPlan,
) -> Option<Obstacle> {
    if let Some(endpoint) = meta.endpoint
        && observation.resolved.is_none()
    {
        let why = observation
            .name_error
            .as_deref()
            .unwrap_or("not looked up yet");
        return Some(Obstacle::NoAddress {
            endpoint: endpoint.clone(),
            why: why.to_owned(),
        });
    }
    let mut kernel = KernelView::clone(&observation.kernel);
    kernel.links.retain(|_, link| !link.mark.is(meta.uid));
    let taken_down = KeyObservation {
        kernel: Arc::new(kernel),
        ..observation.clone()
    };
    match plan(&taken_down) {
        Ok(plan) => plan.waits.map(Obstacle::Waits),
        Err(refusal) => Some(refusal.into()),
    }
}

/// Removes an object's link so that it is recreated, and its BGP sessions with it.
async fn take_down(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    observation: &KeyObservation,
) -> Result<(), ReconcileError> {
    let because = Drift::new("restart", "a new link", "the old one");
    let mut removal = crate::plan::plan_tunnel_removal(meta.uid, &observation.kernel);
    let steps = removal.steps.iter_mut();
    steps.for_each(|step| step.because = because.clone());
    let (_, trouble) = apply::kernel(ctx, meta, &removal).await;
    if let Some(trouble) = trouble.filter(|trouble| trouble.part() == FailedPart::Kernel) {
        return Err(ReconcileError::TakeDown(trouble));
    }
    for name in meta.protocols() {
        let Ok(name) = BirdName::new(&name) else {
            continue;
        };
        // BIRD may be down, or not have the protocol yet; then there is nothing to restart.
        let _ = tokio::time::timeout(COMMIT_WAIT, ctx.committer.restart(name)).await;
    }
    Ok(())
}

/// Handles a peer that does not answer and may have moved: looks up its name again, and after a while tries the
/// next of its addresses.
fn chase(ctx: &Context, endpoint: &Endpoint, uid: &Uid, result: &ReconcileResult) {
    let link = result
        .observation
        .kernel
        .owned_by(uid)
        .next()
        .map(|(_, link)| link);
    let Some(wireguard) = link.and_then(|link| link.wireguard.as_ref()) else {
        return;
    };
    let now = result.observation.now.as_second();
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
