//! Marks, which show the owner of an object. Only this module knows their grammar.
//!
//! A link's alias is `moenet-agent:2:<identity>:<object>`. The object is the rest of the alias and may contain
//! `:`. Earlier builds wrote `moenet-agent:<object>`, without an identity.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::{Identity, InterfaceName, ObjectName, Uid, shown};

/// Prefix of every mark, and the whole mark that earlier builds gave to the singleton objects of a state directory.
pub const AGENT: &str = "moenet-agent";

/// A link's alias as the agent writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The state directory; `None` in an alias of an earlier build.
    pub identity: Option<Identity>,
    pub object: Uid,
}

impl Alias {
    /// Parses an alias; `None` for one that no build of the agent writes.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(AGENT)?.strip_prefix(':')?;
        let (identity, object) = match with_identity(rest) {
            Some((identity, object)) => (Some(identity), object),
            None => (None, rest),
        };
        Some(Self {
            identity,
            object: object.parse().ok()?,
        })
    }
}

/// `2:<identity>:<object>`
fn with_identity(rest: &str) -> Option<(Identity, &str)> {
    let (identity, object) = rest.strip_prefix("2:")?.split_once(':')?;
    Some((identity.parse().ok()?, object))
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(f, "{}:{}", mark_of(identity), self.object),
            None => write!(f, "{AGENT}:{}", self.object),
        }
    }
}

/// Returns the mark for a singleton object of a state directory: `moenet-agent:2:<identity>`.
pub fn mark_of(identity: &Identity) -> String {
    format!("{AGENT}:2:{identity}")
}

/// Returns the identity in a text that contains [`mark_of`].
pub fn identity_in(text: &str) -> Option<Identity> {
    let (_, rest) = text.split_once(&format!("{AGENT}:2:"))?;
    rest.get(..Identity::LENGTH)?.parse().ok()
}

/// Owner of a link, by its alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// No alias.
    None,
    /// An object of this state directory.
    Ours(Uid),
    /// An object of this state directory whose mark must be rewritten: it was written by an earlier build, or by
    /// a lost directory that this one succeeds.
    Earlier(Uid),
    /// Any other alias: another program's, or another state directory's.
    Foreign(String),
}

impl Mark {
    /// Returns the object of this state directory.
    pub fn object(&self) -> Option<&Uid> {
        match self {
            Self::Ours(uid) | Self::Earlier(uid) => Some(uid),
            Self::None | Self::Foreign(_) => None,
        }
    }

    /// Returns whether this is the mark of that object.
    pub fn is(&self, uid: &Uid) -> bool {
        self.object() == Some(uid)
    }

    /// Returns whether the link belongs to this state directory.
    pub fn is_ours(&self) -> bool {
        self.object().is_some()
    }
}

/// Completes "interface wg_1 …".
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("exists without the agent's mark"),
            Self::Ours(uid) | Self::Earlier(uid) => {
                write!(
                    f,
                    "belongs to another object of this agent ({uid}), which must go first"
                )
            }
            Self::Foreign(alias) => match Alias::parse(alias) {
                Some(Alias {
                    identity: Some(identity),
                    object,
                }) => write!(
                    f,
                    "belongs to another moenet-agent on this host (identity {identity}, object {object})"
                ),
                Some(Alias {
                    identity: None,
                    object,
                }) => write!(
                    f,
                    "has the mark of an earlier build for {object}, which no applied record here names"
                ),
                None => write!(f, "belongs to another program (alias {})", shown(alias)),
            },
        }
    }
}

/// Decides which marks belong to this state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The identity of this state directory; without one, no object is the agent's.
    pub identity: Option<Identity>,
    /// The lost directories that this one succeeds.
    pub succeeds: Succession,
    /// The interfaces that applied records name, each with its object.
    pub applied: BTreeSet<(InterfaceName, Uid)>,
    /// Whether an applied record names the agent's table in nftables.
    pub firewall: bool,
    /// Whether an applied record proves that this directory has configured BIRD: then files with the mark of an earlier
    /// build are the agent's.
    pub records: bool,
    /// The paused sessions: their BIRD files stay as they are.
    pub paused: BTreeSet<ObjectName>,
}

/// Lost state directories whose objects another one takes over (`approve --state-lost`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Succession {
    pub identities: BTreeSet<Identity>,
    /// Marks of earlier builds, which carry no identity, are taken over too.
    pub unnamed: bool,
}

impl Ownership {
    /// Returns the ownership of a directory that succeeds no other and has applied nothing.
    pub fn of(identity: Identity) -> Self {
        Self {
            identity: Some(identity),
            ..Self::default()
        }
    }

