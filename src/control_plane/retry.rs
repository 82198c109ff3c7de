//! Retry timing: exponential backoff with full jitter, and `Retry-After`.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::intervals::{CALL_WAIT_MAX, RETRY_AFTER_MAX};
use crate::util::backoff::Backoff;

/// The upper bounds of the waits between the attempts of one call: doubled each time.
pub(super) fn bounds(first: Duration, retries: u32) -> impl Iterator<Item = Duration> {
    Backoff::new(first, CALL_WAIT_MAX)
        .waits()
        .take(retries as usize)
}

/// Full jitter: a wait between zero and the bound, so that a fleet that failed together does not
/// retry together. `random` is in `0.0..1.0`.
pub fn full_jitter(bound: Duration, random: f64) -> Duration {
    bound.mul_f64(random.clamp(0.0, 1.0))
}

/// Returns the wait of `Retry-After`, in seconds or as an HTTP date (RFC 9110, section 10.2.3). At
/// most 15 minutes (docs/contract/control-plane.md#failures).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// Returns by how many seconds a clock is ahead of the time of an answer (`Date`, RFC 9110, section 6.6.1).
pub(super) fn ahead(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    let seconds = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_secs()).ok()
    };
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some(seconds(now)? - seconds(date)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_longest_wait() {
        let bounds: Vec<u64> = bounds(Duration::from_secs(1), 7)
            .map(|d| d.as_secs())
            .collect();
        assert_eq!(bounds, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn jitter_is_full() {
        let bound = Duration::from_secs(8);
        assert_eq!(full_jitter(bound, 0.0), Duration::ZERO);
        assert_eq!(full_jitter(bound, 0.25), Duration::from_secs(2));
        assert!(full_jitter(bound, 0.999) < bound);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let read = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now)
        };
        let date = httpdate::fmt_http_date(now + Duration::from_secs(90));
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read(&date), Some(Duration::from_secs(90)));
        assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("86400"), Some(Duration::from_secs(900)));
        assert_eq!(read("99999999999"), Some(Duration::from_secs(900)));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn clock_is_compared_with_the_date_of_an_answer() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let read = |text: &str| ahead(&HeaderMap::from_iter([(DATE, text.parse().unwrap())]), now);
        let date = httpdate::fmt_http_date(now + Duration::from_secs(90));
        assert_eq!(read(&date), Some(-90));
        assert_eq!(read("yesterday"), None);
        assert_eq!(ahead(&HeaderMap::new(), now), None);
    }
}
