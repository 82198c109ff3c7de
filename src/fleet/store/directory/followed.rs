//! Whether a server follows a directory as a Git repository: its posts are outside of Git then. Blocks.

use std::io;
use std::path::{Path, PathBuf};

use crate::fleet::posts::REPORTED;
use crate::util::file::{self, Writer};
use crate::util::fs;

/// Returns the file with the served commit. No router can have this name.
pub(in crate::fleet) fn commit_path(root: &Path) -> PathBuf {
    root.join(REPORTED).join(".commit.json")
}

/// Returns the file with the state of the followed reference. It exists while a server follows the directory.
pub(in crate::fleet) fn view_path(root: &Path) -> PathBuf {
    root.join(REPORTED).join(".git.json")
}

/// Returns whether a server follows the directory.
pub(in crate::fleet) fn is_followed(root: &Path) -> bool {
    fs::exists(view_path(root))
}

/// Records whether a server follows the directory.
pub(super) fn mark(root: &Path, is_followed: bool) -> io::Result<()> {
    if !is_followed {
        // The commit may be older than what the files say from now on.
        file::remove_file(&commit_path(root))?;
        return file::remove_file(&view_path(root)).map(drop);
    }
    for (path, text) in [
        (root.join(REPORTED).join(".gitignore"), "*\n"),
        (view_path(root), "{}\n"),
    ] {
        if !fs::exists(&path) {
            Writer::new(0o644).replace(&path, text.as_bytes())?;
        }
    }
    Ok(())
}
