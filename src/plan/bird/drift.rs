//! The difference between two BIRD texts, described without secrets.

use crate::plan::Drift;

/// Length limit of a shown line, in characters.
const SHOWN: usize = 80;
/// Lines that contain one of these are not shown. BIRD accepts passwords only in quotes, and keys of TCP-AO in
/// hexadecimal too.
const HIDES: [&str; 5] = ["\"", "password", "secret", "key", "hex"];

/// Returns the first line that differs, and the extent of the difference.
pub(super) fn drift(want: &str, have: &str) -> Drift {
    let (want, have) = (said(want), said(have));
    if want == have {
        return Drift::new("bird.session", "new comments", "others");
    }
    let first = want.iter().zip(&have).take_while(|(a, b)| a == b).count();
    let shorter = want.len().min(have.len()) - first;
    let end = want
        .iter()
        .rev()
        .zip(have.iter().rev())
        .take(shorter)
        .take_while(|(a, b)| a == b)
        .count();
    let more = have.len().max(want.len()).saturating_sub(end + first + 1);
    let (new, old) = (line(&want, first, end), line(&have, first, end));
    let (new, old) = match [new, old].into_iter().flatten().all(is_shown) {
        true => (shown(new), shown(old)),
        false => (
            "a new line, not shown".to_owned(),
            "an old line, not shown".to_owned(),
        ),
    };
    let more = match more {
        0 => String::new(),
        1 => ", and 1 other line".to_owned(),
        n => format!(", and {n} other lines"),
    };
    Drift::new("bird.session", new, format!("{old}{more}"))
}

/// Returns the lines of a text without comments.
fn said(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// Returns a line, unless it belongs to the common end.
fn line<'a>(lines: &[&'a str], at: usize, end: usize) -> Option<&'a str> {
    lines[..lines.len() - end].get(at).copied()
}

fn is_shown(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    !HIDES.iter().any(|word| line.contains(word))
}

fn shown(line: Option<&str>) -> String {
    match line {
        None => "(none)".to_owned(),
        Some(line) if line.chars().count() > SHOWN => {
            line.chars().take(SHOWN).chain(['…']).collect()
        }
        Some(line) => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(want: &str, have: &str) -> String {
        let drift = drift(want, have);
        format!("want {}, have {}", drift.want, drift.have)
    }

    #[test]
    fn the_first_line_that_differs_is_shown() {
        assert_eq!(
            told("a\nlink(2);\nc", "a\n  link(1);\nc"),
            "want link(2);, have link(1);"
        );
        assert_eq!(
            told("a\nx\ny\nd", "a\nb\nc\nd"),
            "want x, have b, and 1 other line"
        );
        assert_eq!(
            told("a\nx\nb\nb\ny\nd", "a\n1\nb\nb\n2\nd"),
            "want x, have 1, and 3 other lines"
        );
        assert_eq!(told("# new\n\na\nb", "# old\na\nc"), "want b, have c");
        assert_eq!(
            told("# new\na", "# old\na"),
            "want new comments, have others"
        );
        assert_eq!(told("a\nb", "a"), "want b, have (none)");
        assert_eq!(told("a\na", "a\na\na"), "want (none), have a");
        let long = "x".repeat(100);
        assert_eq!(told(&long, "y"), format!("want {}…, have y", &long[..80]));
    }

    #[test]
    fn no_line_that_may_hold_a_secret_is_shown() {
        for line in [
            "password \"a\";",
            "Password 1",
            "  \"a\";",
            "secret hex:00;",
            "key 00:11",
        ] {
            assert_eq!(
                told(line, "x"),
                "want a new line, not shown, have an old line, not shown",
                "{line}"
            );
            assert_eq!(
                told("x", line),
                "want a new line, not shown, have an old line, not shown",
                "{line}"
            );
        }
    }
}
