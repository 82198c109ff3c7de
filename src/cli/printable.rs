//! Text of others on a terminal: control characters and invisible ones are escaped, so that no description moves the
//! cursor, hides a line or reverses a word.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::model::is_visible;

/// Begins a style of this program in a text that others may have a part in. Random, so that no text of theirs has it.
static MARK: LazyLock<String> = LazyLock::new(|| format!("\u{1b}{:016x}", rand::random::<u64>()));

/// Marks the styles of a text whose other parts are escaped, so that [`styled`] keeps them.
pub(super) fn marked(text: &str) -> String {
    text.replace('\u{1b}', &MARK)
}

/// Returns a text of one line, with escapes in place of what is not visible.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |_| false)
}

/// Returns a text of this program, which may have several lines, tabs and [`marked`] styles.
pub(super) fn styled(text: &str) -> String {
    let parts = text.split(MARK.as_str());
    let parts = parts.map(|part| replaced(part, |c| matches!(c, '\n' | '\t')));
    parts.collect::<Vec<_>>().join("\u{1b}")
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

/// Escapes what is not visible, except for these characters.
fn replaced(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(is_visible) {
        return Cow::Borrowed(text);
    }
    let mut found = String::with_capacity(text.len());
    for c in text.chars() {
        match is_visible(c) || keep(c) {
            true => found.push(c),
            false => found.extend(c.escape_default()),
        }
    }
    Cow::Owned(found)
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
    fn only_marked_styles_are_kept() {
        let style = "\u{1b}[32mEstablished\u{1b}[39m";
        let text = format!("{}\t{style}\n", marked(style));
        let told = "\\u{1b}[32mEstablished\\u{1b}[39m";
        assert_eq!(styled(&text), format!("{style}\t{told}\n"));
        assert_eq!(styled("\u{1b}]0;title\u{7}"), "\\u{1b}]0;title\\u{7}");
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
