//! Fields of a text line. The message is the agent's own text; values come from outside, and lose their secrets.

use std::borrow::Cow;
use std::fmt::{self, Debug};

use anstyle::Style;
use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;

use crate::redact::redact;

/// The field with the text of an event.
pub(super) const MESSAGE: &str = "message";

pub(super) fn write(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let name = field.name();
    if name == MESSAGE {
        let text = format!("{value:?}");
        return writer.write_str(&printable(&text));
    }
    // With the name, because a public key is readable only after the word.
    let shown = format!("{name}={value:?}");
    let shown = redact(&shown);
    let value = shown
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('='));
    let Some(value) = value else {
        return writer.write_str(&printable(&shown));
    };
    let value = quoted(value);
    let value = printable(&value);
    if !writer.has_ansi_escapes() {
        return write!(writer, "{name}={value}");
    }
    let (italic, dim) = (Style::new().italic(), Style::new().dimmed());
    write!(writer, "{italic}{name}{italic:#}{dim}={dim:#}{value}")
}

/// Quotes a value with spaces or quotes, so that programs can tell where it ends.
fn quoted(value: &str) -> Cow<'_, str> {
    match !is_quoted(value) && value.contains(|c: char| c.is_whitespace() || c == '"') {
        true => Cow::Owned(format!("{value:?}")),
        false => Cow::Borrowed(value),
    }
}

/// Returns whether a value is one quoted string: no quote inside it ends it early.
fn is_quoted(value: &str) -> bool {
    let inside = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut is_escaped = false;
    let is_plain = |c: char| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        !ends
    };
    inside.is_some_and(|inside| inside.chars().all(is_plain)) && !is_escaped
}

/// Replaces control characters, which could change the terminal, by their escapes.
fn printable(text: &str) -> Cow<'_, str> {
    let is_safe = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(is_safe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_safe(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_spaces_are_quoted_once() {
        for (value, shown) in [
            ("wg_1", "wg_1"),
            ("add a route", "\"add a route\""),
            ("\"add a route\"", "\"add a route\""),
            ("say \"no\"", "\"say \\\"no\\\"\""),
            ("\"a\" is not \"b\"", "\"\\\"a\\\" is not \\\"b\\\"\""),
            ("\"a \\\"b\\\" c\"", "\"a \\\"b\\\" c\""),
            ("\"ends in \\\"", "\"\\\"ends in \\\\\\\"\""),
            ("\"", "\"\\\"\""),
        ] {
            assert_eq!(quoted(value), shown);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\tb\nc"), "a\tb\nc");
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}"), "a\\u{1b}[2Jb\\u{9b}");
    }
}
