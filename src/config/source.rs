use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

/// The file that a configuration was read from, and its values.
#[derive(Clone, Default, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its values as written in the file.
    pub(super) values: Value,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the values, because they may contain a token.
        f.debug_tuple("Source").field(&self.path).finish()
    }
}
