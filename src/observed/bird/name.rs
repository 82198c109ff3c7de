use std::fmt;

/// Reason why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid BIRD name: {1}")]
pub struct BadName(String, &'static str);

/// The name of a protocol: 1..63 bytes of `A-Za-z0-9_.:-`. It is always sent in quotation
/// marks, where BIRD reads it as a pattern; `*?[]` are not allowed, so it matches only itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BirdName(String);

impl BirdName {
    /// Validates a name.
    ///
    /// # Errors
    /// [`BadName`] if it is empty, too long, or has a character that is not allowed.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
        let ok = (1..=63).contains(&text.len()) && text.bytes().all(allowed);
        ok.then(|| Self(text.to_owned())).ok_or_else(|| {
            BadName(
                super::text::cut(text, 80),
                "1..63 characters of A-Z a-z 0-9 _ . : -",
            )
        })
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BirdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A table or a constant: 1..63 bytes of `A-Za-z0-9_` that do not start with a digit. It is sent
/// unquoted, because BIRD accepts no quotation marks here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(String);

impl Symbol {
    /// Validates a symbol.
    ///
    /// # Errors
    /// [`BadName`] if it is empty, too long, or has a character that is not allowed.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let ok = (1..=63).contains(&text.len())
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        ok.then(|| Self(text.to_owned())).ok_or_else(|| {
            BadName(
                super::text::cut(text, 80),
                "1..63 characters of A-Z a-z 0-9 _",
            )
        })
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bird_name_cannot_carry_command_pattern_or_quote() {
        for text in [
            "",
            "x\ndown",
            "a\"b",
            "*",
            "a b",
            "é",
            "x?",
            &"a".repeat(64),
        ] {
            assert!(BirdName::new(text).is_err(), "{text:?}");
            assert!(Symbol::new(text).is_err(), "{text:?}");
        }
        assert!(BirdName::new("dn42_wg-x.1").is_ok());
        assert!(Symbol::new("1x").is_err());
        assert!(Symbol::new("a-b").is_err());
    }
}
