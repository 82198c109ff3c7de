use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Breaker, Failure, State};
use crate::intervals::BREAKER_PROBE_STEP;
use crate::wire::Call;

/// The order in which lists probe an open breaker.
const PROBES: [Call; 4] = [Call::Sessions, Call::Config, Call::BirdConfig, Call::Mesh];

/// Decides which requests are sent.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) fetches: Breaker,
    pub(super) posts: Breaker,
    /// Number of failed probes of the fetches; after each the next list probes first.
    failed_probes: usize,
    /// Times before which the Control Plane asked not to send these calls (`Retry-After`).
    not_before: BTreeMap<Call, Duration>,
    /// Calls that an operator requested and that have not been sent yet.
    pub(super) urgent: BTreeSet<Call>,
}

impl Gate {
    pub(super) fn breaker(&mut self, call: Call) -> &mut Breaker {
        match call.is_post() {
            true => &mut self.posts,
            false => &mut self.fetches,
        }
    }

    pub(super) fn admit(&mut self, call: Call, now: Duration) -> Result<(), Failure> {
        if self.urgent.remove(&call) {
            self.not_before.remove(&call);
            self.breaker(call).force();
            return Ok(());
        }
        if let Some(retry_after) = self
            .not_before
            .get(&call)
            .and_then(|at| at.checked_sub(now))
        {
            return Err(Failure::RateLimited { retry_after });
        }
        let behind = BREAKER_PROBE_STEP * self.place(call);
        let admitted = self.breaker(call).admit(now, behind);
        admitted.map_err(|retry_in| Failure::BreakerOpen { retry_in })
    }

    /// Returns how many lists probe an open breaker before this one. The first is the sessions'
    /// list; after each failed probe the next list is first, so that a list that always fails does
    /// not starve others.
    fn place(&self, call: Call) -> u32 {
        let Some(at) = PROBES.iter().position(|probe| *probe == call) else {
            return 0;
        };
        let turn = self.failed_probes % PROBES.len();
        let place = (at + PROBES.len() - turn) % PROBES.len();
        u32::try_from(place).unwrap_or_default()
    }

    pub(super) fn record(&mut self, call: Call, failure: Option<&Failure>, now: Duration) {
        match failure.and_then(Failure::retry_after) {
            Some(wait) => drop(self.not_before.insert(call, now + wait)),
            None => drop(self.not_before.remove(&call)),
        }
        let breaker = self.breaker(call);
        let before = breaker.state(now);
        breaker.record(failure.is_none_or(Failure::is_alive), now);
        let after = breaker.state(now);
        if !call.is_post() {
            match (before, after) {
                (State::HalfOpen, State::Open) => self.failed_probes += 1,
                (_, State::Closed) => self.failed_probes = 0,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn failed() -> Failure {
        Failure::Network("down".to_owned())
    }

    /// A gate whose breaker of the fetches opened at the start.
    fn opened() -> Gate {
        let mut gate = Gate::default();
        for _ in 0..5 {
            gate.admit(Call::Mesh, seconds(0)).unwrap();
            gate.record(Call::Mesh, Some(&failed()), seconds(0));
        }
        gate
    }

    /// Lets all lists try every second, in the worst order, while every probe fails; returns the
    /// probes with their times.
    fn probes(gate: &mut Gate, until: u64) -> Vec<(Call, u64)> {
        let mut probes = Vec::new();
        for now in 0..until {
            for call in PROBES.into_iter().rev() {
                if gate.admit(call, seconds(now)).is_ok() {
                    gate.record(call, Some(&failed()), seconds(now));
                    probes.push((call, now));
                }
            }
        }
        probes
    }

    #[test]
    fn lists_probe_an_open_breaker_in_turn_sessions_first() {
        let mut gate = opened();
        let [sessions, config, bird_config, mesh] = PROBES;
        let wanted = [
            (sessions, 30),
            (config, 60),
            (bird_config, 90),
            (mesh, 120),
            (sessions, 150),
        ];
        assert_eq!(probes(&mut gate, 151), wanted);
        gate.admit(config, seconds(180)).unwrap();
        gate.record(config, None, seconds(180));
        for call in PROBES {
            gate.admit(call, seconds(180)).unwrap();
        }
    }

    #[test]
    fn list_that_never_asks_delays_the_others_by_a_step() {
        let mut gate = opened();
        assert!(gate.admit(Call::Mesh, seconds(35)).is_err());
        gate.admit(Call::Mesh, seconds(36)).unwrap();
    }

    #[test]
    fn withheld_call_is_told_when_it_may_probe() {
        let mut gate = opened();
        let retry_in = |gate: &mut Gate, call| match gate.admit(call, seconds(10)) {
            Err(Failure::BreakerOpen { retry_in }) => retry_in.as_secs(),
            other => panic!("{other:?}"),
        };
        let waits = PROBES.map(|call| retry_in(&mut gate, call));
        assert_eq!(waits, [20, 22, 24, 26]);
    }
}
