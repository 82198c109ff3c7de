//! Lists and texts of bounded length.

/// Maximum entries of one list of an answer.
pub(crate) const MANY: usize = 20;
/// Maximum length of one text of an answer, in characters.
const LONG: usize = 400;

/// Returns the first entries, and one that counts the others.
pub(crate) fn bounded(all: impl IntoIterator<Item = String>, what: &str) -> Vec<String> {
    bounded_to(MANY, all, what)
}

/// The same, with this limit.
pub(crate) fn bounded_to(
    limit: usize,
    all: impl IntoIterator<Item = String>,
    what: &str,
) -> Vec<String> {
    let mut all = all.into_iter();
    let mut kept: Vec<String> = all.by_ref().take(limit).map(|text| cut(&text)).collect();
    match all.count() {
        0 => {}
        more => kept.push(format!("and {more} more {what}")),
    }
    kept
}

/// Returns a number with its noun, in the plural but for one.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A text of bounded length.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns seconds in one unit.
pub(crate) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let texts = bounded(
            (0..10_500).map(|n| format!("{n} {}", "x".repeat(1000))),
            "files",
        );
        assert_eq!(
            (texts.len(), texts[MANY].as_str()),
            (MANY + 1, "and 10480 more files")
        );
        assert!(texts.concat().len() < 10_000);
    }
}
