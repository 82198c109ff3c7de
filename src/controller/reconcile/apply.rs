use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{Subject, is_bird};
use crate::bird::{BaseError, BirdName, CommitError, Fragment, FragmentError};
use crate::controller::BirdState;
use crate::controller::bird_work;
use crate::controller::context::{Context, Look};
use crate::controller::firewall;
use crate::controller::planning::Key;
use crate::plan::{Action, BaseFiles, Plan, Step, plan_base};
use crate::ports::KernelError;
use crate::telemetry::chain;

/// Why steps were not taken to their end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The kernel refused.
    #[error("{0}")]
    Kernel(String),
    /// The kernel, or the machine, lacks something.
    #[error("{0}")]
    Unsupported(String),
    /// BIRD refused the text of this object; these are BIRD's words.
    #[error("BIRD refused it: {0}")]
    BirdRefused(String),
    /// BIRD hangs, or is at work; this passes by itself.
    #[error("{0}")]
    Waiting(String),
    /// What BIRD needs was done to it less than a minute ago, and waits.
    #[error("{what}")]
    TooSoon {
        /// What it was.
        what: String,
        /// How long it waits.
        left: Duration,
    },
    /// BIRD could not be given the text, for a reason that is not the object's.
    #[error("{0}")]
    Bird(String),
}

impl Trouble {
    /// The text, when the object itself cannot be configured; trouble with BIRD as a whole is not that.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::Kernel(text) | Self::Unsupported(text) => Some(text.clone()),
            Self::BirdRefused(_) | Self::Bird(_) | Self::Waiting(_) | Self::TooSoon { .. } => None,
        }
    }

    /// What is wrong with BIRD as a whole.
    pub(super) fn of_bird(&self) -> Option<&str> {
        match self {
            Self::Bird(text) | Self::Waiting(text) | Self::TooSoon { what: text, .. } => Some(text),
            _ => None,
        }
    }

    /// BIRD's words, when it refused the object.
    pub(super) fn refused(&self) -> Option<&str> {
        match self {
            Self::BirdRefused(text) => Some(text),
            _ => None,
        }
    }
}

/// Takes the steps of a plan in their order: those for the kernel one by one up to the first that fails,
/// then the firewall, then those for BIRD in one commit. Returns the steps taken.
///
/// `look` is what the plan was made from.
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
    // A removal takes BIRD's session away before the tunnel under it; all else is the other way round.
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

/// A plan without the steps that set a sysctl which could not be set a moment ago.
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

/// Takes a step. `false`: it failed, and nothing depends on it.
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
            // A sysctl is a convenience: what follows it is configured without it.
            if let Some(news) = ctx.sysctls.failed(step, &text, Instant::now()) {
                if news {
                    debug!(object = %subject.key, step = %step.action, error = %text, "sysctl not set");
                    ctx.hint(Key::Router);
                }
                return Ok(false);
            }
            // The object's condition has the error, and each attempt would be a line.
            debug!(object = %subject.key, generation = subject.generation, step = %step.action, error = %text, "step failed");
            Err(match error {
                KernelError::Unsupported { .. } => Trouble::Unsupported(text),
                _ => Trouble::Kernel(text),
            })
        }
    }
}

/// Says that a step was taken: in the log, and for the history. Once, also when several objects take it
/// together.
pub(super) fn note(ctx: &Context, key: &Key, generation: u64, step: &Step) {
    if ctx.taken.note(key, step) {
        info!(object = %key, generation, step = %step.action, because = %step.because, "applied");
    }
}

/// Takes the steps for BIRD, in a task that goes on when BIRD takes longer than the patience.
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

/// BIRD is at work for this key.
pub(super) fn busy() -> Trouble {
    Trouble::Waiting("BIRD is busy and has not confirmed it yet".to_owned())
}

/// The steps of one object for BIRD.
struct BirdSteps {
    ctx: Arc<Context>,
    key: Key,
    generation: u64,
    /// What the object's text defines.
    protocols: Vec<String>,
    steps: Vec<Step>,
    /// BIRD, as the steps were planned by.
    bird: Arc<BirdState>,
}

impl BirdSteps {
    /// Returns the steps that were taken, and why not all.
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

    /// A session's text is made for the shared files of the same world, so they go in the same commit.
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
                // An error of the shared files is the router's to tell.
                let (base, session) = tokio::join!(base(ctx, files), session);
                if base.is_ok() {
                    let generation = world.router_documents.node.generation;
                    let steps = plan_base(files, &self.bird.live.tree.base).steps;
                    steps
                        .iter()
                        .for_each(|step| note(ctx, &Key::Router, generation, step));
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

/// What BIRD refuses, and what is in the file's way, keeps the object from being configured; all else passes.
fn commit(error: &Arc<CommitError>) -> Trouble {
    match &**error {
        CommitError::Tree(what) => Trouble::BirdRefused(what.to_string()),
        CommitError::Foreign(_) | CommitError::OtherAgent(..) => {
            Trouble::BirdRefused(error.to_string())
        }
        error => Trouble::Bird(chain(error)),
    }
}
