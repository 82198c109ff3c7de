use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{Subject, is_bird};
use crate::controller::context::{Context, Look};
use crate::controller::{bird_work, firewall};
use crate::model::ObjectKey;
use crate::observed::bird::{BirdName, BirdState};
use crate::plan::{Action, BaseFiles, Plan, Step, plan_base};
use crate::ports::{BaseError, CommitError, Fragment, FragmentError, KernelError};
use crate::telemetry::chain;

/// The reason why the steps did not run to their end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The kernel refused.
    #[error("{0}")]
    Kernel(String),
    /// The kernel, or the machine, lacks a feature.
    #[error("{0}")]
    Unsupported(String),
    /// BIRD refused the text of this object; the field is BIRD's message.
    #[error("BIRD refused it: {0}")]
    BirdRefused(String),
    /// BIRD hangs, or is busy; this ends without an operator.
    #[error("{0}")]
    Waiting(String),
    /// The protocol was enabled less than a minute ago, so the step waits.
    #[error("{what}")]
    TooSoon {
        /// The earlier enable, as text.
        what: String,
        /// Remaining wait.
        left: Duration,
    },
    /// BIRD could not receive the text, for a reason unrelated to the object.
    #[error("{0}")]
    Bird(String),
}

impl Trouble {
    /// Returns the text when the object itself cannot be configured; trouble with BIRD as a whole does not count.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Kernel(text) | Self::Unsupported(text) => Some(text.clone()),
            Self::BirdRefused(_) | Self::Bird(_) | Self::Waiting(_) | Self::TooSoon { .. } => None,
        }
    }

    /// Returns the trouble with BIRD as a whole.
    pub(super) fn of_bird(&self) -> Option<&str> {
        match self {
            Self::Bird(text) | Self::Waiting(text) | Self::TooSoon { what: text, .. } => Some(text),
            _ => None,
        }
    }

    /// Returns BIRD's message, when it refused the object.
    pub(super) fn refused(&self) -> Option<&str> {
        match self {
            Self::BirdRefused(text) => Some(text),
            _ => None,
        }
    }
}

/// Runs the steps of a plan in order: the kernel's steps one by one up to the first failure, then the firewall,
/// then BIRD's steps in one commit. Returns the steps that ran.
///
/// `look` is the observation from which the plan was made.
pub(super) async fn run(
    ctx: &Arc<Context>,
    subject: &Subject<'_>,
    plan: &Plan,
    look: &Look,
    patience: Duration,
) -> (Vec<String>, Option<Trouble>) {
    let removing = plan
        .steps
        .first()
        .is_some_and(|step| matches!(step.action, Action::RemoveFragment { .. }));
    let (bird, kernel): (Vec<&Step>, Vec<&Step>) =
        plan.steps.iter().partition(|step| is_bird(&step.action));
    let mut taken = Vec::new();
    // A removal removes BIRD's session before the tunnel under it; every other plan runs in the reverse order.
    if removing
        && let Some(trouble) = run_bird(ctx, subject, &bird, look, patience, &mut taken).await
    {
        return (taken, Some(trouble));
    }
    let outcome = run_kernel(ctx, subject, &kernel, &mut taken).await;
    let done = match outcome {
        Ok(()) => kernel.len(),
        Err(_) => taken.len().min(kernel.len()),
    };
    firewall::after_links(ctx, &kernel[..done]).await;
    if let Err(trouble) = outcome {
        return (taken, Some(trouble));
    }
    if !removing
        && let Some(trouble) = run_bird(ctx, subject, &bird, look, patience, &mut taken).await
    {
        return (taken, Some(trouble));
    }
    (taken, None)
}

/// Returns a plan without the steps for a sysctl that recently could not be set.
pub(super) fn without_unsettable(ctx: &Context, mut plan: Plan) -> Plan {
    let now = Instant::now();
    plan.steps
        .retain(|step| !ctx.sysctls.leaves_alone(step, now));
    plan
}

