//! The Git side of the state directory: one commit per cause, readable with stock `git`.
//!
//! Commits are made from the content at the moment when the cause was recorded, directly onto
//! `refs/heads/main`, without the index and the work tree: a lock, a staged file or a manual
//! checkout delays nothing, and the diff of an apply is exactly the applied change, although the
//! next apply may already have run. An allow list admits only documents, so a secret cannot enter.
//!
//! One `git fast-import` makes all commits that follow each other closely, and ends when none came
//! for a while. The files of the newest commit are remembered, so that a comparison needs no git.
//!
//! A broken repository is moved as a whole to `.git.broken`, and a new one is created: the
//! history continues, and nothing is deleted. Errors become a condition; routing does not wait for
//! any of this.

mod cause;
mod commit;
mod error;
mod feed;
mod git;
mod id;
mod import;
mod listing;
mod query;
mod queue;
mod repair;
mod tree;
mod writers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

pub use cause::{Author, Cause, Paths};
pub use error::HistoryError;
pub(crate) use feed::{Feed, Recording};
pub use id::CommitId;
pub(crate) use query::LoggedCommit;
pub use queue::HistoryHandle;
pub(crate) use tree::{Contents, FILES};
pub(crate) use writers::may_enter;

use crate::intervals::{GIT_CALL, GIT_PACKING};
use crate::util::task::blocking;
use git::Git;
use import::Writing;
use tree::{Accepts, Tree};

/// Number of loose objects, and of packs, from which the repository is packed.
const LOOSE: usize = 500;
const PACKS: usize = 20;
const PACK_AFTER: u64 = 50;

const GITIGNORE: &str = "\
# What the history leaves out: observations, secrets, reports, locks, editors' leftovers.
/status/
/secrets/
/outbox/
/roa.conf
/classes.json
/rpki.json
/held.yaml
/public-key
.*
!/.gitignore
*~
*.bak
*.swp
*.tmp
";

/// The history of one state directory.
#[derive(Debug)]
pub struct History {
    tree: Tree,
    git: Git,
    /// Serializes commits.
    turn: Mutex<Writing>,
    /// Number of commits since the last check whether to pack.
    commits: AtomicU64,
    /// Whether the index may be behind the newest commit: after a commit, and at the start, because
    /// a crash may have come between the two.
    index_behind: AtomicBool,
}

impl History {
    /// Creates the history of a state directory without reading it: the first commit creates a
    /// missing repository and quarantines a broken one, so that opening cannot fail.
    pub fn new(dir: &Path) -> Self {
        Self::with_program(dir, "git", GIT_CALL)
    }

    /// As [`History::new`], with another `git` and deadline.
    pub fn with_program(dir: &Path, program: impl Into<PathBuf>, deadline: Duration) -> Self {
        let git = Git::new(dir, program.into(), deadline);
        let (turn, commits) = Default::default();
        Self {
            tree: Tree::new(dir),
            git,
            turn,
            commits,
            index_behind: AtomicBool::new(true),
        }
    }

    /// Accepts only such contents. A history keeps everything, so a content that may contain a
    /// secret by mistake must not enter it.
    #[must_use]
    pub fn accepting(self, accepts: impl Fn(&Path, &[u8]) -> bool + Send + Sync + 'static) -> Self {
        let tree = Tree {
            accepts: Accepts(Arc::new(accepts)),
            ..self.tree
        };
        Self { tree, ..self }
    }

    /// Runs work on files on a thread that may block.
    async fn files<T: Send + 'static>(&self, work: impl FnOnce(&Tree) -> T + Send + 'static) -> T {
        let tree = self.tree.clone();
        blocking(move || work(&tree)).await
    }

    /// Creates the repository if it is missing, and quarantines a broken one.
    ///
    /// # Errors
    /// Git is not installed, or the repository cannot be written.
    pub async fn open(dir: &Path) -> Result<Self, HistoryError> {
        let history = Self::new(dir);
        {
            let mut writing = history.turn.lock().await;
            history.prepare(&mut writing).await?;
            if !history.is_sound().await? {
                history.set_aside().await?;
                history.begin().await?;
            }
        }
        Ok(history)
    }

    /// Packs the repository when necessary, so that it stays small over years. Checks that once a
    /// day, and after a number of commits.
    ///
    /// # Errors
    /// Git fails; the repository is unchanged.
    pub async fn maintain(&self) -> Result<(), HistoryError> {
        let lately = self.files(Tree::was_packed_lately).await;
        if lately && self.commits.load(Ordering::Relaxed) < PACK_AFTER {
            return Ok(());
        }
        self.commits.store(0, Ordering::Relaxed);
        let mut writing = self.turn.lock().await;
        if self.files(Tree::needs_packing).await {
            self.end_import(&mut writing).await;
            match self
                .git
                .with_deadline(GIT_PACKING)
                .run("pack", &["gc", "--quiet"])
                .await
            {
                // An operator's commit packs too.
                Err(HistoryError::Git { .. }) if self.files(Tree::is_being_packed).await => {}
                packed => drop(packed?),
            }
        }
        self.files(Tree::note_packed).await
    }
}
