//! The only functions that turn a value into configuration text.
//!
//! A template can print a number, a boolean, an *atom* (letters, digits and `_ . : / -`), or the output
//! of one of the filters here. Any other value is an error that names template and line, so that a
//! text with a quote or a newline cannot become a statement, not even through an operator's template.

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use crate::model::is_visible;

/// Length limit of a string for BIRD, in bytes. A quoted string of 4096 bytes kills the daemon and
/// one of about 490 breaks its replies (tried on 2.0.12, 2.17, 2.20, 3.1 and 3.4).
pub const MAX_STRING: usize = 200;

/// Length limit of a text that must be printed exactly: a DNS name has up to 253 bytes.
const MAX_EXACT: usize = 255;

/// BIRD's length limit of a symbol, in bytes.
const MAX_SYMBOL: usize = 63;

/// Filters of minijinja that mark text as safe, or take safe text apart.
const UNSAFE_FILTERS: [&str; 12] = [
    "safe",
    "escape",
    "e",
    "join",
    "replace",
    "format",
    "indent",
    "split",
    "lines",
    "tojson",
    "urlencode",
    "string",
];

/// Restricts an environment to safe output.
pub(crate) fn guard(environment: &mut Environment<'_>) {
    environment.set_formatter(print);
    // Any mode except none lets macros and captures pass on output that the formatter has accepted.
    environment.set_auto_escape_callback(|_| AutoEscape::Custom("bird".into()));
    // Debug mode would put the values of variables, passwords among them, into errors.
    environment.set_debug(false);
    for name in UNSAFE_FILTERS {
        environment.remove_filter(name);
    }
    environment.add_filter("quote", |text: &str| Value::from_safe_string(quoted(text)));
    environment.add_filter("exact", exact);
    environment.add_filter("symbol", symbol);
}

fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let printable = match value.kind() {
        ValueKind::Number | ValueKind::Bool => true,
        ValueKind::String => value.is_safe() || value.as_str().is_some_and(is_atom),
        _ => false,
    };
    if !printable {
        // The value is not in the message: it may be a password.
        let message = match value.kind() {
            ValueKind::String => {
                "this text is not a bare word in BIRD; print it through `quote`".to_owned()
            }
            ValueKind::None => "no value; test for it with `if` first".to_owned(),
            kind => format!("a value of type {kind} cannot be printed"),
        };
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    let text = match value.kind() {
        // minijinja writes True, BIRD reads true.
        ValueKind::Bool => value.to_string().to_ascii_lowercase(),
        _ => value.to_string(),
    };
    out.write_str(&text)
        .map_err(|_| Error::new(ErrorKind::WriteFailure, "out of room"))
}

/// Returns whether a text has only letters, digits and `_ . : / -`: a number, an address, a prefix or a name, and never
/// a statement.
fn is_atom(text: &str) -> bool {
    let atom = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/' | b'-');
    !text.is_empty() && text.bytes().all(atom)
}

/// Returns a BIRD string with the printable part of the text. BIRD's strings have no escapes, so quotes and
/// backslashes are removed, and also characters that would garble a terminal or a log: control characters, line and
/// paragraph separators, and marks that change the writing direction. Other letters are kept: all
/// supported versions accept UTF-8 in strings.
pub fn quoted(text: &str) -> String {
    let mut kept = String::with_capacity(text.len().min(MAX_STRING) + 2);
    kept.push('"');
    for c in text.chars().filter(|c| is_plain(*c)) {
        if kept.len() + c.len_utf8() > MAX_STRING + 1 {
            break;
        }
        kept.push(c);
    }
    kept.push('"');
    kept
}

fn is_plain(c: char) -> bool {
    is_visible(c) && c != '"' && c != '\\'
}

/// Returns a BIRD string with exactly this text, or an error: for passwords and names, which must not be
/// changed silently.
fn exact(text: &str) -> Result<Value, Error> {
    let ok = text.len() <= MAX_EXACT
        && text
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'"');
    ok.then(|| Value::from_safe_string(format!("\"{text}\"")))
        .ok_or_else(|| {
            let message = format!(
                "only printable ASCII without \" and at most {MAX_EXACT} bytes can be quoted"
            );
            Error::new(ErrorKind::InvalidOperation, message)
        })
}

/// Returns a BIRD symbol in apostrophes, which allows `-`, `.` and `:` in names and keeps a name from being
/// read as a keyword.
fn symbol(text: &str) -> Result<Value, Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    let ok = (1..=MAX_SYMBOL).contains(&text.len()) && text.bytes().all(allowed);
    ok.then(|| Value::from_safe_string(format!("'{text}'")))
        .ok_or_else(|| {
            let message =
                format!("use a name of 1..{MAX_SYMBOL} characters of A-Z a-z 0-9 _ . : -");
            Error::new(ErrorKind::InvalidOperation, message)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendered(template: &str, text: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        guard(&mut environment);
        environment.render_str(template, minijinja::context! { text })
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_quotes(text in any::<String>()) {
            let quoted = quoted(&text);
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            prop_assert!(!inner.contains(['"', '\\', '\n', '\r']) && !inner.contains(char::is_control));
            prop_assert!(inner.len() <= MAX_STRING);
        }

        #[test]
        fn what_is_printed_bare_is_an_atom(text in any::<String>()) {
            if let Ok(printed) = rendered("{{ text }}", &text) {
                prop_assert!(is_atom(&printed) && printed == text);
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(quoted(&"x".repeat(4096)).len(), MAX_STRING + 2);
        assert_eq!(quoted(&"é".repeat(150)), format!("\"{}\"", "é".repeat(100)));
        assert_eq!(quoted(&"€".repeat(150)), format!("\"{}\"", "€".repeat(66)));
    }

    #[test]
    fn what_cannot_be_said_is_left_out() {
        assert_eq!(quoted("a\"b\\c\nd\u{202e}e\u{85}f\u{2028}g"), "\"abcdefg\"");
        assert_eq!(quoted("東京 Ünïcode 🛰"), "\"東京 Ünïcode 🛰\"");
    }

    #[test]
    fn a_filter_that_trusts_text_is_not_there() {
        for filter in UNSAFE_FILTERS {
            assert!(
                rendered(&format!("{{{{ text | {filter} }}}}"), "a; b").is_err(),
                "{filter}"
            );
        }
    }

    #[test]
    fn unquotable_secret_is_rejected_and_not_shown() {
        assert_eq!(
            rendered("{{ text | exact }}", "hunter2 \\o/").unwrap(),
            "\"hunter2 \\o/\""
        );
        for template in ["{{ text | exact }}", "{{ text }}"] {
            let error = rendered(template, "hunter2\"; x").unwrap_err();
            assert!(
                !format!("{error} {error:#} {error:?}").contains("hunter2"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn macros_and_captures_hold_what_was_checked() {
        let mut environment = Environment::new();
        guard(&mut environment);
        let template = "{% macro m(t) %}[{{ t | quote }}]{% endmacro %}{{ m(text) }}";
        let printed = environment
            .render_str(template, minijinja::context! { text => "a\"; b" })
            .unwrap();
        assert_eq!(printed, "[\"a; b\"]");
        let bare = "{% set x %}{{ text }}{% endset %}{{ x }}";
        assert!(
            environment
                .render_str(bare, minijinja::context! { text => "a; b" })
                .is_err()
        );
    }
}
