//! Repeats each call to the Control Plane, and remembers how it goes: a failure that lasts is visible in the log,
//! the notices, `/status` and the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::debug;

use super::Parts;
use crate::config::ControlPlane;
use crate::control_plane::{CallError, Class, Client, Failure, after_failure, at, jittered};
use crate::controller::{Convenience, Key};
use crate::document::ConditionType;
use crate::http::ListView;
use crate::status::{Fact, State, Topic};
use crate::telemetry::chain;
use crate::wire::Call;

/// So many failures in a row are no hiccup: the list counts as failing.
const FAILING: u32 = 3;

/// How a call to the Control Plane goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallHealth {
    /// When it last succeeded, since the agent started.
    pub last_success: Option<Timestamp>,
    /// How often it failed since then.
    pub consecutive_failures: u32,
    /// When the first of these failures was.
    pub failing_since: Option<Timestamp>,
    /// Why it failed last, and what to do.
    pub last_error: Option<String>,
    /// When it is tried again, while it fails.
    pub retry_at: Option<Timestamp>,
    /// Whether an operator has to act, so that trying again soon is of no use.
    needs_operator: bool,
    /// Whether the Control Plane did not answer at all.
    unreachable: bool,
}

impl CallHealth {
    /// The error and the next try, for the log.
    fn cause(&self) -> String {
        let error = self.last_error.clone().unwrap_or_default();
        let retry = self.retry_at.map(|at| format!("; next try at {at}"));
        error + &retry.unwrap_or_default()
    }

    /// Whether it fails for longer than a hiccup.
    pub fn is_failing(&self) -> bool {
        self.consecutive_failures >= FAILING
    }

    /// What an operator has to know, while there is something.
    fn notice(&self, call: Call) -> Option<String> {
        let error = self.last_error.as_ref()?;
        let since = self.failing_since?;
        (self.is_failing() || self.needs_operator).then(|| {
            let (word, times) = (call.word(), self.consecutive_failures);
            format!("Control Plane: {word} failed {times} times since {since}, keeping the last good data: {error}")
        })
    }
}

/// How every call goes, and what wakes its next attempt.
#[derive(Debug, Default)]
pub struct Calls {
    health: Mutex<BTreeMap<Call, CallHealth>>,
    wakes: [Notify; Call::ALL.len()],
}

impl Calls {
    /// How every call goes that was tried.
    pub fn all(&self) -> BTreeMap<Call, CallHealth> {
        self.lock().clone()
    }

    /// How every fetch of a list goes that was tried.
    pub fn lists(&self) -> BTreeMap<Call, CallHealth> {
        let mut all = self.all();
        all.retain(|call, _| !call.is_post());
        all
    }

    /// One sentence for each call that an operator has to know of.
    pub fn notices(&self) -> Vec<String> {
        let all = self.lock();
        all.iter()
            .filter_map(|(call, health)| health.notice(*call))
            .collect()
    }

    /// The fetches of lists, for the health: name, failures in a row, last error.
    pub(super) fn failures(&self) -> Vec<(String, u32, String)> {
        let lists = self.lists().into_iter();
        let failure = |(call, health): (Call, CallHealth)| {
            let error = health.last_error.unwrap_or_default();
            (call.word().to_owned(), health.consecutive_failures, error)
        };
        lists.map(failure).collect()
    }

    /// The last fetch of each list, for `/status`.
    pub(super) fn views(&self) -> BTreeMap<String, ListView> {
        let view = |(call, health): (Call, CallHealth)| {
            let view = ListView {
                last_success: health.last_success,
                consecutive_failures: health.consecutive_failures,
                last_error: health.last_error.as_deref().map(super::status::cut),
                retry_at: health.retry_at,
            };
            (call.word().to_owned(), view)
        };
        self.lists().into_iter().map(view).collect()
    }

