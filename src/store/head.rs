//! Whether the work tree of the state directory is that of the history's branch. A tool that moves the whole
//! tree (`git checkout OLD`, `git bisect`) is no edit by hand, so nothing is read from a tree that Git moved.

use std::path::Path;
use std::time::Duration;

use crate::disk;

/// The branch of the history.
pub(crate) const BRANCH: &str = "refs/heads/main";

/// The largest file of a repository that is read here, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// A lock of the index that is older than this belongs to a git that is gone, and no longer counts.
const STALE: Duration = Duration::from_secs(10);

/// Where HEAD points while it is not at the history's branch, in words for a person; `None`: it is there, or there
/// is no history that it could have left.
pub(crate) fn moved(dir: &Path) -> Option<String> {
    let git = dir.join(".git");
    let head = disk::read_text(&git.join("HEAD"), MAX_BYTES).ok()?;
    let head = head.trim();
    if head.strip_prefix("ref: ").map(str::trim) == Some(BRANCH) || !has_branch(&git) {
        return None;
    }
    if let Some(name) = head.strip_prefix("ref: refs/heads/") {
        return Some(format!("on branch {name}"));
    }
    is_id(head).then(|| format!("detached at {}", head.get(..10).unwrap_or(head)))
}

/// Whether a git changes the tree at this moment: it holds the index until all files are written, and writes HEAD
/// after that.
pub(crate) fn is_moving(dir: &Path, quiet: Duration) -> bool {
    let age = |file: &str| {
        let found = std::fs::symlink_metadata(dir.join(".git").join(file)).ok()?;
        found.modified().ok()?.elapsed().ok()
    };
    age("index.lock").is_some_and(|age| age < STALE) || age("index").is_some_and(|age| age < quiet)
}

/// Whether a text is the full name of a commit, as SHA-1 or SHA-256 gives it.
pub(crate) fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn has_branch(git: &Path) -> bool {
    let packed = || disk::read_text(&git.join("packed-refs"), MAX_BYTES).unwrap_or_default();
    git.join(BRANCH).exists() || packed().lines().any(|line| line.ends_with(BRANCH))
}
