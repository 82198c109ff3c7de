use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Invalid, Kind, shown, text_type};

/// The name of an object, and of its file: 1..48 bytes of `A-Za-z0-9_.-` that starts with a letter,
/// a digit or `_`. The limit is 48, because BIRD's protocol names have at most 63 bytes and the
/// agent's carry a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The longest name, in bytes.
    pub const MAX: usize = 48;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the nearest valid name to an untrusted text: forbidden characters become `-`, and a
    /// longer text is cut.
    pub fn sanitised(text: &str) -> Self {
        let keep = |c: char| {
            if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                c
            } else {
                '-'
            }
        };
        let body: String = text.chars().map(keep).take(Self::MAX - 1).collect();
        let body = body.trim_start_matches('-');
        Self(if body.is_empty() { "_" } else { body }.into())
    }

    /// Returns the same with a number at its end; a longer text is cut before the number.
    pub fn numbered(text: &str, number: usize) -> Self {
        let end = format!("-{number}");
        let start = text.chars().take(Self::MAX - 1 - end.len());
        Self::sanitised(&start.chain(end.chars()).collect::<String>())
    }
}

impl FromStr for ObjectName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let ok = (1..=Self::MAX).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(allowed);
        ok.then(|| Self(text.into())).ok_or_else(|| {
            Invalid(format!(
                "invalid name {}: use 1..48 characters of A-Z a-z 0-9 _ . - and begin with a letter, a digit or _",
                shown(text)
            ))
        })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(ObjectName, "ObjectName", {
    "type": "string", "minLength": 1, "maxLength": 48, "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,47}$",
    "description": "Name of the object, and of its file.", "examples": ["wg_4242421080"]
});

/// The Control Plane's identity of an object (`uuid`): 1..128 printable ASCII characters without
/// blanks. A link's alias carries it as the agent's mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Returns the identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the identity of an operator's own document, which has no `uid`: `local/`, its kind
    /// and its name.
    pub fn local(kind: &str, name: &ObjectName) -> Self {
        Self(format!("local/{kind}/{name}").into())
    }

    /// Returns whether it is the identity of an operator's own document.
    pub fn is_local(&self) -> bool {
        self.0.starts_with("local/")
    }

    /// Returns an identity for an object of the Control Plane that has a node id and no identity of
    /// its own.
    pub fn derived(word: &str, node_id: u16) -> Self {
        Self(format!("{word}/{node_id}").into())
    }

    /// Returns whether it is an identity that the agent itself assigns. No other source may use
    /// such an identity: a link is identified by its mark, so a session called `mesh/2` would be
    /// mistaken for the backbone tunnel, and removed as such.
    pub fn is_ours(&self) -> bool {
        // The Control Plane identifies a session itself.
        let derived = Kind::many().filter(|kind| *kind != Kind::BgpSession);
        let mut ours = ["local", "control-plane"]
            .into_iter()
            .chain(derived.map(Kind::folder));
        self.0
            .split_once('/')
            .is_some_and(|(word, _)| ours.any(|own| own == word))
    }
}

impl FromStr for Uid {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let ok = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        ok.then(|| Self(text.into())).ok_or_else(|| {
            Invalid(format!(
                "invalid uuid {}: use 1..128 printable characters without blanks",
                shown(text)
            ))
        })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Uid, "Uid", {
    "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$",
    "description": "The Control Plane's identity of the object. Absent: the document is the operator's own.",
    "examples": ["abc-123"]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_safe_file_name() {
        for text in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "-rf",
            "a\0b",
            "a b",
            &"x".repeat(49),
        ] {
            assert!(text.parse::<ObjectName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn own_identities_are_distinguished_from_foreign_ones() {
        let name = "loopback".parse().unwrap();
        for ours in [
            Uid::local("node", &name),
            Uid::derived("mesh", 2),
            Uid::derived("ibgp", 2),
        ] {
            assert!(ours.is_ours(), "{ours}");
        }
        for other in ["abc-123", "local", "mesh-2", "meshes/2", "a/mesh/2"] {
            assert!(!other.parse::<Uid>().unwrap().is_ours(), "{other}");
        }
    }

    #[test]
    fn sanitising_always_gives_a_name() {
        for text in [
            "",
            "../../etc/cron.d/x",
            "---",
            "žluť",
            "ok",
            &"y".repeat(200),
        ] {
            let name = ObjectName::sanitised(text);
            assert_eq!(name.as_str().parse::<ObjectName>().unwrap(), name);
        }
    }

    #[test]
    fn number_of_a_name_survives_the_cut() {
        for text in ["ok", &"y".repeat(47), &format!("y{}", "ž".repeat(200))] {
            for number in [2, 10, usize::MAX] {
                let name = ObjectName::numbered(text, number);
                assert_eq!(name.as_str().parse::<ObjectName>().unwrap(), name);
                assert!(name.as_str().ends_with(&format!("-{number}")), "{name}");
            }
        }
    }
}