    /// Facts for the log: whether the Control Plane answers, and each call that it answers and that fails.
    pub(super) fn facts(&self) -> Vec<(Topic, Fact)> {
        let all = self.all();
        let unreachable = all.values().find(|health| health.unreachable);
        let mut facts: Vec<_> = all
            .iter()
            .map(|(call, health)| {
                let state = match (health.unreachable, &health.last_error) {
                    (true, _) => State::Unknown,
                    (false, Some(_)) => State::Bad,
                    (false, None) => State::Good,
                };
                let topic = Topic::Call(call.word().to_owned());
                (topic, Fact::new(state, health.cause()))
            })
            .collect();
        let reachable = match unreachable {
            Some(health) => Fact::new(State::Bad, health.cause()),
            None if all.is_empty() => Fact::new(State::Unknown, ""),
            None => Fact::new(State::Good, ""),
        };
        facts.push((Topic::ControlPlane, reachable));
        facts
    }

    /// The condition of the lists: false while one of them fails for longer than a hiccup.
    fn lists_state(&self) -> Convenience {
        let lists = self.lists();
        let failing = lists.iter().filter(|(_, health)| health.is_failing());
        // Without the count, which would be news at each failure.
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

    /// Notes a success. Returns how it went before.
    fn succeeded(&self, call: Call) -> CallHealth {
        let health = CallHealth {
            last_success: Some(at(Duration::ZERO)),
            ..CallHealth::default()
        };
        self.lock().insert(call, health).unwrap_or_default()
    }

    /// Notes a failure.
    fn failed(&self, error: &CallError, wait: Duration) {
        let mut all = self.lock();
        let health = all.entry(error.call).or_default();
        let before = health.clone();
        health.consecutive_failures = before.consecutive_failures.saturating_add(1);
        health.failing_since = before.failing_since.or_else(|| Some(at(Duration::ZERO)));
        // An open breaker is no cause: what opened it is.
        if before.last_error.is_none() || !matches!(error.failure, Failure::BreakerOpen { .. }) {
            health.last_error = Some(chain(error));
            health.unreachable = matches!(error.failure, Failure::Network(_));
        }
        health.retry_at = Some(at(wait));
        health.needs_operator = error.class() == Class::Operator;
    }

    /// Ends the wait for the next attempt of a call.
    pub fn wake(&self, call: Call) {
        self.woken(call).notify_one();
    }

    fn woken(&self, call: Call) -> &Notify {
        &self.wakes[call as usize]
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Call, CallHealth>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repeats a call: after its interval with jitter, or later when it failed; at once when it is woken.
pub(super) async fn every<F: Future<Output = Result<(), CallError>>>(
    call: Call,
    interval: impl Fn(&ControlPlane) -> Duration,
    (parts, client): &(Arc<Parts>, Arc<Client>),
    act: impl Fn(Arc<Parts>, Arc<Client>) -> F,
) {
    loop {
        let result = act(Arc::clone(parts), Arc::clone(client)).await;
        let live = parts.live.get();
        let Some(config) = &live.control_plane else {
            return;
        };
        let wait = match &result {
            Ok(()) => jittered(interval(config), rand::random()),
            Err(error) => after_failure(interval(config), error.class(), rand::random()),
        };
        note(parts, call, result, wait);
        drop(tokio::time::timeout(wait, parts.calls.woken(call).notified()).await);
    }
}

/// Remembers how a call went. The announcer logs both edges.
fn note(parts: &Parts, call: Call, result: Result<(), CallError>, wait: Duration) {
    let calls = &parts.calls;
    let word = call.word();
    match result {
        Ok(()) => {
            let before = calls.succeeded(call);
            if before.consecutive_failures > 0 {
                parts.context.reports.deliver.notify_one();
            }
        }
        Err(error) => {
            calls.failed(&error, wait);
            let (error, retry_at) = (chain(&error), at(wait));
            debug!(call = word, error, %retry_at, "Control Plane call failed");
        }
    }
    let context = &parts.context;
    let is = calls.lists_state();
    if context
        .conveniences
        .set(ConditionType::ControlPlaneSynced, is)
    {
        context.hint(Key::Router);
    }
}
