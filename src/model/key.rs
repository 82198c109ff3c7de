use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::{Invalid, Secret, shown, text_type};

/// A WireGuard public key: 32 bytes, written in base64 (44 characters, as `wg pubkey` prints it).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A WireGuard private key.
pub type PrivateKey = Secret<[u8; 32]>;

/// A WireGuard preshared key. The kernel reads all zeros as "no key", so an observed key is
/// normalised before comparing.
pub type PresharedKey = Secret<[u8; 32]>;

impl PublicKey {
    /// Returns a key from its bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Decodes base64 of either alphabet, with or without padding: all of these forms are the same key.
fn decode(text: &str) -> Option<[u8; 32]> {
    let text = text.trim().trim_end_matches('=');
    let text = text.replace('-', "+").replace('_', "/");
    STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
}

impl FromStr for PublicKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bytes = decode(text).ok_or_else(|| {
            let length = STANDARD.decode(text.trim()).map(|b| b.len());
            Invalid(match length {
                Ok(length) => {
                    format!("invalid public key: 32 bytes in base64 are needed, not {length}")
                }
                Err(_) => format!("invalid public key {}: use 32 bytes in base64", shown(text)),
            })
        })?;
        if bytes == [0; 32] {
            return Err(Invalid::new("a public key of zeros means no key"));
        }
        Ok(Self(bytes))
    }
}

impl Secret<[u8; 32]> {
    /// Parses a private or preshared key from base64. The error never shows the text.
    pub fn from_base64(text: &str) -> Result<Self, Invalid> {
        decode(text).map(Self::new).ok_or_else(|| {
            Invalid::new("invalid secret key: use 32 bytes in base64 (44 characters)")
        })
    }

    /// Returns the key in base64, only for the file in `secrets/`.
    pub fn to_base64(&self) -> Secret<String> {
        Secret::new(STANDARD.encode(self.expose()))
    }

    /// Returns whether all bytes are zero, which the kernel reads as "no key".
    pub fn is_zero(&self) -> bool {
        *self.expose() == [0; 32]
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

text_type!(PublicKey, "PublicKey", {
    "type": "string", "minLength": 44, "maxLength": 44, "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
    "description": "A WireGuard public key: 32 bytes in base64.",
    "examples": ["xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_31_bytes_says_its_length() {
        let text = STANDARD.encode([7; 31]);
        let error = text.parse::<PublicKey>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid public key: 32 bytes in base64 are needed, not 31"
        );
    }

    #[test]
    fn an_error_about_a_secret_does_not_show_it() {
        let error = PrivateKey::from_base64("hunter2").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn a_key_reads_back_as_written() {
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        assert_eq!(text.parse::<PublicKey>().unwrap().to_string(), text);
    }
}
