use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::check::Problem;
use crate::document::{DocumentError, locate};

/// An error in a fleet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, below the fleet directory.
    pub file: PathBuf,
    /// Counted from 1; `None` for a finding about the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The field and the broken rule.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl Finding {
    /// Creates the finding for a problem of a file with this text.
    pub(super) fn new(file: &Path, text: &str, problem: &Problem) -> Self {
        let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
        // A missing field has no place; the innermost existing object around it is used.
        let place = (1..=path.len())
            .rev()
            .find_map(|end| locate(text, &path[..end]));
        let message = match dotted(&path) {
            path if path.is_empty() => problem.message.clone(),
            path => format!("{path}: {}", problem.message),
        };
        Self {
            file: file.to_owned(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            message,
        }
    }

    pub(super) fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            message: message.into(),
        }
    }

    pub(super) fn syntax(file: &Path, error: DocumentError) -> Self {
        Self {
            line: error.location.map(|(line, _)| line),
            column: error.location.map(|(_, column)| column),
            ..Self::whole(file, error.message)
        }
    }
}

/// Formats a path as `sessions[2].mtu`.
fn dotted(path: &[&str]) -> String {
    let mut text = String::new();
    for segment in path {
        if segment.bytes().all(|b| b.is_ascii_digit()) {
            text.push_str(&format!("[{segment}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(segment);
        }
    }
    text
}

/// Returns one line for each finding.
pub(super) fn lines(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
