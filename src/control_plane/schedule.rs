use std::time::Duration;

use jiff::Timestamp;

use super::Failure;
use super::retry::full_jitter;
use crate::intervals::{CALL_RETRY, OPERATOR_RETRY};
use crate::model::ErrorClass;
use crate::util::backoff::Backoff;

/// An interval with ±10 % jitter, so that a fleet that started together does not poll together.
/// `random` is in `0.0..1.0`.
pub fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

/// Returns the time after a wait that begins now, in whole seconds: for log lines and `/status`.
pub fn at(wait: Duration) -> Timestamp {
    let at = Timestamp::now()
        .saturating_add(wait)
        .unwrap_or(Timestamp::MAX);
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The wait before the next attempt, after this number of consecutive failures, the last of which was this one: 401
/// and 404 are retried slowly, and a wait that the Control Plane requested is respected.
pub fn after_failure(
    interval: Duration,
    failure: &Failure,
    failures: u32,
    random: f64,
) -> Duration {
    match (failure, failure.requested_wait(), failure.class()) {
        // Without jitter, which would make it random which call probes an open breaker.
        (Failure::BreakerOpen { retry_in }, ..) => *retry_in,
        // Never before the requested time, so the jitter only adds.
        (_, Some(wait), _) => wait
            .mul_f64(1.0 + 0.1 * random.clamp(0.0, 1.0))
            .max(backoff(interval, failures, random)),
        (_, None, ErrorClass::Invalid) => jittered(interval.max(OPERATOR_RETRY), random),
        _ => backoff(interval, failures, random),
    }
}

/// Exponential backoff with full jitter until it reaches the interval; from then on the interval.
fn backoff(interval: Duration, failures: u32, random: f64) -> Duration {
    match Backoff::new(CALL_RETRY, interval).wait(failures.saturating_sub(1)) {
        bound if bound < interval => full_jitter(bound, random),
        _ => jittered(interval, random),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limited(seconds: u64) -> Failure {
        let retry_after = Duration::from_secs(seconds);
        Failure::RateLimited { retry_after }
    }

    fn unreachable() -> Failure {
        Failure::Network("connection refused".to_owned())
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        assert_eq!(jittered(MINUTE, 0.0), Duration::from_secs(54));
        assert_eq!(jittered(MINUTE, 0.5), MINUTE);
        assert!(jittered(MINUTE, 0.999) <= Duration::from_secs(66));
    }

    #[test]
    fn rejected_token_backs_off_and_retry_after_is_kept() {
        for failures in [1, 2, 100] {
            let no_token = Failure::NoToken("no file".to_owned());
            let refused = after_failure(MINUTE, &no_token, failures, 0.0);
            assert!(refused >= Duration::from_secs(270));
            let wait = after_failure(MINUTE, &limited(900), failures, 0.0);
            assert!(wait >= Duration::from_secs(900));
        }
    }

    #[test]
    fn failures_back_off_up_to_the_interval() {
        let interval = Duration::from_secs(300);
        let bound = |failures| after_failure(interval, &unreachable(), failures, 1.0).as_secs();
        let bounds: Vec<u64> = (1..=6).map(bound).collect();
        assert_eq!(bounds, [5, 10, 20, 40, 80, 160]);
        for failures in [7, 8, u32::MAX] {
            assert_eq!(
                after_failure(interval, &unreachable(), failures, 0.5),
                interval
            );
        }
        assert_eq!(after_failure(MINUTE, &unreachable(), 5, 0.5), MINUTE);
        let second = Duration::from_secs(1);
        assert_eq!(after_failure(second, &unreachable(), 1, 0.5), second);
    }

    #[test]
    fn open_breaker_does_not_cost_a_whole_interval() {
        let retry_in = Duration::from_secs(30);
        let wait = after_failure(
            Duration::from_secs(300),
            &Failure::BreakerOpen { retry_in },
            2,
            1.0,
        );
        assert_eq!(wait, retry_in);
    }

    #[test]
    fn requested_wait_is_never_shortened() {
        let wait = after_failure(Duration::from_secs(300), &limited(30), 2, 1.0);
        assert_eq!(wait, Duration::from_secs(33));
    }
}