async fn run_kernel(
    ctx: &Context,
    subject: &Subject<'_>,
    steps: &[&Step],
    taken: &mut Vec<String>,
) -> Result<(), Trouble> {
    if steps.is_empty() {
        return Ok(());
    }
    let _turn = ctx.turns.kernel().await;
    for step in steps {
        if take(ctx, subject, step).await? {
            taken.push(step.to_string());
        }
    }
    Ok(())
}

/// Runs a step. `false`: it failed, and nothing depends on it.
async fn take(ctx: &Context, subject: &Subject<'_>, step: &Step) -> Result<bool, Trouble> {
    let Action::Kernel(action) = &step.action else {
        return Ok(true);
    };
    match ctx.kernel.apply(action).await {
        Ok(()) => {
            ctx.sysctls.done(step);
            note(ctx, subject.key, subject.generation, step);
            Ok(true)
        }
        Err(error) => {
            let text = chain(&error);
            // A sysctl is a convenience: the later steps are configured without it.
            if let Some(news) = ctx.sysctls.failed(step, &text, Instant::now()) {
                if news {
                    debug!(object = %subject.key, step = %step.action, error = %text, "sysctl not set");
                    ctx.hint(ObjectKey::Router);
                }
                return Ok(false);
            }
            // The object's condition has the error, and each attempt would add a log line.
            debug!(object = %subject.key, generation = subject.generation, step = %step.action, error = %text, "step failed");
            Err(match error {
                KernelError::Unsupported { .. } => Trouble::Unsupported(text),
                _ => Trouble::Kernel(text),
            })
        }
    }
}

/// Records that a step ran: in the log, and for the history. Records it once, also when several objects run it
/// together.
pub(super) fn note(ctx: &Context, key: &ObjectKey, generation: u64, step: &Step) {
    if ctx.taken.note(key, step) {
        info!(object = %key, generation, step = %step.action, because = %step.because, "applied");
    }
}

/// Runs the steps for BIRD, in a task that continues when BIRD takes longer than the patience.
async fn run_bird(
    ctx: &Arc<Context>,
    subject: &Subject<'_>,
    steps: &[&Step],
    look: &Look,
    patience: Duration,
    taken: &mut Vec<String>,
) -> Option<Trouble> {
    // The shared files go in one commit, from the world; see the router's reconcile.
    let of_base =
        |action: &Action| matches!(action, Action::WriteBase { .. } | Action::RemoveBase { .. });
    let steps = steps.iter().filter(|step| !of_base(&step.action));
    let work = BirdSteps {
        ctx: Arc::clone(ctx),
        key: subject.key.clone(),
        generation: subject.generation,
        protocols: subject
            .claims
            .as_ref()
            .map(|claims| claims.protocols.clone())
            .unwrap_or_default(),
        steps: steps.map(|step| Step::clone(step)).collect(),
        bird: Arc::clone(&look.bird),
    };
    if work.steps.is_empty() {
        return None;
    }
    if let Some(why) = &look.bird.silent {
        return Some(Trouble::Waiting(why.clone()));
    }
    let wanted = bird_work::Work::of(&work.steps);
    match bird_work::run(ctx, subject.key, wanted, patience, work.take()).await {
        Some((steps, trouble)) => {
            taken.extend(steps);
            trouble
        }
        None => Some(busy()),
    }
}

/// Returns the trouble of a key for which BIRD is busy.
pub(super) fn busy() -> Trouble {
    Trouble::Waiting("BIRD is busy and has not confirmed it yet".to_owned())
}

/// The steps of one object for BIRD.
struct BirdSteps {
    ctx: Arc<Context>,
    key: ObjectKey,
    generation: u64,
    /// Protocols that the object's text defines.
    protocols: Vec<String>,
    steps: Vec<Step>,
    /// BIRD's state from which the steps were planned.
    bird: Arc<BirdState>,
}

