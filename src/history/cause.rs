//! The reason for a change of files, with its author.

use std::path::PathBuf;

use crate::store::Place;
use crate::util::fs;

use super::tree::Contents;

/// The author of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// The Control Plane, through the sync.
    ControlPlane,
    /// The agent: an apply, an expiry.
    Agent,
    /// A person, through an editor or the local API.
    Operator {
        /// The person's name.
        name: String,
    },
}

impl Author {
    /// Returns the operator with this user ID, with the name in `/etc/passwd`.
    pub fn operator(uid: u32) -> Self {
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        Self::Operator {
            name: named.unwrap_or_else(|| format!("uid {uid}")),
        }
    }

    /// Returns `Name <address>`, in characters that Git accepts.
    pub(super) fn identity(&self) -> String {
        let name = match self {
            Self::ControlPlane => "Control Plane",
            Self::Agent => "moenet-agent",
            Self::Operator { name } => name,
        };
        let plain = |c: char| !c.is_control() && !matches!(c, '<' | '>');
        let name: String = name.chars().filter(|c| plain(*c)).take(80).collect();
        let name = if name.trim().is_empty() {
            "operator"
        } else {
            name.trim()
        };
        let address: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        format!("{name} <{address}@localhost>")
    }
}

/// The files that a cause changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paths {
    /// These files, relative to the state directory, with their content when the cause is recorded.
    Some(Vec<PathBuf>),
    /// These files, with this content; `None`: the file was deleted. The current content on the disk is ignored.
    Exactly(Contents),
    /// All files of the history that are missing when the commit is made.
    Gone,
    /// All files that differ from the history when the commit is made.
    All,
}

impl FromIterator<Place> for Paths {
    fn from_iter<I: IntoIterator<Item = Place>>(places: I) -> Self {
        Self::Some(places.into_iter().map(|place| place.relative()).collect())
    }
}

/// One cause, which becomes one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub author: Author,
    /// The changed files.
    pub paths: Paths,
    /// The summary, one line.
    pub subject: String,
    /// Each step with its reason. No secrets.
    pub body: Vec<String>,
}
