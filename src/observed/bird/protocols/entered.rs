/// When a protocol entered its state, as far as the operator's time format says it. BIRD computes the time for each
/// reply from two clocks, so one moment differs by a few milliseconds, and by more while the clock is adjusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// Epoch seconds: `timeformat protocol "%s"`.
    Epoch(i64),
    /// The second of a day: `iso short`, the default, and `iso long`.
    OfDay(i64),
    /// A date alone, with its number: `iso short` for what is longer ago than 20 hours.
    Date(u32),
}

/// Differences up to this count as one moment, in seconds.
const JITTER: i64 = 2;
const DAY: i64 = 86_400;

impl Entered {
    /// Parses the words of a row between state and details: `15:08:44.264`, `2026-11-22`, `2026-11-23 15:18:23 +0000` or
    /// `1795447104.000123`. `None`: another format.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let first = words.next()?;
        if let Some(second) = second_of_day(words.next().unwrap_or(first)) {
            return Some(Self::OfDay(second));
        }
        match first.split('-').collect::<Vec<_>>().as_slice() {
            [year, month, day] if first.len() == 10 => {
                format!("{year}{month}{day}").parse().ok().map(Self::Date)
            }
            _ => first.split('.').next()?.parse().ok().map(Self::Epoch),
        }
    }

    /// Returns whether a later reply tells of another moment.
    pub fn differs(self, later: Self) -> bool {
        match (self, later) {
            (Self::Epoch(one), Self::Epoch(other)) => one.abs_diff(other) > JITTER.unsigned_abs(),
            (Self::OfDay(one), Self::OfDay(other)) => {
                let apart = (other - one).rem_euclid(DAY);
                apart.min(DAY - apart) > JITTER
            }
            (Self::Date(one), Self::Date(other)) => one != other,
            // The same moment, longer ago.
            (Self::OfDay(_), Self::Date(_)) => false,
            // A moment that is not long ago, or the format was changed by a reconfiguration.
            _ => true,
        }
    }
}

/// Parses `15:08:44.264`.
fn second_of_day(text: &str) -> Option<i64> {
    let text = text.split('.').next()?;
    let mut parts = text.split(':').map(|part| part.parse::<i64>().ok());
    match [parts.next()??, parts.next()??, parts.next()??] {
        [hour @ 0..24, minute @ 0..60, second @ 0..=60] => Some((hour * 60 + minute) * 60 + second),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn differ(one: &str, other: &str) -> bool {
        let of = |text| Entered::parse(text).unwrap();
        of(one).differs(of(other))
    }

    #[test]
    fn jitter_of_one_moment_is_no_difference() {
        for (one, other) in [
            ("15:08:44.264", "15:08:44.265"),
            ("15:08:44.999", "15:08:45.000"),
            ("23:59:59.999", "00:00:00.001"),
            ("2026-11-22 23:59:59", "2026-11-23 00:00:00"),
            ("1795447104.999", "1795447105.000"),
            // The same moment after twenty hours.
            ("15:08:44.264", "2026-11-22"),
        ] {
            assert!(!differ(one, other), "{one} {other}");
        }
    }

    #[test]
    fn another_moment_differs_in_every_format() {
        for (one, other) in [
            ("15:08:44.264", "15:08:50.001"),
            ("2026-11-22", "15:09:10.001"),
            ("2026-11-22", "2026-11-23"),
            ("2026-11-22 10:00:00", "2026-11-22 10:00:09"),
            (
                "2026-11-22 10:00:00.000 +0000",
                "2026-11-22 10:00:09.000 +0000",
            ),
            ("1795447104.000123", "1795447109.000123"),
        ] {
            assert!(differ(one, other), "{one} {other}");
        }
    }

    #[test]
    fn unknown_format_says_nothing() {
        for text in ["", "yesterday", "25:00:00", "10:00"] {
            assert_eq!(Entered::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn random_texts_never_panic(one: String, other: String) {
            if let (Some(one), Some(other)) = (Entered::parse(&one), Entered::parse(&other)) {
                one.differs(other);
            }
        }
    }
}
