use std::fmt;
use std::str::FromStr;

use super::{Invalid, shown, text_type};

/// The identity of one state directory: 16 lowercase hexadecimal digits. Every mark carries it, so
/// that two agents on one host leave each other's objects alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(String);

impl Identity {
    /// The length of an identity. A link alias holds 255 bytes (`IFALIASZ`): prefix, identity and the longest
    /// [`Uid`](super::Uid) together stay well below.
    pub const LENGTH: usize = 16;

    /// Returns an identity from random bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}"))
    }

    /// Returns the identity of a directory to which an earlier build gave a longer hexadecimal one.
    pub fn from_longer(text: &str) -> Option<Self> {
        text.get(..Self::LENGTH)?.parse().ok()
    }

    /// Returns the identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Identity {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let ok = text.len() == Self::LENGTH && text.bytes().all(digit);
        ok.then(|| Self(text.to_owned())).ok_or_else(|| {
            Invalid(format!(
                "invalid identity {}: use 16 hexadecimal digits in lower case",
                shown(text)
            ))
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Identity, "Identity", {
    "type": "string", "minLength": 16, "maxLength": 16, "pattern": "^[0-9a-f]{16}$",
    "description": "Identity of a state directory.", "examples": ["4f1c8a09d2e7b365"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_has_16_lowercase_hex_digits() {
        assert_eq!(Identity::from_bits(7).as_str(), "0000000000000007");
        for text in [
            "",
            "4f1c",
            "4F1C8A09D2E7B365",
            "4f1c8a09d2e7b36:",
            "4f1c8a09d2e7b3650",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn longer_identity_of_an_earlier_build_is_cut() {
        let longer = format!("{:032x}", u128::MAX - 1);
        assert_eq!(
            Identity::from_longer(&longer).unwrap().as_str(),
            &longer[..16]
        );
        assert_eq!(Identity::from_longer("short"), None);
        assert_eq!(Identity::from_longer("žžžžžžžžžžžžžžžž"), None);
    }
}
