use std::fmt;

use serde::Serialize;

/// The reason of a step: the field, its wanted and its observed value. Secrets show as "changed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The field that differs, as `tunnel.mtu`.
    pub field: &'static str,
    pub want: String,
    /// The observed value.
    pub have: String,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// It does not exist yet.
    Add,
    Change,
    /// It must not exist.
    Remove,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Remove => "-",
        })
    }
}

/// The text of a value that is absent.
const NONE: &str = "(none)";

impl Drift {
    /// Returns the kind of the change that corrects the drift.
    pub(crate) fn mark(&self) -> Mark {
        match (self.want.as_str(), self.have.as_str()) {
            (NONE, _) => Mark::Remove,
            (_, NONE) => Mark::Add,
            _ => Mark::Change,
        }
    }

    /// Creates a drift between two values that can be shown.
    pub fn new(field: &'static str, want: impl fmt::Display, have: impl fmt::Display) -> Self {
        Self {
            field,
            want: want.to_string(),
            have: have.to_string(),
        }
    }

    /// Creates a drift of a missing object.
    pub fn missing(field: &'static str, want: impl fmt::Display) -> Self {
        Self::new(field, want, NONE)
    }

    /// Creates a drift of an object that must not exist.
    pub fn surplus(field: &'static str, have: impl fmt::Display) -> Self {
        Self::new(field, NONE, have)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: want {}, have {}", self.field, self.want, self.have)
    }
}
