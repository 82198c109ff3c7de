use std::path::{Path, PathBuf};

use crate::document::{self, DocumentError};

/// A document as an operator gave it, by its file and text.
#[derive(Debug, Clone)]
pub(super) struct Given {
    file: PathBuf,
    text: String,
}

impl Given {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let (file, text) = (file.to_owned(), text.to_owned());
        Self { file, text }
    }

    /// Returns the location of a field, or of the nearest field above; in an override it is below `set`.
    fn locate(&self, field: &str) -> Option<(u64, u64)> {
        let keys = field.split(['.', '[', ']']);
        let keys: Vec<_> = keys.filter(|key| !key.is_empty()).collect();
        let rest = keys.get(1..).unwrap_or_default();
        let set: Vec<_> = ["spec", "set"].iter().chain(rest).copied().collect();
        let at = |path: &[&str]| document::locate(&self.text, path);
        let mut above = (1..=keys.len()).rev();
        at(&set).or_else(|| above.find_map(|end| at(keys.get(..end)?)))
    }
}

/// Returns an error with its place in the given document; an argument has none.
pub(super) fn given_at(given: Option<&Given>, fault: DocumentError) -> DocumentError {
    let location = given.and_then(|given| given.locate(&fault.field));
    DocumentError {
        file: given.map(|given| given.file.clone()),
        location,
        ..fault
    }
}
