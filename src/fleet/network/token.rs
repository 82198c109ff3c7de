use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::document::parse_value;
use crate::model::{Invalid, Secret, text_type};

const PREFIX: &str = "sha256:";

/// The tokens in a router's file, without its other fields: a revoked token is invalid at once, whatever else is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenFields {
    pub token: Option<Secret<String>>,
    pub token_file: Option<PathBuf>,
    pub token_hashes: Vec<TokenHash>,
}

impl TokenFields {
    /// Reads the tokens in a file; `None` if these fields are not valid.
    pub fn read(text: &str) -> Option<Self> {
        parse_value(text).ok()
    }
}

/// The hash of a router's token. Tokens are long and random, so that the hash needs no salt.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Returns the hash of a token.
    pub fn of(token: &Secret<String>) -> Self {
        Self::of_text(token.expose())
    }

    /// Returns the hash of a text from a client.
    pub(in crate::fleet) fn of_text(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Returns whether two hashes are the same, in constant time.
    pub(in crate::fleet) fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenHash {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // The text is not shown: it may be a token in the wrong field.
        let wrong = || {
            Invalid::new(
                "must be sha256: and 64 hexadecimal digits, as `printf %s TOKEN | sha256sum` prints them",
            )
        };
        let digits = text.strip_prefix(PREFIX).ok_or_else(wrong)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

text_type!(TokenHash, "TokenHash", {
    "type": "string", "pattern": "^sha256:[0-9a-fA-F]{64}$",
    "description": "The SHA-256 hash of a token.",
    "examples": ["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_and_errors_show_no_text() {
        let hash = TokenHash::of(&Secret::new("test".to_owned()));
        let text = hash.to_string();
        assert_eq!(
            text,
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
        );
        assert_eq!(text.parse(), Ok(hash));
        for wrong in [
            "hunter2",
            "sha256:",
            "sha256:zz",
            &text[..70],
            &format!("{text}0"),
            "sha256:é",
        ] {
            let error = wrong.parse::<TokenHash>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
