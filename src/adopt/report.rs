use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A place in a file of the operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl Place {
    pub fn new(file: &Path, line: usize) -> Self {
        Self {
            file: file.to_owned(),
            line,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// What adoption makes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// A document holds it.
    Taken,
    /// It stays as it is, with the operator.
    Left,
    /// No document can hold it.
    Unsupported,
    /// The first pass sets another value.
    Changed,
    /// The operator must do it before the documents are used.
    Needed,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken over",
            Self::Left => "stays",
            Self::Unsupported => "unsupported",
            Self::Changed => "changes",
            Self::Needed => "needed",
        }
    }
}

/// One thing that runs or is configured, and what adoption makes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub outcome: Outcome,
    pub subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub reason: String,
}

impl Finding {
    pub fn new(
        outcome: Outcome,
        subject: impl Into<String>,
        place: Option<Place>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            outcome,
            subject: subject.into(),
            place,
            reason: reason.into(),
        }
    }
}