    /// Returns the owner of a link by its alias.
    pub fn judge(&self, interface: &InterfaceName, alias: Option<&str>) -> Mark {
        let Some(text) = alias.filter(|text| !text.is_empty()) else {
            return Mark::None;
        };
        let Some(Alias { identity, object }) = Alias::parse(text) else {
            return Mark::Foreign(text.to_owned());
        };
        let recorded = || self.applied.contains(&(interface.clone(), object.clone()));
        match identity {
            _ if self.identity.is_none() => Mark::Foreign(text.to_owned()),
            Some(identity) if self.identity.as_ref() == Some(&identity) => Mark::Ours(object),
            Some(identity) if self.succeeds.identities.contains(&identity) => Mark::Earlier(object),
            None if self.succeeds.unnamed || recorded() => Mark::Earlier(object),
            _ => Mark::Foreign(text.to_owned()),
        }
    }

    /// Returns whether a singleton object belongs to this state directory, by the identity in its mark.
    pub fn owns(&self, identity: &Identity) -> bool {
        self.identity.as_ref() == Some(identity) || self.succeeds.identities.contains(identity)
    }

    /// Returns whether a file belongs to this state directory, by the identity in its mark. Without an identity, as
    /// before a
    /// first start, only files without one do.
    pub fn owns_file(&self, named: Option<&Identity>) -> bool {
        match named {
            Some(identity) => self.owns(identity),
            None => self.identity.is_none() || self.records || self.succeeds.unnamed,
        }
    }

    /// Returns whether a file carries the mark that this directory writes.
    pub fn is_current(&self, named: Option<&Identity>) -> bool {
        self.identity.as_ref() == named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "4f1c8a09d2e7b365";
    const B: &str = "ffffffffffffffff";

    fn ownership() -> Ownership {
        Ownership {
            applied: [("wg_1".parse().unwrap(), uid("abc"))].into(),
            ..Ownership::of(A.parse().unwrap())
        }
    }

    fn uid(text: &str) -> Uid {
        text.parse().unwrap()
    }

    fn judged(ownership: &Ownership, alias: &str) -> Mark {
        ownership.judge(&"wg_1".parse().unwrap(), Some(alias))
    }

    #[test]
    fn object_is_the_rest_of_the_alias() {
        for object in ["abc", "a:b", "2:c", "urn:uuid:1", "local/sessions/x"] {
            let alias = Alias {
                identity: Some(A.parse().unwrap()),
                object: uid(object),
            };
            assert_eq!(Alias::parse(&alias.to_string()), Some(alias.clone()));
            assert_eq!(
                judged(&ownership(), &alias.to_string()),
                Mark::Ours(uid(object))
            );
        }
    }

    #[test]
    fn longest_alias_fits_into_the_kernels_limit() {
        let alias = Alias {
            identity: Some(A.parse().unwrap()),
            object: uid(&"x".repeat(128)),
        };
        assert!(alias.to_string().len() < 256);
    }

    #[test]
    fn another_identity_is_foreign() {
        let alias = format!("moenet-agent:2:{B}:abc");
        assert_eq!(judged(&ownership(), &alias), Mark::Foreign(alias.clone()));
        let without = Ownership::default();
        for alias in [
            alias,
            format!("moenet-agent:2:{A}:abc"),
            "moenet-agent:abc".into(),
        ] {
            assert_eq!(judged(&without, &alias), Mark::Foreign(alias.clone()));
        }
    }

    #[test]
    fn earlier_mark_is_ours_only_where_a_record_names_it() {
        assert_eq!(
            judged(&ownership(), "moenet-agent:abc"),
            Mark::Earlier(uid("abc"))
        );
        let other = "moenet-agent:xyz";
        assert_eq!(judged(&ownership(), other), Mark::Foreign(other.into()));
        let elsewhere = ownership().judge(&"wg_2".parse().unwrap(), Some("moenet-agent:abc"));
        assert!(!elsewhere.is_ours());
    }

    #[test]
    fn successor_takes_over_marks_of_the_lost_directory() {
        let mut ownership = ownership();
        ownership.succeeds.identities.insert(B.parse().unwrap());
        let alias = format!("moenet-agent:2:{B}:xyz");
        assert_eq!(judged(&ownership, &alias), Mark::Earlier(uid("xyz")));
        assert!(!judged(&ownership, "moenet-agent:xyz").is_ours());
        ownership.succeeds.unnamed = true;
        assert!(judged(&ownership, "moenet-agent:xyz").is_ours());
    }

    #[test]
    fn only_an_alias_that_the_agent_writes_is_a_mark() {
        assert_eq!(judged(&ownership(), ""), Mark::None);
        for alias in [
            "moenet-agent",
            "moenet-agent:",
            "moenet-agent:a b",
            "xmoenet-agent:abc",
        ] {
            assert_eq!(judged(&ownership(), alias), Mark::Foreign(alias.to_owned()));
        }
    }

    #[test]
    fn identity_is_found_in_a_line() {
        let line = format!(
            "# Written by {}; changes are overwritten",
            mark_of(&A.parse().unwrap())
        );
        assert_eq!(identity_in(&line), Some(A.parse().unwrap()));
        assert_eq!(identity_in("# Written by moenet-agent; changes"), None);
    }
}
