//! Repeats each call to the Control Plane and records its health. A lasting failure is visible in
//! the log, the notices, `/status` and the metrics.

mod health;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::debug;

use super::Syncer;
use crate::config::ControlPlane;
use crate::control_plane::{CallError, after_failure, at, jittered};
use crate::controller::Convenience;
use crate::document::ConditionType;
use crate::model::{ErrorClass, ObjectKey};
use crate::status::{Fact, State, Topic};
use crate::telemetry::chain;
use crate::wire::Call;

pub use health::CallHealth;
use health::Silence;

/// The health of every call, and the triggers of its next attempt.
#[derive(Debug, Default)]
pub struct Calls {
    state: Mutex<CallsState>,
    wakes: [Notify; Call::ALL.len()],
    /// Wakes failed calls that wait, once another call succeeds again.
    recovered: Notify,
}

#[derive(Debug, Default)]
struct CallsState {
    health: BTreeMap<Call, CallHealth>,
    silence: Silence,
}

impl CallsState {
    fn end_outage(&mut self, ended: bool) {
        if ended {
            self.health.values_mut().for_each(CallHealth::end_outage);
        }
    }
}

impl Calls {
    /// Health of every call that was tried.
    pub fn all(&self) -> BTreeMap<Call, CallHealth> {
        self.state.lock().health.clone()
    }

    /// Health of every fetch of a list that was tried.
    pub fn lists(&self) -> BTreeMap<Call, CallHealth> {
        let mut all = self.all();
        all.retain(|call, _| !call.is_post());
        all
    }

    /// Returns whether every list was fetched once, or failed.
    fn has_tried_lists(&self) -> bool {
        let mut lists = Call::ALL.into_iter().filter(|call| !call.is_post());
        let state = self.state.lock();
        lists.all(|call| state.health.contains_key(&call))
    }

    /// Notices for the operator, one sentence for each failing call.
    pub fn notices(&self) -> Vec<String> {
        let state = self.state.lock();
        let all = state.health.iter();
        all.filter_map(|(call, health)| health.notice(*call))
            .collect()
    }

    /// Failing fetches of lists for the agent's health: name, consecutive failures, last error.
    pub fn failures(&self) -> Vec<(String, u32, String)> {
        let lists = self.lists().into_iter();
        let failure = |(call, health): (Call, CallHealth)| {
            let error = health.last_error.unwrap_or_default();
            (call.word().to_owned(), health.consecutive_failures, error)
        };
        lists.map(failure).collect()
    }

    /// Facts for the log: whether the Control Plane is reachable, and each call that fails although
    /// the Control Plane answers.
    pub fn facts(&self) -> Vec<(Topic, Fact)> {
        let state = self.state.lock();
        let unreachable = state.silence.unreachable();
        let of_call = |(call, health): (&Call, &CallHealth)| {
            let topic = Topic::Call(call.word().to_owned());
            (topic, health.fact(unreachable.is_some()))
        };
        let mut facts: Vec<_> = state.health.iter().map(of_call).collect();
        let reachable = match unreachable {
            Some(cause) => Fact::new(State::Bad, cause),
            None if state.health.is_empty() => Fact::new(State::Unknown, ""),
            None => Fact::new(State::Good, ""),
        };
        facts.push((Topic::ControlPlane, reachable));
        facts
    }

    /// The condition of the lists: false while at least one fetch counts as failing.
    fn lists_state(&self) -> Convenience {
        let lists = self.lists();
        let failing = lists.iter().filter(|(_, health)| health.is_failing());
        // Without the count, which would change the message at each failure.
        let causes: Vec<_> = failing
            .filter_map(|(call, health)| {
                let cause = health.last_error.as_ref()?;
                Some(format!(
                    "{} since {}: {cause}",
                    call.word(),
                    health.failing_since?
                ))
            })
            .collect();
        match causes.is_empty() {
            true => Convenience::works("Fetched"),
            false => Convenience::fails("FetchFailed", causes.join("; ")),
        }
    }

    /// Records a success. Returns whether the call failed before.
    pub(super) fn succeeded(&self, call: Call) -> bool {
        let mut state = self.state.lock();
        let outage = state.silence.unreachable().is_some();
        state.silence = Silence::default();
        let before = state.health.insert(call, CallHealth::succeeded());
        state.end_outage(outage);
        drop(state);
        let recovered = before.is_some_and(|health| health.consecutive_failures > 0);
        if recovered {
            self.recovered.notify_waiters();
        }
        recovered
    }

