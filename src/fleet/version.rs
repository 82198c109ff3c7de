//! Numbers that change with their subject.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use crate::model::ObjectName;

/// The revision of each router.
pub(super) type Revisions = BTreeMap<ObjectName, Revision>;

/// A number that changes with its subject.
pub(super) type Version = u64;

/// Numbers that change with what operators write for a router, the same in each instance over one store. The statuses
/// that the router posted itself do not change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revision {
    /// Changes with any answer.
    pub(super) answers: Version,
    /// Changes with the list of sessions.
    pub(super) sessions: Version,
}

impl Revision {
    /// Returns the revision of the files that make the answers, and of the one with the sessions.
    pub(super) fn of<T: Hash>(files: &[T], sessions: &T) -> Self {
        Self {
            answers: version(files),
            sessions: version(sessions),
        }
    }
}

/// Returns the version of a value.
pub(super) fn version(value: &(impl Hash + ?Sized)) -> Version {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
