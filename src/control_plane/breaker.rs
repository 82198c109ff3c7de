use std::fmt;
use std::time::Duration;

use crate::intervals::{BREAKER_COOLDOWN, BREAKER_PROBING};

/// Consecutive failures that open the breaker.
const THRESHOLD: u32 = 5;

/// The value of `circuitBreaker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Calls are sent.
    Closed,
    /// No call is sent.
    Open,
    /// One call may probe.
    HalfOpen,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        })
    }
}

/// A circuit breaker: opens after 5 consecutive failures, half-opens after 30 s, and then admits
/// one probe. Time is an input, counted from any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    opened: Option<Duration>,
    probing: bool,
}

impl Breaker {
    /// Admits a call, which may probe no sooner than `behind` after the breaker half-opened. The
    /// caller of an admitted call must [`record`](Self::record) its result, or
    /// [`abandon`](Self::abandon) it.
    ///
    /// # Errors
    /// The call is not admitted; the value is the time until this call may probe.
    pub fn admit(&mut self, now: Duration, behind: Duration) -> Result<(), Duration> {
        let Some(opened) = self.opened else {
            return Ok(());
        };
        let (passed, due) = (now.saturating_sub(opened), BREAKER_COOLDOWN + behind);
        if passed < due {
            return Err(due - passed);
        }
        if self.probing {
            return Err(BREAKER_PROBING);
        }
        self.probing = true;
        Ok(())
    }

    /// Admits a call that an operator requested, in any state; an open breaker takes it as its probe.
    pub fn force(&mut self) {
        self.probing = self.opened.is_some();
    }

    /// Records the result of an admitted call.
    pub fn record(&mut self, success: bool, now: Duration) {
        let probe = std::mem::take(&mut self.probing);
        if success {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if probe || (self.opened.is_none() && self.failures >= THRESHOLD) {
            self.opened = Some(now);
        }
    }

    /// Abandons an admitted call that was dropped before its answer; it has no result.
    pub fn abandon(&mut self) {
        self.probing = false;
    }

    /// Returns the current state.
    pub fn state(&self, now: Duration) -> State {
        match self.opened {
            None => State::Closed,
            Some(opened) if now.saturating_sub(opened) < BREAKER_COOLDOWN => State::Open,
            Some(_) => State::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            assert_eq!(breaker.state(at(0)), State::Closed);
            breaker.admit(at(0), at(0)).unwrap();
            breaker.record(false, at(0));
        }
        breaker
    }

    #[test]
    fn five_consecutive_failures_open_it() {
        let mut breaker = opened();
        assert_eq!(breaker.state(at(1)), State::Open);
        assert_eq!(breaker.admit(at(10), at(0)), Err(at(20)));
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let mut breaker = Breaker::default();
        for round in 0..20 {
            breaker.admit(at(0), at(0)).unwrap();
            breaker.record(round % 5 == 4, at(0));
        }
        assert_eq!(breaker.state(at(0)), State::Closed);
    }

    #[test]
    fn half_open_lets_one_probe_through() {
        let mut breaker = opened();
        assert_eq!(breaker.state(at(30)), State::HalfOpen);
        breaker.admit(at(30), at(0)).unwrap();
        assert!(breaker.admit(at(30), at(0)).is_err());
        breaker.record(true, at(31));
        assert_eq!(breaker.state(at(31)), State::Closed);
    }

    #[test]
    fn failed_probe_reopens_breaker_and_abandoned_probe_blocks_nothing() {
        let mut breaker = opened();
        breaker.admit(at(30), at(0)).unwrap();
        breaker.abandon();
        breaker.admit(at(30), at(0)).unwrap();
        breaker.record(false, at(31));
        assert_eq!(breaker.state(at(60)), State::Open);
        assert_eq!(breaker.state(at(61)), State::HalfOpen);
    }

    #[test]
    fn a_forced_call_is_the_probe_of_an_open_breaker() {
        let mut breaker = opened();
        breaker.force();
        breaker.record(false, at(10));
        assert_eq!(
            breaker.admit(at(39), at(0)),
            Err(at(1)),
            "the cooldown starts again"
        );
        breaker.force();
        breaker.record(true, at(20));
        assert_eq!(breaker.state(at(20)), State::Closed);
    }

    #[test]
    fn late_failure_of_old_call_does_not_keep_breaker_open() {
        let mut breaker = opened();
        breaker.record(false, at(29));
        assert_eq!(breaker.state(at(30)), State::HalfOpen);
    }
}
