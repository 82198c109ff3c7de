use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What may have changed since the last listing began.
#[derive(Debug)]
pub(super) enum ChangedFiles {
    Anything,
    /// These files; of a listing of everything, the names in folders too.
    Files(HashSet<PathBuf>),
}

impl Default for ChangedFiles {
    fn default() -> Self {
        Self::Files(HashSet::new())
    }
}

impl ChangedFiles {
    pub(super) fn add(&mut self, path: &Path) {
        if let Self::Files(files) = self {
            files.insert(path.to_owned());
        }
    }

    /// Returns whether the content of a file may have changed.
    pub(super) fn has(&self, path: &Path) -> bool {
        match self {
            Self::Anything => true,
            Self::Files(files) => files.contains(path),
        }
    }
}
