//! Detects whether the work tree of the state directory is that of the history's branch. A tool
//! that moves the whole tree (`git checkout OLD`, `git bisect`) makes no manual edit, so the agent
//! reads nothing from a tree that Git moved.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;

use crate::intervals::INDEX_LOCK_STALE;
use crate::util::file::{self, Stamp};
use crate::util::fs;

pub(crate) const BRANCH: &str = "refs/heads/main";

/// Size limit of a repository file that is read here, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Describes the position of HEAD while it is not at the history's branch; `None`: it is there, or
/// there is no history that it could have left.
pub(crate) fn moved(dir: &Path) -> Option<String> {
    let git = dir.join(".git");
    let path = git.join("HEAD");
    let stamp = Stamp::at(&path)?;
    if AT_BRANCH.lock().get(&path) == Some(&stamp) {
        return None;
    }
    let head = file::read_text(&path, MAX_BYTES).ok()?;
    let head = head.trim();
    let is_at_branch = head.strip_prefix("ref: ").map(str::trim) == Some(BRANCH);
    if is_at_branch && stamp.is_settled() {
        AT_BRANCH.lock().insert(path, stamp);
    }
    if is_at_branch || !has_branch(&git) {
        return None;
    }
    if let Some(name) = head.strip_prefix("ref: refs/heads/") {
        return Some(format!("on branch {name}"));
    }
    is_id(head).then(|| format!("detached at {}", head.get(..10).unwrap_or(head)))
}

/// Returns whether another git than the agent's is changing the tree now: it holds the index until
/// all files are written, and writes HEAD after that.
pub(crate) fn is_moving(dir: &Path, quiet: Duration) -> bool {
    let found = |file: &str| fs::symlink_metadata(dir.join(".git").join(file)).ok();
    let is_younger = |found: &Metadata, age: Duration| {
        let at = found.modified().ok();
        at.and_then(|at| at.elapsed().ok())
            .is_some_and(|is| is < age)
    };
    let locked = found(INDEX_LOCK).is_some_and(|lock| is_younger(&lock, INDEX_LOCK_STALE));
    let written = found(INDEX).filter(|index| is_younger(index, quiet));
    if !locked && written.is_none() {
        return false;
    }
    let own = own_index(dir);
    !own.is_writing && (locked || written.is_some_and(|it| own.left != Some(Stamp::of(&it))))
}

/// The HEADs that are at the history's branch, as last read. A process may have several state directories in tests.
static AT_BRANCH: Mutex<BTreeMap<PathBuf, Stamp>> = Mutex::new(BTreeMap::new());

const INDEX: &str = "index";
const INDEX_LOCK: &str = "index.lock";

/// The agent's own writes of the index of one state directory.
#[derive(Debug, Clone, Copy, Default)]
struct OwnIndex {
    is_writing: bool,
    /// The index after the last write by the agent's git.
    left: Option<Stamp>,
}

/// Keyed by state directory; a process may have several in tests.
static OWN_INDEX: Mutex<BTreeMap<PathBuf, OwnIndex>> = Mutex::new(BTreeMap::new());

fn canonical(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

fn own_index(dir: &Path) -> OwnIndex {
    OWN_INDEX
        .lock()
        .get(&canonical(dir))
        .copied()
        .unwrap_or_default()
}

/// A write of the index by the agent's own git, which changes no file of the tree. Until it is
/// dropped the tree does not count as moving, and the index that it leaves does not count as a move
/// either.
#[derive(Debug)]
pub(crate) struct IndexWrite(PathBuf);

impl IndexWrite {
    /// Begins a write; `None` while another git holds the index.
    pub(crate) fn begin(dir: &Path) -> Option<Self> {
        let dir = canonical(dir);
        if fs::exists(dir.join(".git").join(INDEX_LOCK)) {
            return None;
        }
        OWN_INDEX.lock().entry(dir.clone()).or_default().is_writing = true;
        Some(Self(dir))
    }

    /// Records the index that the agent's git has left.
    pub(crate) fn done(&self) {
        let found = fs::symlink_metadata(self.0.join(".git").join(INDEX)).ok();
        OWN_INDEX.lock().entry(self.0.clone()).or_default().left = found.as_ref().map(Stamp::of);
    }
}

impl Drop for IndexWrite {
    fn drop(&mut self) {
        OWN_INDEX
            .lock()
            .entry(self.0.clone())
            .or_default()
            .is_writing = false;
    }
}

/// Returns whether a text is the full ID of a commit, SHA-1 or SHA-256.
pub(crate) fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn has_branch(git: &Path) -> bool {
    let packed = || file::read_text(&git.join("packed-refs"), MAX_BYTES).unwrap_or_default();
    fs::exists(git.join(BRANCH)) || packed().lines().any(|line| line.ends_with(BRANCH))
}
