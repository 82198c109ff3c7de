//! BIRD's part of a reconcile. It runs in its own task, beside the passes: a tunnel is repaired while BIRD hangs.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use futures::future::join_all;
use futures::poll;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::apply::note;
use super::summary::Beginning;
use crate::controller::context::Context;
use crate::controller::error::Trouble;
use crate::model::ObjectKey;
use crate::observed::bird::{BirdName, BirdState};
use crate::plan::{Action, BaseFiles, Step, plan_base};
use crate::ports::{BaseError, Fragment};
use crate::telemetry::step_failed;

/// Steps for BIRD, to tell whether others are the same.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    actions: Arc<[Action]>,
    /// The time at which they were planned.
    pub(super) since: Instant,
}

impl Work {
    /// Returns these steps, as planned now.
    pub(super) fn of<'a>(steps: impl Iterator<Item = &'a Step>) -> Self {
        Self {
            actions: steps.map(|step| step.action.clone()).collect(),
            since: Instant::now(),
        }
    }

    /// Returns whether these are the same steps.
    pub(super) fn is_of<'a>(&self, steps: impl Iterator<Item = &'a Step>) -> bool {
        steps.map(|step| &step.action).eq(self.actions.iter())
    }
}

/// BIRD's part of a key, shared by the runner and the key's runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commit(Option<Arc<(Work, Mutex<State>)>>);

#[derive(Debug)]
enum State {
    /// It waits for others of its pass, or BIRD works on it.
    Running,
    /// It ended at this time, and no run has taken its result yet.
    Ended(Committed, Instant),
    Over,
}

impl Commit {
    pub(super) fn begin(work: Work) -> Self {
        Self(Some(Arc::new((work, Mutex::new(State::Running)))))
    }

    /// Keeps the result for the next run of the key, which reads it back. `None`: the task panicked.
    pub(crate) fn end(&self, committed: Option<Committed>) {
        if let Some(commit) = &self.0 {
            let ended = |committed| State::Ended(committed, Instant::now());
            *commit.1.lock() = committed.map_or(State::Over, ended);
        }
    }

    /// Returns the work if it is for BIRD still, or no run has taken its result yet.
    pub(crate) fn open(&self) -> Option<&Work> {
        let (work, state) = &**self.0.as_ref()?;
        (!matches!(*state.lock(), State::Over)).then_some(work)
    }

    /// Takes the result of a commit that had ended when the observation began, which so reads it back.
    pub(super) fn take(&self, seen: Instant) -> Option<(Work, Committed)> {
        let (work, state) = &**self.0.as_ref()?;
        let mut state = state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Ended(committed, at) if at <= seen => Some((work.clone(), committed)),
            other => {
                *state = other;
                None
            }
        }
    }
}

/// The part of a reconcile before its commit to BIRD. A slow commit outlives the reconcile that began it, and the next
/// one reports both.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// Facts from before the first step, for the log.
    pub(super) beginning: Option<Beginning>,
    /// The steps that ran, each with its reason.
    pub(super) steps: Vec<String>,
}

/// The result of BIRD's part.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(super) before: Box<Before>,
    /// The steps that ran, each with its reason.
    pub(super) steps: Vec<String>,
    /// The reason why not all ran.
    pub(super) trouble: Option<Trouble>,
}

/// The steps of one object for BIRD.
pub(crate) struct BirdSteps {
    pub(super) ctx: Arc<Context>,
    pub(super) key: ObjectKey,
    pub(super) generation: u64,
    /// Protocols that the object's text defines.
    pub(super) protocols: Vec<String>,
    pub(super) steps: Vec<Step>,
    /// The state of these steps.
    pub(crate) commit: Commit,
    pub(super) before: Box<Before>,
    /// BIRD's state from which the steps were planned.
    pub(super) bird: Arc<BirdState>,
}

/// Shared by the steps of one pass until each has asked BIRD for its first change.
pub(crate) struct Asking(Arc<Context>);

impl Asking {
    pub(crate) fn new(context: &Arc<Context>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(context)))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.committer.all_requested();
    }
}

impl BirdSteps {
    /// Runs the steps. Those of a pass are asked for together.
    pub(crate) async fn run(self, asking: Option<Arc<Asking>>) -> Committed {
        let (steps, trouble) = {
            let mut work = pin!(self.take());
            let asked = poll!(work.as_mut());
            drop(asking);
            match asked {
                Poll::Ready(done) => done,
                Poll::Pending => work.await,
            }
        };
        Committed {
            before: self.before,
            steps,
            trouble,
        }
    }

