//! The Git side of the state directory: one commit a cause, readable with stock `git`.
//!
//! Commits are made from the content that was there when the cause was recorded, straight onto
//! `refs/heads/main`, without the index and the work tree: a lock, a staged file or a checkout by hand
//! holds nothing up, and the diff of an apply is what came into force although the next apply may
//! already have run. Only documents get in, by a list of what is allowed, so a secret cannot.
//!
//! A repository that is broken is set aside as `.git.broken-<n>`, whole, and a new one begun: history
//! goes on, and nothing is deleted. Errors become a condition; routing does not wait for any of this.

mod commit;
mod error;
mod git;
mod query;
mod queue;
mod repair;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

pub use commit::{Accepts, Author, Cause, Contents, FILES, Paths};
pub use error::HistoryError;
pub use query::{CommitId, Entry};
pub use queue::HistoryHandle;

use crate::store::state_directory;
use git::Git;

/// How long one call of git may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long packing may take; nothing waits for it.
const PACKING_DEADLINE: Duration = Duration::from_secs(600);
/// With more loose objects than this, or more packs, the repository is packed.
const LOOSE: u64 = 500;
const PACKS: u64 = 20;
/// How often it is looked whether to pack, and after how many commits at the latest.
const PACK_EVERY: Duration = Duration::from_secs(24 * 3600);
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
    dir: PathBuf,
    /// What the directory was known by when this was made: nothing is written into another one.
    directory: Option<String>,
    git: Git,
    accepts: Accepts,
    /// One commit at a time.
    turn: Mutex<()>,
    /// Commits since it was last looked whether to pack.
    commits: AtomicU64,
    /// Whether the index may be behind the newest commit: after a commit, and at the start, since a crash may have
    /// come between the two.
    index_behind: AtomicBool,
}

impl History {
    /// The history of a state directory. Looks at nothing yet: a repository that is missing is begun,
    /// and a broken one set aside, by the first commit, so that opening cannot fail.
    pub fn new(dir: &Path) -> Self {
        Self::with_program(dir, "git", DEADLINE)
    }

    /// As [`History::new`], with another `git` and deadline.
    pub fn with_program(dir: &Path, program: impl Into<PathBuf>, deadline: Duration) -> Self {
        let git = Git::new(dir, program.into(), deadline);
        let (turn, commits) = Default::default();
        let directory = state_directory(dir);
        Self {
            dir: dir.to_owned(),
            directory,
            git,
            accepts: |_, _| true,
            turn,
            commits,
            index_behind: AtomicBool::new(true),
        }
    }

    /// Keeps only such contents. A history is for ever, so what may hold a secret by mistake must not get in.
    #[must_use]
    pub fn accepting(self, accepts: Accepts) -> Self {
        Self { accepts, ..self }
    }

    /// Begins the repository if there is none, and sets a broken one aside.
    ///
    /// # Errors
    /// When git is not installed, or the repository cannot be written.
    pub async fn open(dir: &Path) -> Result<Self, HistoryError> {
        let history = Self::new(dir);
        {
            let _turn = history.turn.lock().await;
            history.prepare().await?;
            if !history.is_sound().await? {
                history.set_aside().await?;
                history.begin().await?;
            }
        }
        Ok(history)
    }

    /// Packs the repository when there is much to pack, so that it stays small over years. Looks whether
    /// there is once a day, and after so many commits.
    ///
    /// # Errors
    /// When git fails; the repository is as it was.
    pub async fn maintain(&self) -> Result<(), HistoryError> {
        let stamp = self.dir.join(".git/moenet-packed");
        let age = std::fs::metadata(&stamp)
            .and_then(|found| found.modified())
            .ok();
        let lately = age
            .and_then(|at| at.elapsed().ok())
            .is_some_and(|age| age < PACK_EVERY);
        if lately && self.commits.load(Ordering::Relaxed) < PACK_AFTER {
            return Ok(());
        }
        self.commits.store(0, Ordering::Relaxed);
        let _turn = self.turn.lock().await;
        let counted = self
            .git
            .run("count the objects", &["count-objects", "-v"])
            .await?;
        let counted = String::from_utf8_lossy(&counted);
        let count = |key: &str| -> u64 {
            let number = counted
                .lines()
                .find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
            number.unwrap_or_default()
        };
        if count("count:") > LOOSE || count("packs:") > PACKS {
            self.git
                .with_deadline(PACKING_DEADLINE)
                .run("pack", &["gc", "--quiet"])
                .await?;
        }
        std::fs::write(&stamp, "").map_err(HistoryError::io("write", &stamp))
    }
}
