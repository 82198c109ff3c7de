//! Health of one call to the Control Plane, and reachability of the Control Plane.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::control_plane::{CallError, Failure, at};
use crate::model::ErrorClass;
use crate::status::{Fact, State};
use crate::telemetry::chain;
use crate::wire::Call;

/// Number of consecutive failures from which a call counts as failing; fewer are tolerated.
const FAILING: u32 = 3;

/// Number of different unanswered calls from which the Control Plane counts as unreachable; with
/// fewer, only these calls fail.
const SILENT: usize = 2;

/// Health of one call to the Control Plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallHealth {
    /// Time of the last success since the agent started.
    pub last_success: Option<Timestamp>,
    /// Number of failures since the last success.
    pub consecutive_failures: u32,
    /// Time of the first of these failures.
    pub failing_since: Option<Timestamp>,
    /// Last error, with the advice for the operator.
    pub last_error: Option<String>,
    /// Identifies the cause of the last error.
    key: Option<String>,
    /// The time of the next attempt, while it fails.
    pub retry_at: Option<Timestamp>,
    /// An operator has to act, so that an early attempt is useless.
    pub(super) needs_operator: bool,
    /// Consecutive requests without an answer while the Control Plane was reachable for other calls.
    unanswered: u32,
    /// The answer could not be written: a fault of the state directory.
    not_written: bool,
}

impl CallHealth {
    /// Returns the health after a success now.
    pub(super) fn succeeded() -> Self {
        Self {
            last_success: Some(at(Duration::ZERO)),
            ..Self::default()
        }
    }

    /// Records a failure and the wait until the next attempt.
    pub(super) fn fail(&mut self, error: &CallError, wait: Duration) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.failing_since.get_or_insert_with(|| at(Duration::ZERO));
        // An open breaker is not the cause; the failures that opened it are.
        if self.last_error.is_none() || !matches!(error.failure, Failure::BreakerOpen { .. }) {
            self.last_error = Some(chain(error));
            self.key = Some(error.cause());
            self.not_written = matches!(error.failure, Failure::NotWritten(_));
            self.unanswered = match error.failure {
                Failure::Network(_) => self.unanswered.saturating_add(1),
                _ => 0,
            };
        }
        self.retry_at = Some(at(wait));
        self.needs_operator = error.failure.class() == ErrorClass::Invalid;
    }

    /// Ends a series of failures without a success.
    pub(super) fn settle(&mut self) {
        *self = Self {
            last_success: self.last_success,
            ..Self::default()
        };
    }

    /// Reduces the count of unanswered requests to at most one: the Control Plane was unreachable for all calls.
    pub(super) fn end_outage(&mut self) {
        self.unanswered = self.unanswered.min(1);
    }

    /// Returns the error and the time of the next attempt, for the log.
    pub(super) fn cause(&self) -> String {
        let error = self.last_error.clone().unwrap_or_default();
        let retry = self.retry_at.map(|at| format!("; next try at {at}"));
        error + &retry.unwrap_or_default()
    }

    /// Returns whether enough consecutive attempts failed that the call counts as failing.
    pub fn is_failing(&self) -> bool {
        self.consecutive_failures >= FAILING
    }

    /// The fact for the log. An unanswered call is bad by itself only while the Control Plane answers other calls.
    pub(super) fn fact(&self, unreachable: bool) -> Fact {
        let state = match &self.last_error {
            None => State::Good,
            // Reported by the edge of the state directory.
            Some(_) if self.not_written => State::Unknown,
            Some(_) if self.unanswered == 0 => State::Bad,
            Some(_) if self.unanswered >= FAILING && !unreachable => State::Bad,
            Some(_) => State::Unknown,
        };
        Fact::new(state, self.cause()).of(self.key.clone())
    }

    /// The notice for the operator, while the call fails.
    pub(super) fn notice(&self, call: Call) -> Option<String> {
        let error = self.last_error.as_ref()?;
        let since = self.failing_since?;
        let keeping = match call.is_post() {
            true => "",
            false => ", keeping the last good data",
        };
        (self.is_failing() || self.needs_operator).then(|| {
            let (word, times) = (call.word(), self.consecutive_failures);
            format!("Control Plane: {word} failed {times} times since {since}{keeping}: {error}")
        })
    }
}

/// The calls without an answer since the last answer to any call.
///
/// One hanging endpoint does not make the Control Plane unreachable, however often it is called
/// between the answers of the others. So two calls must be unanswered, and at least one of them had
/// an answer the last time.
#[derive(Debug, Default)]
pub(super) struct Silence {
    calls: BTreeSet<Call>,
    /// Whether one of these calls was answered, or never sent, before.
    new: bool,
    /// The cause of the last failure.
    cause: String,
}

impl Silence {
    /// Records a failure, with the call's health before and after it.
    pub(super) fn failed(&mut self, error: &CallError, before: &CallHealth, now: &CallHealth) {
        match &error.failure {
            Failure::Network(_) => {
                self.calls.insert(error.call);
                self.new |= before.unanswered == 0;
                self.cause = now.cause();
            }
            // No request was sent.
            Failure::BreakerOpen { .. } | Failure::NoToken(_) | Failure::Tls(_) => {}
            _ => *self = Self::default(),
        }
    }

    /// The cause while the Control Plane is unreachable.
    pub(super) fn unreachable(&self) -> Option<&str> {
        (self.new && self.calls.len() >= SILENT).then_some(self.cause.as_str())
    }
}
