//! Random texts: tokens of routers, identities of sessions.

use crate::model::{Invalid, Secret, Uid};

/// Returns a new token.
pub(crate) fn token() -> Secret<String> {
    let bytes: [u8; 32] = rand::random();
    Secret::new(hex(&bytes))
}

/// Returns a random identity (RFC 9562, version 4).
///
/// # Errors
/// Never: the text is a valid identity.
pub(crate) fn uuid() -> Result<Uid, Invalid> {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| text[range].to_owned());
    parts.join("-").parse()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_random_and_of_version_4() {
        let (one, other) = (uuid().unwrap(), uuid().unwrap());
        assert_ne!(one, other);
        assert_eq!((one.as_str().len(), &one.as_str()[14..15]), (36, "4"));
    }
}
