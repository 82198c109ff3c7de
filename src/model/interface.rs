use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Invalid, shown, text_type};

/// The name of a network interface: 1..15 bytes of `A-Za-z0-9_.-`, not `.` or `..`
/// (docs/contract/session.md#interface-names; the kernel's limit is `IFNAMSIZ`, 16 with the final
/// NUL), neither `all` nor `default`, under which the kernel keeps the sysctls of every link, and
/// without a leading `-`, which a helper program would parse as an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

impl InterfaceName {
    /// The longest name that the kernel accepts, in bytes.
    pub const MAX: usize = 15;

    /// Names that have a valid form and are reserved.
    const RESERVED: [&'static str; 4] = [".", "..", "all", "default"];

    /// Returns a temporary name for a link that is renamed later: `moe-` and a digest of this text.
    pub fn temporary(of: &str) -> Self {
        let digest = Sha256::digest(of.as_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(digest);
        Self(format!("moe-{a:02x}{b:02x}{c:02x}{d:02x}").into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let ok = (1..=Self::MAX).contains(&text.len())
            && !text.starts_with('-')
            && !Self::RESERVED.contains(&text)
            && text.bytes().all(allowed);
        ok.then(|| Self(text.into())).ok_or_else(|| {
            Invalid(format!(
                "invalid interface name {}: use 1..15 characters of A-Z a-z 0-9 _ . - that do not begin with -, \
                 except . .. all and default",
                shown(text)
            ))
        })
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(InterfaceName, "InterfaceName", {
    "type": "string", "minLength": 1, "maxLength": 15, "pattern": r"^[A-Za-z0-9_.][A-Za-z0-9_.-]{0,14}$",
    "not": {"enum": [".", "..", "all", "default"]},
    "description": "Name of a network interface.", "examples": ["wg_4242421080"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_long_names_are_no_interfaces() {
        for text in [
            "",
            ".",
            "..",
            "../../etc/cron.d/x",
            "a/b",
            "wg_4242421080123",
            "a b",
            "wg\n",
            "wgé",
            "all",
            "default",
            "-rf",
        ] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text:?}");
        }
        for text in ["lo", "wg_4242421080", "dn42-4242421080", "a.100"] {
            assert!(text.parse::<InterfaceName>().is_ok(), "{text:?}");
        }
    }
}
