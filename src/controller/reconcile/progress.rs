//! State of a reconcile between its passes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::commit::{Before, BirdSteps, Commit, Work};
use super::is_bird;
use super::summary::Beginning;
use crate::controller::context::Waiter;
use crate::controller::error::{ReconcileError, Trouble};
use crate::controller::queue::Outcome;
use crate::desired::Desired;
use crate::intervals::{COMMIT_WAIT, COMMIT_WAIT_ATTENDED};
use crate::plan::{Action, Plan, Step};

/// Largest number of commits to BIRD in one reconcile: texts, and then protocols that are to be enabled.
const COMMITS: u8 = 3;
/// Largest number of kernel parts before a commit: a change from outside may fall between two observations.
const KERNEL_PARTS: u8 = 3;

/// What follows a run of a key.
pub(crate) enum Next {
    Done(Outcome),
    /// Steps ran in the kernel; the next pass reads them back.
    Observe(Progress),
    /// These steps run in BIRD; the next pass after that reads them back.
    Commit(Progress, BirdSteps),
    /// BIRD works for the key; its end, or the end of this time, is followed by the next run.
    Wait(Progress, Duration),
}

/// A part of a plan. The parts run one after the other, each followed by an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Kernel,
    Bird,
}

/// What a reconcile has done so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The time of its first run.
    pub(super) begun: Option<Instant>,
    /// The desired state in which it began.
    pub(super) desired: Option<Arc<Desired>>,
    /// The steps that ran, each with its reason.
    pub(super) steps: Vec<String>,
    /// The reason why it ended early.
    pub(super) trouble: Option<Trouble>,
    /// Facts from before the first step, for the log.
    pub(super) beginning: Option<Beginning>,
    /// Requests to recreate the object, which wait for the result.
    pub(super) waiting: Vec<Waiter>,
    /// BIRD's part of the key; an earlier reconcile may have begun it.
    pub(crate) commit: Commit,
    /// The kernel's part that ran last, and the number of such parts since BIRD's last one.
    kernel: (Option<Work>, u8),
    /// BIRD's part that ran last, and the number of such parts.
    bird: (Option<Work>, u8),
}

impl Progress {
    /// Takes the result of a commit that has ended. A failure of other steps than those that are planned now, such as
    /// of an older text, says nothing about the object.
    pub(super) fn take_commit(&mut self, planned: &Plan, seen: Instant) {
        let Some((work, committed)) = self.commit.take(seen) else {
            return;
        };
        let is_same = work.is_of(bird_steps(planned));
        if self.beginning.is_none() {
            let Before { beginning, steps } = *committed.before;
            self.beginning = beginning;
            self.steps.extend(steps);
        }
        self.steps.extend(committed.steps);
        if is_same {
            self.trouble = committed.trouble.or(self.trouble.take());
        }
        self.bird.0 = Some(work);
    }

    /// Returns the part of a plan that runs next; none after a failure, or when all have run. A removal removes
    /// BIRD's session before the tunnel under it; every other plan runs in the reverse order. The node's files for
    /// BIRD do not depend on its addresses.
    pub(super) fn next(&self, planned: &Plan, is_node: bool) -> Option<Part> {
        if self.trouble.is_some() {
            let is_due = is_node && self.kernel.1 > 0 && self.has_commit(planned);
            return is_due.then_some(Part::Bird);
        }
        let is_removal = |step: &Step| matches!(step.action, Action::RemoveFragment { .. });
        let order = match planned.steps.first().is_some_and(is_removal) {
            true => [Part::Bird, Part::Kernel],
            false => [Part::Kernel, Part::Bird],
        };
        let is_due = |part: &Part| match part {
            Part::Kernel => is_other(&self.kernel, kernel_steps(planned), KERNEL_PARTS),
            Part::Bird => self.has_commit(planned),
        };
        order.into_iter().find(is_due)
    }

    /// Returns whether BIRD's steps of a plan are to run: they exist, and are not those that ran last.
    fn has_commit(&self, planned: &Plan) -> bool {
        is_other(&self.bird, bird_steps(planned), COMMITS)
    }

    /// Returns whether a step failed because the kernel lacks something.
    pub(super) fn is_unsupported(&self) -> bool {
        self.trouble.as_ref().is_some_and(Trouble::is_unsupported)
    }

    /// Records that the kernel's part of a plan ran.
    pub(super) fn ran_kernel(&mut self, planned: &Plan) {
        self.kernel = (Some(Work::of(kernel_steps(planned))), self.kernel.1 + 1);
    }

    /// Records that BIRD begins its part: a tunnel that changes meanwhile is repaired.
    pub(super) fn begin_commit(&mut self) {
        if self.trouble.is_none() {
            self.kernel = (None, 0);
        }
        self.bird.1 += 1;
    }

    /// Returns what has happened so far, for a reconcile that follows this one.
    pub(super) fn before(&self) -> Before {
        Before {
            beginning: self.beginning.clone(),
            steps: self.steps.clone(),
        }
    }

    /// Begins again after the object was taken down: nothing that ran before counts.
    pub(super) fn taken_down(&mut self) {
        (self.trouble, self.kernel, self.bird) = (None, (None, 0), (None, 0));
    }

    /// Answers the requests that wait for a restart with the error that ends the reconcile, and returns it.
    pub(super) fn failed(&mut self, error: impl Into<ReconcileError>) -> ReconcileError {
        let error = error.into();
        for waiter in std::mem::take(&mut self.waiting) {
            // The caller may have disconnected meanwhile.
            let _ = waiter.send(Err(error.clone().into()));
        }
        error
    }

    /// Returns how much longer the reconcile waits for a running commit; none once it has waited long enough. With
    /// `patient` it waits until the end.
    pub(super) fn wait(&self, patient: bool) -> Option<Duration> {
        let work = self.commit.open()?;
        let limit = match self.waiting.is_empty() {
            true => COMMIT_WAIT,
            false => COMMIT_WAIT_ATTENDED,
        };
        match patient {
            true => Some(COMMIT_WAIT),
            false => limit
                .checked_sub(work.since.elapsed())
                .filter(|left| !left.is_zero()),
        }
    }
}

/// Returns whether steps are to run: there are any, and they are not those that ran last.
fn is_other<'a>(
    (last, parts): &(Option<Work>, u8),
    steps: impl Iterator<Item = &'a Step>,
    most: u8,
) -> bool {
    let mut steps = steps.peekable();
    steps.peek().is_some() && *parts < most && !last.as_ref().is_some_and(|last| last.is_of(steps))
}

fn kernel_steps(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.steps.iter().filter(|step| !is_bird(&step.action))
}

pub(super) fn bird_steps(plan: &Plan) -> impl Iterator<Item = &Step> {
    plan.steps.iter().filter(|step| is_bird(&step.action))
}
