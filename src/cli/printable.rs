//! Text of others on a terminal: control characters and invisible ones are escaped, so that no description moves the
//! cursor, hides a line or reverses a word.

use std::borrow::Cow;

use crate::model::is_visible;

/// The styles of this program and of its tables (SGR parameters): reset, bold, three colours.
const STYLES: [&str; 12] = [
    "", "0", "1", "31", "32", "33", "39", "1;31", "38;5;1", "38;5;9", "38;5;10", "38;5;11",
];

/// Returns a text of one line, with escapes in place of what is not visible.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |_| 0)
}

/// Returns a text of this program, which may have several lines, tabs and its own styles.
pub(super) fn styled(text: &str) -> Cow<'_, str> {
    replaced(text, |rest| match rest.as_bytes().first() {
        Some(b'\n' | b'\t') => 1,
        _ => style(rest).unwrap_or_default(),
    })
}

/// Returns JSON in which strings have escapes in place of what is not visible. JSON has such characters in strings only,
/// except line breaks.
pub(super) fn json(text: &str) -> String {
    let mut found = String::with_capacity(text.len());
    for c in text.chars() {
        match c == '\n' || is_visible(c) {
            true => found.push(c),
            false => {
                let units = c.encode_utf16(&mut [0; 2]).to_vec();
                found.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
    }
    found
}

/// Escapes what is not visible, except where `keep` returns the length of a part to keep.
fn replaced(text: &str, keep: impl Fn(&str) -> usize) -> Cow<'_, str> {
    if text.chars().all(is_visible) {
        return Cow::Borrowed(text);
    }
    let mut found = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let kept = match is_visible(c) {
            true => c.len_utf8(),
            false => keep(rest),
        };
        let (part, after) = rest.split_at(kept.max(c.len_utf8()));
        match kept {
            0 => found.extend(c.escape_default()),
            _ => found.push_str(part),
        }
        rest = after;
    }
    Cow::Owned(found)
}

/// Returns the length of the style at the start of a text.
fn style(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let (parameters, _) = parameters.split_once('m')?;
    STYLES
        .contains(&parameters)
        .then_some("\u{1b}[m".len() + parameters.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_invisible_characters_are_escaped() {
        let hostile = "a\u{1b}[2Jb\u{7}\r\n\u{9b}31mc\u{202e}d\u{200b}é";
        let shown = escaped(hostile);
        assert_eq!(
            shown,
            "a\\u{1b}[2Jb\\u{7}\\r\\n\\u{9b}31mc\\u{202e}d\\u{200b}é"
        );
        assert!(styled(hostile).contains("\\u{1b}[2Jb\\u{7}\\r\n\\u{9b}31mc"));
        assert_eq!(escaped("AS4242421080 → ok"), "AS4242421080 → ok");
    }

    #[test]
    fn only_styles_of_this_program_are_kept() {
        let own = "\u{1b}[38;5;10mok\u{1b}[39m \u{1b}[31mno\u{1b}[0m\tx";
        assert_eq!(styled(own), own);
        assert_eq!(styled("\u{1b}[8mx"), "\\u{1b}[8mx");
        assert_eq!(styled("\u{1b}]0;title\u{7}"), "\\u{1b}]0;title\\u{7}");
        assert_eq!(styled("\u{1b}["), "\\u{1b}[");
    }

    #[test]
    fn json_stays_json_with_the_same_text() {
        let value = serde_json::json!({"a": "\u{7f}\u{9b}\u{202e}\u{e0001}\u{1b}é"});
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.chars().all(|c| c == '\n' || is_visible(c)), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
