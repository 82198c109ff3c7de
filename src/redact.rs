//! Removes secrets from every text that leaves the agent: log lines, answers of the local API, output of the command
//! line, commit messages. Operators paste keys and passwords into reasons, comments and wrong fields.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, BuildError};
use parking_lot::RwLock;
use serde_json::Value;

use crate::model::without_secret_keys;

const HIDDEN: &str = "(secret)";
/// Shortest secret that is searched for, in bytes.
const SHORTEST: usize = 6;
/// The same for one of letters only, which may be an ordinary word.
const SHORTEST_WORD: usize = 12;
/// So many other characters than digits it has: `4242421080`, `AS4242421080` and `wg_4242421080` are names.
const NOT_DIGITS: usize = 4;
/// Ends of the names of fields whose value is a secret, in lower case.
const SECRET_FIELDS: [&str; 5] = ["presharedkey", "privatekey", "password", "psk", "token"];
/// Ends of the names of fields whose value is a file in `secrets/`, in lower case.
const SECRET_FILES: [&str; 2] = ["presharedkeyfile", "passwordfile"];

/// Secrets that this process has read.
static KNOWN: RwLock<Known> = RwLock::new(Known {
    by_source: BTreeMap::new(),
    matcher: OnceLock::new(),
});

struct Known {
    /// The secret of each file, and each configured token.
    by_source: BTreeMap<String, String>,
    /// Finds all of them; built at the first text after a change.
    matcher: OnceLock<Result<AhoCorasick, BuildError>>,
}

/// Remembers the secret of a source, so that no text shows it; it replaces the earlier one of that source. A secret that
/// could be a name or an ordinary word is not searched for.
pub(crate) fn remember(source: &str, secret: &str) {
    set(
        source,
        Some(secret.trim()).filter(|secret| is_distinct(secret)),
    );
}

/// Forgets the secret of a source that was removed.
pub(crate) fn forget(source: &str) {
    set(source, None);
}

fn set(source: &str, secret: Option<&str>) {
    if KNOWN.read().by_source.get(source).map(String::as_str) == secret {
        return;
    }
    let mut known = KNOWN.write();
    match secret {
        Some(secret) => drop(known.by_source.insert(source.to_owned(), secret.to_owned())),
        None => drop(known.by_source.remove(source)),
    }
    known.matcher = OnceLock::new();
}

/// Returns the spellings of a secret in a text: as it is, and as JSON and `{:?}` escape it.
fn spellings(secret: &String) -> BTreeSet<String> {
    let inner = |quoted: String| quoted[1..quoted.len() - 1].to_owned();
    let json = Value::from(secret.as_str()).to_string();
    [secret.clone(), inner(json), inner(format!("{secret:?}"))].into()
}

fn is_distinct(secret: &str) -> bool {
    let is_word = secret.chars().all(char::is_alphabetic);
    let shortest = if is_word { SHORTEST_WORD } else { SHORTEST };
    let not_digits = secret.chars().filter(|c| !c.is_ascii_digit()).count();
    secret.len() >= shortest && not_digits >= NOT_DIGITS
}

/// Returns the text without keys that it does not call public, and without secrets that this process has read.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    let shown = without_secret_keys(text);
    let places = places(&shown);
    if places.is_empty() {
        return shown;
    }
    let (mut hidden, mut end) = (String::with_capacity(shown.len()), 0);
    for place in places {
        hidden.push_str(&shown[end..place.start]);
        hidden.push_str(HIDDEN);
        end = place.end;
    }
    Cow::Owned(hidden + &shown[end..])
}

/// The first place of a secret that this process has read and that a text holds.
pub(crate) fn find_secret(text: &str) -> Option<usize> {
    places(text).first().map(|place| place.start)
}

/// Where a text holds secrets, each as a word of its own: in order, and without overlaps.
fn places(text: &str) -> Vec<Range<usize>> {
    let known = KNOWN.read();
    if known.by_source.is_empty() {
        return Vec::new();
    }
    let build = || AhoCorasick::new(known.by_source.values().flat_map(spellings));
    let Ok(matcher) = known.matcher.get_or_init(build) else {
        // Too many secrets for one matcher, which is gigabytes of them.
        return std::iter::once(0..text.len()).collect();
    };
    let found = matcher
        .find_overlapping_iter(text)
        .map(|found| found.range());
    let mut found: Vec<_> = found.filter(|place| is_apart(text, place)).collect();
    found.sort_by_key(|place| place.start);
    found.dedup_by(|next, place| {
        let overlaps = next.start < place.end;
        if overlaps {
            place.end = place.end.max(next.end);
        }
        overlaps
    });
    found
}

