use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::rules::at_key;
use crate::document::DocumentError;

/// The file that a configuration was read from, and its values.
#[derive(Clone, Default, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub(super) text: Arc<str>,
    /// Its values as written in the file.
    pub(super) values: Value,
}

impl Source {
    /// Returns an error about a key, with its place in the file.
    pub(crate) fn error(&self, key: &str, message: &str) -> DocumentError {
        at_key(&self.text, key, message).in_file(&self.path)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits text and values, because they may contain a token.
        f.debug_tuple("Source").field(&self.path).finish()
    }
}