impl BirdSteps {
    /// Returns the steps that ran, and the reason why not all did.
    async fn take(self) -> (Vec<String>, Option<Trouble>) {
        let (mut taken, mut waiting) = (Vec::new(), None);
        for step in &self.steps {
            match self.take_one(step).await {
                Err(trouble @ (Trouble::Waiting(_) | Trouble::TooSoon { .. })) => {
                    waiting = Some(trouble);
                }
                Ok(true) => {
                    note(&self.ctx, &self.key, self.generation, step);
                    taken.push(step.to_string());
                }
                Ok(false) => {}
                Err(trouble) => {
                    debug!(object = %self.key, generation = self.generation, step = %step.action, error = %trouble, "step failed");
                    return (taken, Some(trouble));
                }
            }
        }
        (taken, waiting)
    }

    /// Returns whether the step changed something.
    async fn take_one(&self, step: &Step) -> Result<bool, Trouble> {
        match &step.action {
            Action::WriteFragment { name, text, .. } => self.write(name, text).await?,
            Action::RemoveFragment { name } => {
                let removed = self.ctx.committer.set_fragment(name, None).await;
                removed.map_err(refusal)?;
            }
            Action::LoadBird => {
                let loaded = self.ctx.committer.converge().await;
                loaded.map_err(|error| Trouble::Bird(chain(&*error)))?;
            }
            Action::EnableProtocol { name } => return self.enable(name).await,
            Action::Kernel(_)
            | Action::Firewall(_)
            | Action::WriteBase { .. }
            | Action::RemoveBase { .. } => return Ok(false),
        }
        Ok(true)
    }

    async fn enable(&self, name: &str) -> Result<bool, Trouble> {
        let trouble = |error: &dyn std::error::Error| Trouble::Bird(chain(error));
        let protocol = BirdName::new(name).map_err(|error| trouble(&error))?;
        if let Err(left) = self.ctx.enabled.may(name, Instant::now()) {
            let what = format!("{name} was enabled less than a minute ago");
            return Err(Trouble::TooSoon { what, left });
        }
        let enabled = self.ctx.committer.enable(protocol).await;
        enabled.map_err(|error| trouble(&error))
    }

    /// Writes a session's text. The text belongs to the shared files of the same world, so both go in the same
    /// commit.
    async fn write(&self, name: &str, text: &str) -> Result<(), Trouble> {
        let fragment = Fragment {
            text: text.to_owned(),
            protocols: self.protocols.clone(),
        };
        let ctx = &self.ctx;
        let session = ctx.committer.set_fragment(name, Some(fragment));
        let world = ctx.world();
        match &world.base {
            Ok(files) => {
                // The router's own reconcile reports an error of the shared files.
                let (base, session) = tokio::join!(base(ctx, files), session);
                if base.is_ok() {
                    let generation = world.router_documents.node.generation;
                    let steps = plan_base(files, &self.bird.live.tree.base).steps;
                    steps
                        .iter()
                        .for_each(|step| note(ctx, &ObjectKey::Router, generation, step));
                }
                session.map(drop).map_err(refusal)
            }
            Err(_) => session.await.map(drop).map_err(refusal),
        }
    }
}

/// Sets the files that all sessions share.
pub(super) async fn base(ctx: &Context, files: &BaseFiles) -> Result<(), String> {
    match ctx.committer.set_base(files.clone()).await {
        Ok(_) => Ok(()),
        Err(BaseError::Refused { what }) => Err(format!("BIRD configuration failed: {what}")),
        Err(error) => Err(chain(&error)),
    }
}

fn refusal(error: FragmentError) -> Trouble {
    match error {
        FragmentError::Refused { what, .. } => Trouble::BirdRefused(what.to_string()),
        FragmentError::Undefined { .. }
        | FragmentError::Unverified { .. }
        | FragmentError::Name(_) => Trouble::BirdRefused(error.to_string()),
        FragmentError::Commit(error) => commit(&error),
    }
}

/// Returns the trouble of a commit: BIRD's refusal, or an obstacle to the file, keeps the object from being
/// configured; every other error is temporary.
fn commit(error: &Arc<CommitError>) -> Trouble {
    match &**error {
        CommitError::Tree(what) => Trouble::BirdRefused(what.to_string()),
        CommitError::Foreign(_) | CommitError::OtherAgent(..) => {
            Trouble::BirdRefused(error.to_string())
        }
        error => Trouble::Bird(chain(error)),
    }
}
