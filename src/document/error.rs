use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::model::without_keys;

/// Largest number of characters of a field's path that are shown; no real path is as long.
const LONGEST_FIELD: usize = 120;

/// The reason why a text is no valid document, with its location.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{}{}", self.place(), without_keys(message))]
pub struct DocumentError {
    /// The file, when the text came from one.
    pub file: Option<PathBuf>,
    /// Line and column, counted from 1.
    pub location: Option<(u64, u64)>,
    /// The field, such as `spec.tunnel.mtu`; empty for the document as a whole.
    pub field: String,
    /// The field, and its error.
    pub message: String,
    /// This user may not read the file.
    pub is_denied: bool,
}

impl DocumentError {
    /// An error without a place.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self {
            file: None,
            location: None,
            field: String::new(),
            message: message.into(),
            is_denied: false,
        }
    }

    pub(super) fn at_field(field: String, reason: &str) -> Self {
        let message = match field.char_indices().nth(LONGEST_FIELD) {
            None if field.is_empty() => reason.to_owned(),
            None => format!("{field}: {reason}"),
            Some((end, _)) => format!("{}…: {reason}", field.get(..end).unwrap_or_default()),
        };
        Self {
            field,
            ..Self::whole(message)
        }
    }

    /// Returns the same error, with its file.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Returns `file:line:column: `, in the form of compilers.
    fn place(&self) -> String {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        match (file, self.location) {
            (Some(file), Some((line, column))) => format!("{file}:{line}:{column}: "),
            (Some(file), None) => format!("{file}: "),
            (None, Some((line, column))) => format!("line {line}, column {column}: "),
            (None, None) => String::new(),
        }
    }
}

/// The form of every problem for programs.
impl Serialize for DocumentError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (line, column) = self.location.unzip();
        let mut fields = serializer.serialize_struct("Problem", 5)?;
        fields.serialize_field("file", &self.file)?;
        fields.serialize_field("line", &line)?;
        fields.serialize_field("column", &column)?;
        fields.serialize_field("field", &self.field)?;
        fields.serialize_field("message", &without_keys(&self.message))?;
        fields.end()
    }
}

/// All problems of a document, of the configuration, or of the objects that the router would reject; at least one.
#[derive(Debug, thiserror::Error)]
#[error("{}{}", .0.first().map(ToString::to_string).unwrap_or_default(), more(.0.len()))]
pub struct Problems(pub Vec<DocumentError>);

fn more(all: usize) -> String {
    match all {
        0 | 1 => String::new(),
        all => format!("; and {} more", all - 1),
    }
}

impl Problems {
    /// Returns an error if there are problems.
    ///
    /// # Errors
    /// The problems.
    pub(crate) fn refuse(problems: Vec<DocumentError>) -> Result<(), Self> {
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Self(problems)),
        }
    }
}
