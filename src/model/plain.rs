//! Finds keys in plain text, where secret keys are forbidden.

use std::borrow::Cow;
use std::ops::Range;

/// Characters of 32 bytes in base64, before the `=` that pads the last group.
const LENGTH: usize = 43;

/// Replacement for a key in a displayed text.
const HIDDEN: &str = "(a key)";

/// Returns the position of a possible secret key: 32 bytes in base64 that are not the value of a
/// field `publicKey`. A key in a comment or in a reason counts, because its type is unknown.
pub(crate) fn plain_key(text: &str) -> Option<usize> {
    let is_public = |at: usize| {
        let before = text[..at].trim_end_matches(['"', '\'', ' ']);
        let before = before
            .strip_suffix(':')
            .map(|before| before.trim_end_matches(['"', '\'', ' ']));
        before.is_some_and(|before| before.ends_with("publicKey"))
    };
    keys(text).map(|key| key.start).find(|at| !is_public(*at))
}

/// Returns the text without its keys, for an error: a value in the wrong field may be secret.
pub(crate) fn without_keys(text: &str) -> Cow<'_, str> {
    hide(text, keys(text))
}

/// Returns the text without its keys, except those that it marks as public: `publicKey: A`,
/// `public_key=A`, and the second key of a comparison as `publicKey: want A, have B`.
pub(crate) fn without_secret_keys(text: &str) -> Cow<'_, str> {
    let mut public_end = None;
    let secret = keys(text).filter(|key| {
        let compared = |end: usize| is_comparison(&text[end..key.start]);
        let public = is_called_public(&text[..key.start]) || public_end.is_some_and(compared);
        public_end = public.then_some(key.end);
        !public
    });
    hide(text, secret.collect::<Vec<_>>().into_iter())
}

fn hide(text: &str, secret: impl Iterator<Item = Range<usize>>) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut end = 0;
    for key in secret {
        shown.push_str(&text[end..key.start]);
        shown.push_str(HIDDEN);
        end = key.end;
    }
    if end == 0 {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(shown + &text[end..])
    }
}

/// Returns whether the words before a key mark it as public.
fn is_called_public(before: &str) -> bool {
    let before = before.trim_end_matches(['"', '\'', '\\', ':', '=', '(', '[', ' ', '\t']);
    let before = before.strip_suffix("want").unwrap_or(before);
    let before = before.trim_end_matches([':', ' ']).as_bytes();
    let ends_with = |word: &[u8]| {
        let start = before.len().checked_sub(word.len());
        start.is_some_and(|start| before[start..].eq_ignore_ascii_case(word))
    };
    ["publickey", "public_key", "public key", "ourkey"]
        .iter()
        .any(|word| ends_with(word.as_bytes()))
}

/// Longest text between the two keys of a comparison.
const COMPARISON: usize = 60;

/// Returns whether a text between two keys names no other field, so that both keys are values of
/// one field.
fn is_comparison(between: &str) -> bool {
    between.len() <= COMPARISON && !between.contains([':', '=', '\n'])
}

/// Returns every key in base64, as `wg genkey`, `wg genpsk` and `wg pubkey` print it.
fn keys(text: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let fills = text.match_indices('=').map(|(at, _)| at);
    fills.filter_map(move |at| {
        let start = at.checked_sub(LENGTH)?;
        // The last character carries four bits of the key; its other two bits are unused (RFC 4648,
        // section 4).
        let ends = b"AEIMQUYcgkosw048".contains(&bytes[at - 1]);
        let alone = !bytes
            .get(at + 1)
            .is_some_and(|byte| *byte == b'=' || is_base64(byte))
            && !start
                .checked_sub(1)
                .is_some_and(|before| is_base64(&bytes[before]));
        (ends && alone && bytes[start..at].iter().all(is_base64)).then_some(start..at + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "XgUElZsuhxz12KENlLtJuKP0eYNyTNy2QYUaeGKaPZ4=";

    #[test]
    fn key_is_secret_unless_its_field_is_public() {
        for public in [
            "publicKey: KEY",
            "{mtu: 1, publicKey: \"KEY\"}",
            "\"publicKey\": \"KEY\"",
            "",
            "a=b",
        ] {
            assert_eq!(plain_key(&public.replace("KEY", KEY)), None, "{public}");
        }
        for secret in [
            "presharedKey: KEY",
            "# psk KEY",
            "psk=KEY",
            "KEY",
            "{x: 'KEY', publicKey: KEY}",
        ] {
            assert!(plain_key(&secret.replace("KEY", KEY)).is_some(), "{secret}");
        }
        // A longer text in base64 is not a key.
        assert_eq!(plain_key(&format!("A{KEY}")), None);
        assert_eq!(plain_key(&format!("{KEY}=")), None);
    }

    #[test]
    fn only_keys_that_are_called_public_are_shown() {
        for public in [
            "publicKey: KEY",
            "public_key=KEY",
            "peer (public key KEY)",
            "spec.tunnel.publicKey   KEY   override (the Control Plane says KEY)",
            "tunnel.publicKey: want KEY, have KEY",
            r#"{\"publicKey\":\"KEY\"}"#,
            "no key",
        ] {
            let text = public.replace("KEY", KEY);
            assert_eq!(without_secret_keys(&text), text);
        }
        for secret in [
            "KEY",
            "reason: KEY",
            "presharedKey: KEY",
            "peer KEY",
            "tunnel.presharedKey: want KEY, have KEY",
        ] {
            let shown = without_secret_keys(&secret.replace("KEY", KEY)).into_owned();
            assert_eq!(shown, secret.replace("KEY", HIDDEN));
        }
        let both = format!("publicKey: {KEY}, description: {KEY}");
        let expected = format!("publicKey: {KEY}, description: (a key)");
        assert_eq!(without_secret_keys(&both), expected);
    }

    #[test]
    fn a_text_is_shown_without_its_keys() {
        assert_eq!(
            without_keys(&format!("not {KEY}, é {KEY}!")),
            "not (a key), é (a key)!"
        );
        assert_eq!(without_keys("ü = none"), "ü = none");
    }
}