    /// Records a failure and the wait until the next attempt.
    pub(super) fn failed(&self, error: &CallError, wait: Duration) {
        let mut state = self.state.lock();
        let CallsState { health, silence } = &mut *state;
        let health = health.entry(error.call).or_default();
        let before = health.clone();
        health.fail(error, wait);
        let outage = silence.unreachable().is_some();
        silence.failed(error, &before, health);
        let ended = outage && silence.unreachable().is_none();
        state.end_outage(ended);
        let (call, retry_at) = (error.call.word(), at(wait));
        debug!(call, error = chain(error), %retry_at, "Control Plane call failed");
    }

    /// Records that no further attempt is due. Keeps the time of the last success.
    pub(super) fn settled(&self, call: Call) {
        if let Some(health) = self.state.lock().health.get_mut(&call) {
            health.settle();
        }
    }

    /// Number of consecutive failures of a call.
    pub(super) fn failures_of(&self, call: Call) -> u32 {
        let state = self.state.lock();
        state
            .health
            .get(&call)
            .map_or(0, |health| health.consecutive_failures)
    }

    /// Ends the wait for the next attempt of a call.
    pub fn wake(&self, call: Call) {
        self.woken(call).notify_one();
    }

    fn woken(&self, call: Call) -> &Notify {
        &self.wakes[call as usize]
    }

    /// Waits for the next attempt of a call: until its time, until `wake`, or, if an early attempt
    /// may succeed, until another call succeeds again.
    async fn pause(&self, call: Call, wait: Duration, early: bool) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.woken(call).notified() => {}
            () = self.recovered.notified(), if early => {}
        }
    }
}

/// Repeats a call until the configuration has no Control Plane.
pub(super) async fn every<F: Future<Output = Result<(), CallError>>>(
    call: Call,
    interval: impl Fn(&ControlPlane) -> Duration,
    sync: &Arc<Syncer>,
    act: impl Fn(Arc<Syncer>) -> F,
) {
    repeat(
        &sync.calls,
        call,
        || sync.config.get().control_plane.as_ref().map(&interval),
        || async {
            let done = act(Arc::clone(sync)).await;
            if done.is_ok() {
                sync.client.list_written(call);
            }
            done
        },
        |recovered| tell(sync, recovered),
    )
    .await;
}

/// Repeats an attempt: after its interval with jitter, with backoff while it fails, immediately
/// after `wake` or when another call succeeds again. Calls `told` after each attempt, with whether
/// it ended a series of failures.
async fn repeat<F: Future<Output = Result<(), CallError>>>(
    calls: &Calls,
    call: Call,
    interval: impl Fn() -> Option<Duration>,
    attempt: impl Fn() -> F,
    told: impl Fn(bool),
) {
    loop {
        let result = attempt().await;
        let Some(interval) = interval() else { return };
        let (wait, early, recovered) = match &result {
            Ok(()) => (
                jittered(interval, rand::random()),
                false,
                calls.succeeded(call),
            ),
            Err(error) => {
                let failures = calls.failures_of(call) + 1;
                let wait = after_failure(interval, &error.failure, failures, rand::random());
                calls.failed(error, wait);
                (wait, may_succeed_early(error), false)
            }
        };
        told(recovered);
        calls.pause(call, wait, early).await;
    }
}

/// Returns whether the success of another call means that this one may succeed too. A refused token
/// or name is not retried early, and a wait that the Control Plane requested is kept.
fn may_succeed_early(error: &CallError) -> bool {
    let failure = &error.failure;
    failure.class() == ErrorClass::Transient && failure.requested_wait().is_none()
}

/// Updates reports and condition after a call. The announcer logs both edges.
fn tell(sync: &Syncer, recovered: bool) {
    let context = &sync.context;
    if recovered {
        context.reports.deliver.notify_one();
    }
    if sync.calls.has_tried_lists() && context.first_lists.fetched() {
        context.reports.reload();
    }
    let state = sync.calls.lists_state();
    if context
        .conveniences
        .set(ConditionType::ControlPlaneSynced, state)
    {
        context.hint(ObjectKey::Router);
    }
}