fn is_apart(text: &str, place: &Range<usize>) -> bool {
    let before = text[..place.start].chars().next_back();
    let after = text[place.end..].chars().next();
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

/// Removes secrets from a value for a program: as [`redact`], and the values of fields with the name of a secret.
pub(crate) fn redact_value(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(hidden) = redact(text) {
                *text = hidden;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact_value),
        Value::Object(fields) => {
            let about_public = fields.get("field").is_some_and(is_public);
            for (name, value) in fields.iter_mut() {
                let name = name.to_ascii_lowercase().replace('_', "");
                if is_secret(&name, value) {
                    *value = HIDDEN.into();
                } else if !about_public && !name.contains("publickey") {
                    redact_value(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(name: &str, value: &Value) -> bool {
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let is_file = value
        .as_str()
        .is_some_and(|file| file.starts_with("secrets/"));
    !value.is_null() && (ends(&SECRET_FIELDS) || ends(&SECRET_FILES) && !is_file)
}

fn is_public(field: &Value) -> bool {
    let field = field.as_str().unwrap_or_default();
    field.to_ascii_lowercase().contains("publickey")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "XgUElZsuhxz12KENlLtJuKP0eYNyTNy2QYUaeGKaPZ4=";

    #[test]
    fn pasted_secret_is_hidden_and_public_key_is_not() {
        let mut value = json!({
            "exception": {"reason": KEY, "set": {
                "tunnel": {"presharedKey": "hunter2", "publicKey": KEY, "presharedKeyFile": "hunter2"},
                "bgp": {"password": 12_345_678, "passwordFile": "secrets/wg_1.password"}
            }},
            "overridden": {"spec.tunnel.publicKey": {"here": KEY}},
            "steps": [{"field": "wireguard.publicKey", "want": KEY}]
        });
        redact_value(&mut value);
        let expected = json!({
            "exception": {"reason": "(a key)", "set": {
                "tunnel": {"presharedKey": "(secret)", "publicKey": KEY, "presharedKeyFile": "(secret)"},
                "bgp": {"password": "(secret)", "passwordFile": "secrets/wg_1.password"}
            }},
            "overridden": {"spec.tunnel.publicKey": {"here": KEY}},
            "steps": [{"field": "wireguard.publicKey", "want": KEY}]
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn remembered_secret_is_hidden_in_any_text() {
        remember("words", "  correct horse\n");
        assert_eq!(
            redact("reason: correct horse, correct horse!"),
            "reason: (secret), (secret)!"
        );
        assert_eq!(find_secret("is correct horse"), Some(3));
        assert_eq!(find_secret("is correct horses"), None);
    }

    #[test]
    fn secret_that_could_be_a_name_hides_no_name() {
        for name in [
            "4242421080",
            "AS4242421080",
            "wg_4242421080",
            "sessions",
            "x1",
        ] {
            remember("names", name);
            assert_eq!(redact(name), name);
        }
    }

    #[test]
    fn replaced_and_removed_secrets_are_shown_again() {
        remember("rotated", "old-secret-1");
        remember("beside", "old-secret-1");
        remember("rotated", "new-secret-2");
        assert_eq!(redact("old-secret-1 new-secret-2"), "(secret) (secret)");
        forget("beside");
        assert_eq!(redact("old-secret-1 new-secret-2"), "old-secret-1 (secret)");
        forget("rotated");
        assert_eq!(
            redact("old-secret-1 new-secret-2"),
            "old-secret-1 new-secret-2"
        );
    }

    #[test]
    fn overlapping_and_escaped_secrets_are_hidden_whole() {
        remember("left", "one-two-three");
        remember("right", "two-three-four");
        remember("quoted", "my \"pass\\word");
        assert_eq!(redact("x one-two-three-four y"), "x (secret) y");
        assert_eq!(redact("x-two-three-four"), "x-(secret)");
        for text in [
            "my \"pass\\word".to_owned(),
            format!("{:?}", "my \"pass\\word"),
            json!({"a": "my \"pass\\word"}).to_string(),
        ] {
            assert!(!redact(&text).contains("pass"), "{text}");
        }
        ["left", "right", "quoted"].into_iter().for_each(forget);
    }
}
