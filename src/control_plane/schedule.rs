use std::time::Duration;

use jiff::Timestamp;

use super::Class;

/// The shortest wait after a failure that an operator has to act on.
const SLOW: Duration = Duration::from_secs(300);

/// An interval with ±10 % jitter, so that a fleet that started together does not poll together.
/// `random` is in `0.0..1.0`.
pub fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

/// The moment after a wait that begins now, in whole seconds: for log lines and `/status`.
pub fn at(wait: Duration) -> Timestamp {
    let at = Timestamp::now()
        .saturating_add(wait)
        .unwrap_or(Timestamp::MAX);
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// When to poll again after a failure of this class: 401 and 404 are not hammered, and a wait that
/// the Control Plane asks for is kept.
pub fn after_failure(interval: Duration, class: Class, random: f64) -> Duration {
    match class {
        Class::Operator => jittered(interval.max(SLOW), random),
        // Not before the time, so only later.
        Class::Later(wait) => wait
            .max(interval)
            .mul_f64(1.0 + 0.1 * random.clamp(0.0, 1.0)),
        Class::Transient => jittered(interval, random),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let minute = Duration::from_secs(60);
        assert_eq!(jittered(minute, 0.0), Duration::from_secs(54));
        assert_eq!(jittered(minute, 0.5), minute);
        assert!(jittered(minute, 0.999) <= Duration::from_secs(66));
    }

    #[test]
    fn a_refused_token_is_not_hammered_and_a_wait_is_kept() {
        let minute = Duration::from_secs(60);
        assert!(after_failure(minute, Class::Operator, 0.0) >= Duration::from_secs(270));
        let wait = Class::Later(Duration::from_secs(900));
        assert!(after_failure(minute, wait, 0.0) >= Duration::from_secs(900));
        assert_eq!(after_failure(minute, Class::Transient, 0.5), minute);
    }
}
