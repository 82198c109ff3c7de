//! Removes secrets from every text that leaves the agent: log lines, answers of the local API, output of the command
//! line, commit messages. Operators paste keys and passwords into reasons, comments and wrong fields.

use std::borrow::Cow;
use std::collections::BTreeSet;

use parking_lot::RwLock;
use serde_json::Value;

use crate::model::without_secret_keys;

/// Replaces a secret.
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
static KNOWN: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

/// Remembers a secret, so that no text shows it. One that could be a name or an ordinary word is not searched for.
pub(crate) fn remember(secret: &str) {
    let secret = secret.trim();
    let is_known = || KNOWN.read().contains(secret);
    if is_distinct(secret) && !is_known() {
        let mut known = KNOWN.write();
        known.insert(secret.to_owned());
    }
}

fn is_distinct(secret: &str) -> bool {
    let is_word = secret.chars().all(char::is_alphabetic);
    let shortest = if is_word { SHORTEST_WORD } else { SHORTEST };
    let not_digits = secret.chars().filter(|c| !c.is_ascii_digit()).count();
    secret.len() >= shortest && not_digits >= NOT_DIGITS
}

/// Returns the text without keys that it does not call public, and without secrets that this process has read.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    let mut shown = without_secret_keys(text);
    let known = KNOWN.read();
    for secret in known.iter() {
        let places: Vec<_> = places(&shown, secret).collect();
        for at in places.into_iter().rev() {
            shown.to_mut().replace_range(at..at + secret.len(), HIDDEN);
        }
    }
    shown
}

/// The place of a secret that this process has read and that a text holds.
pub(crate) fn find_secret(text: &str) -> Option<usize> {
    let known = KNOWN.read();
    known.iter().find_map(|secret| places(text, secret).next())
}

/// Where a text holds a secret, as a word of its own.
fn places(text: &str, secret: &str) -> impl Iterator<Item = usize> {
    let is_apart = move |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + secret.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    };
    let found = text.match_indices(secret).map(|(at, _)| at);
    found.filter(move |at| is_apart(*at))
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
                let name = name.to_ascii_lowercase();
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
        remember("  correct horse\n");
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
            remember(name);
            assert_eq!(redact(name), name);
        }
    }
}
