//! How one call to the Control Plane goes, and whether the Control Plane answers at all.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::control_plane::{CallError, Class, Failure, at};
use crate::status::{Fact, State};
use crate::telemetry::chain;
use crate::wire::Call;

/// So many failures in a row are no hiccup: the list counts as failing.
const FAILING: u32 = 3;

/// So many different calls without an answer are an unreachable Control Plane; fewer are those calls' own fault.
const SILENT: usize = 2;

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
    /// The time of the next attempt, while it fails.
    pub retry_at: Option<Timestamp>,
    /// Whether an operator has to act, so that an early attempt is of no use.
    pub(super) needs_operator: bool,
    /// The requests in a row without an answer, while the Control Plane was reachable for others.
    unanswered: u32,
    /// Whether the answer could not be written, which is the state directory's fault.
    not_written: bool,
}

impl CallHealth {
    /// The health after a success at this moment.
    pub(super) fn succeeded() -> Self {
        Self {
            last_success: Some(at(Duration::ZERO)),
            ..Self::default()
        }
    }

    /// Notes a failure, and the wait for the next attempt.
    pub(super) fn fail(&mut self, error: &CallError, wait: Duration) {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.failing_since.get_or_insert_with(|| at(Duration::ZERO));
        // An open breaker is no cause: the failures that opened it are.
        if self.last_error.is_none() || !matches!(error.failure, Failure::BreakerOpen { .. }) {
            self.last_error = Some(chain(error));
            self.not_written = matches!(error.failure, Failure::NotWritten(_));
            self.unanswered = match error.failure {
                Failure::Network(_) => self.unanswered.saturating_add(1),
                _ => 0,
            };
        }
        self.retry_at = Some(at(wait));
        self.needs_operator = error.class() == Class::Operator;
    }

    /// Ends a series of failures without a success.
    pub(super) fn settle(&mut self) {
        *self = Self {
            last_success: self.last_success,
            ..Self::default()
        };
    }

    /// Forgets the requests without an answer but the last: the Control Plane was unreachable for all calls.
    pub(super) fn end_outage(&mut self) {
        self.unanswered = self.unanswered.min(1);
    }

    /// The error and the time of the next attempt, for the log.
    pub(super) fn cause(&self) -> String {
        let error = self.last_error.clone().unwrap_or_default();
        let retry = self.retry_at.map(|at| format!("; next try at {at}"));
        error + &retry.unwrap_or_default()
    }

    /// Whether it fails for longer than a hiccup.
    pub fn is_failing(&self) -> bool {
        self.consecutive_failures >= FAILING
    }

    /// The fact for the log. A call without an answer is bad by itself only while the Control Plane answers others.
    pub(super) fn fact(&self, unreachable: bool) -> Fact {
        let state = match &self.last_error {
            None => State::Good,
            // The edge of the state directory reports it.
            Some(_) if self.not_written => State::Unknown,
            Some(_) if self.unanswered == 0 => State::Bad,
            Some(_) if self.unanswered >= FAILING && !unreachable => State::Bad,
            Some(_) => State::Unknown,
        };
        Fact::new(state, self.cause())
    }

    /// What an operator has to know, while there is something.
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
/// One endpoint that hangs is not an unreachable Control Plane, however often it is called between the answers of
/// the others. So it takes two calls, of which one had an answer the last time.
#[derive(Debug, Default)]
pub(super) struct Silence {
    calls: BTreeSet<Call>,
    /// Whether one of them was answered, or never sent, before.
    new: bool,
    /// The cause of the last one.
    cause: String,
}

impl Silence {
    /// Notes a failure, with the call's health before and after it.
    pub(super) fn failed(&mut self, error: &CallError, before: &CallHealth, now: &CallHealth) {
        match &error.failure {
            Failure::Network(_) => {
                self.calls.insert(error.call);
                self.new |= before.unanswered == 0;
                self.cause = now.cause();
            }
            // No request went out.
            Failure::BreakerOpen { .. } | Failure::NoToken(_) | Failure::Tls(_) => {}
            _ => *self = Self::default(),
        }
    }

    /// The cause while the Control Plane is unreachable.
    pub(super) fn unreachable(&self) -> Option<&str> {
        (self.new && self.calls.len() >= SILENT).then_some(self.cause.as_str())
    }
}
