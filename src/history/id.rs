use std::fmt;

/// The ID of a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct CommitId(pub(super) String);

impl CommitId {
    /// Wraps an ID from git.
    pub(super) fn known(text: String) -> Self {
        Self(text)
    }

    /// Returns the full ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the abbreviated ID.
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
