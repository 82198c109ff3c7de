//! Equality of causes: a countdown that ticks is not another cause, another port or AS number is.

use jiff::Timestamp;

/// Units of durations and counts that change by themselves while a cause lasts.
const UNITS: [&str; 13] = [
    "ms", "s", "second", "seconds", "m", "min", "minutes", "h", "hours", "time", "times",
    "attempt", "attempts",
];

/// Returns whether two texts state the same cause: they differ at most in times, durations and counts of attempts.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    stable(one).eq(stable(other))
}

/// Returns the words of a cause without times, and without the numbers before a unit.
fn stable(cause: &str) -> impl Iterator<Item = &str> {
    let mut words = cause.split_whitespace().map(bare).peekable();
    std::iter::from_fn(move || {
        let word = words.next()?;
        let counts = is_number(word) && words.peek().is_some_and(|next| UNITS.contains(next));
        let ticks = counts || is_duration(word) || word.parse::<Timestamp>().is_ok();
        Some(if ticks { "" } else { word })
    })
}

/// Removes the punctuation around a word.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| c.is_ascii_punctuation())
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.parse::<f64>().is_ok()
}

/// Returns whether a word is a number with its unit, as `29s`.
fn is_duration(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < word.len() && UNITS.contains(&unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticking_numbers_are_the_same_cause() {
        for (one, other) in [
            ("next try in 12 s", "next try in 9 s"),
            (
                "refused; next try at 2026-11-26T20:00:00Z",
                "refused; next try at 2026-11-26T20:00:30.5Z",
            ),
            ("in 29s, another at once", "in 1.5s, another at once"),
            ("failed 3 times in a row: x", "failed 12 times in a row: x"),
        ] {
            assert!(is_same(one, other), "{one} / {other}");
        }
    }

    #[test]
    fn numbers_that_name_something_are_another_cause() {
        for (one, other) in [
            ("spec.asn: 0 is reserved", "spec.asn: 65535 is reserved"),
            ("port 51820 is taken", "port 51821 is taken"),
            ("10.0.0.1: no route", "10.0.0.2: no route"),
            ("sessions/wg_1.yaml:1:7: bad", "sessions/wg_1.yaml:2:7: bad"),
            (
                "import limit of 1000 exceeded",
                "import limit of 10 exceeded",
            ),
            ("status 502; next try in 3 s", "status 503; next try in 3 s"),
            ("fe80::1s", "fe80::2s"),
        ] {
            assert!(!is_same(one, other), "{one} / {other}");
        }
    }
}