    /// Returns the steps that ran, and the reason why not all did.
    async fn take(&self) -> (Vec<String>, Option<Trouble>) {
        let (mut taken, mut waiting) = (Vec::new(), None);
        let (base, own): (Vec<_>, Vec<_>) = self.steps.iter().partition(|step| is_base(step));
        if !base.is_empty() {
            if let Err(error) = commit(&self.ctx, &self.bird).await {
                return (taken, Some(error.into()));
            }
            base.iter().for_each(|step| self.ran(step, &mut taken));
        }
        for step in own {
            match self.take_one(step).await {
                Err(trouble) if trouble.waits() => waiting = Some(trouble),
                Ok(true) => self.ran(step, &mut taken),
                Ok(false) => {}
                Err(trouble) => {
                    step_failed(trouble.class(), &self.key, &step.action, &trouble);
                    return (taken, Some(trouble));
                }
            }
        }
        (taken, waiting)
    }

    fn ran(&self, step: &Step, taken: &mut Vec<String>) {
        taken.push(note(&self.ctx, &self.key, self.generation, step));
    }

    /// Returns whether the step changed something.
    async fn take_one(&self, step: &Step) -> Result<bool, Trouble> {
        match &step.action {
            Action::WriteFragment { name, text, .. } => self.write(name, text).await?,
            Action::RemoveFragment { name } => {
                self.ctx.committer.set_fragment(name, None).await?;
            }
            Action::LoadBird => {
                let loaded = self.ctx.committer.converge().await;
                loaded.map_err(Trouble::Commit)?;
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
        if let Err(left) = self.ctx.enabled.may(name, Instant::now()) {
            let protocol = name.to_owned();
            return Err(Trouble::TooSoon { protocol, left });
        }
        Ok(self.ctx.committer.enable(BirdName::new(name)?).await?)
    }

    /// Writes a session's text. The text belongs to the shared files of the same desired state, so both go in the same
    /// commit.
    async fn write(&self, name: &str, text: &Arc<str>) -> Result<(), Trouble> {
        let fragment = Fragment {
            text: text.clone(),
            protocols: self.protocols.clone(),
        };
        let ctx = &self.ctx;
        let session = ctx.committer.set_fragment(name, Some(fragment));
        let desired = ctx.desired();
        match &desired.base {
            Ok(files) => {
                // The router's own reconcile reports an error of the shared files.
                let (base, session) = tokio::join!(base(ctx, files), session);
                if base.is_ok() {
                    let generation = desired.router_documents.node.generation;
                    let steps = plan_base(files, &self.bird.live.tree.base).steps;
                    steps
                        .iter()
                        .for_each(|step| drop(note(ctx, &ObjectKey::Router, generation, step)));
                }
                session?;
            }
            Err(_) => drop(session.await?),
        }
        Ok(())
    }
}

fn is_base(step: &Step) -> bool {
    matches!(
        step.action,
        Action::WriteBase { .. } | Action::RemoveBase { .. }
    )
}

/// Commits the files that all sessions share, together with every changed session file. The sessions are due anyway, but
/// at their own times: an old text may call a function that the shared files no longer define, and a session that
/// backs off would then keep BIRD from reading them. One check and one reload are for all texts of one desired state.
///
/// They are those of the current desired state, as the texts of other objects that are set meanwhile.
async fn commit(ctx: &Arc<Context>, bird: &BirdState) -> Result<(), BaseError> {
    let desired = ctx.desired();
    let Ok(files) = &desired.base else {
        return Ok(());
    };
    let live = &bird.live.tree.fragments;
    // A session that is paused, or may be, stays as it is.
    let sessions = desired.objects.values().filter(|it| !it.may_be_paused());
    let sessions = sessions.filter_map(|session| {
        let (name, text) = (session.name.as_str(), session.text()?);
        let differs = live.get(name).is_some_and(|there| there != text);
        let fragment = Fragment {
            text: text.clone(),
            protocols: session.wanted()?.protocols().into_iter().collect(),
        };
        differs.then(|| ctx.committer.set_fragment(name, Some(fragment)))
    });
    // The session's own reconcile reports errors of its text.
    let (base, _) = tokio::join!(base(ctx, files), join_all(sessions));
    base
}

/// Sets the files that all sessions share.
async fn base(ctx: &Context, files: &BaseFiles) -> Result<(), BaseError> {
    ctx.committer.set_base(files.clone()).await.map(drop)
}
