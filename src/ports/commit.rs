use std::fmt;
use std::sync::Arc;

use crate::observed::bird::Diagnostic;

/// The text of one session, and the protocols it defines. `Debug` omits the text, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The whole file.
    pub text: Arc<str>,
    /// The protocols BIRD must have once this is loaded.
    pub protocols: Vec<String>,
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragment")
            .field("bytes", &self.text.len())
            .field("protocols", &self.protocols)
            .finish()
    }
}

/// The result of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Whether the running BIRD has loaded it. `false`: BIRD is not running, and reads the files when
    /// it starts.
    pub loaded: bool,
    /// Whether any file was written or removed, or BIRD reloaded its files.
    pub changed: bool,
    /// The warnings of BIRD's parser, in any file.
    pub warnings: Vec<Diagnostic>,
    /// The value of `MOE_GENERATION` in these files.
    pub generation: String,
}
