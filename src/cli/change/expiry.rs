//! The end of an override: after a time, or at a moment.

use jiff::Timestamp;
use serde_json::Value;

use crate::config::Interval;

/// A time that is neither a duration nor a moment, or that has passed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpiryError {
    #[error("use a duration as 2h or 2d, or a time as 2027-01-31T00:00:00Z")]
    Unknown,
    #[error("{0} has passed; the override would have no effect")]
    Passed(Timestamp),
}

/// Parses an argument.
///
/// # Errors
/// It is no time, or in the past.
pub(crate) fn parse(text: &str) -> Result<Timestamp, ExpiryError> {
    at(text, Timestamp::now())
}

fn at(text: &str, now: Timestamp) -> Result<Timestamp, ExpiryError> {
    let interval: Option<Interval> = serde_json::from_value(Value::String(text.to_owned())).ok();
    let moment: Option<Timestamp> = match interval {
        // The end is read by people: whole seconds.
        Some(interval) => i64::try_from(interval.get().as_secs())
            .ok()
            .and_then(|seconds| Timestamp::from_second(now.as_second() + seconds).ok()),
        None => text.parse().ok(),
    };
    let moment = moment.ok_or(ExpiryError::Unknown)?;
    match moment <= now {
        true => Err(ExpiryError::Passed(moment)),
        false => Ok(moment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_durations_and_moments_in_the_future() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let read = |text: &str| at(text, now).map(Timestamp::as_second);
        assert_eq!(read("2h"), Ok(1_800_007_200));
        assert_eq!(read("2d"), Ok(1_800_172_800));
        assert_eq!(read("2027-01-31T00:00:00Z"), Ok(1_801_353_600));
        for bad in ["", "soon", "2 weeks", "tomorrow", "0s"] {
            assert_eq!(read(bad), Err(ExpiryError::Unknown), "{bad}");
        }
        assert!(matches!(
            read("2020-01-31T00:00:00Z"),
            Err(ExpiryError::Passed(_))
        ));
    }
}
