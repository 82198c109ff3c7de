//! Repairs a repository that is missing, locked or broken.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::store::BRANCH;
use crate::util::task::blocking;

use super::tree::Tree;
use super::{CommitId, History, HistoryError};

impl History {
    /// Creates a missing repository, and removes stale locks.
    pub(super) async fn prepare(&self) -> Result<(), HistoryError> {
        match self.files(Tree::prepare).await? {
            true => Ok(()),
            false => self.begin().await,
        }
    }

    /// Returns the newest commit; `None` in a repository without commits.
    pub(super) async fn tip(&self) -> Result<Option<CommitId>, HistoryError> {
        let wanted = format!("{BRANCH}^{{commit}}");
        let tip = self
            .git
            .ask(
                "find the newest commit",
                &["rev-parse", "-q", "--verify", &wanted],
            )
            .await?;
        Ok(tip.map(CommitId::known))
    }

    /// Refreshes an index that may be behind to the newest commit, so that `git status` is correct.
    /// Does nothing while an operator's git operation is in progress, or HEAD is not at the
    /// history's branch.
    pub(super) async fn refresh_index(&self) {
        if !self.index_behind.load(Ordering::Relaxed) {
            return;
        }
        let Some(write) = self.files(Tree::begin_index).await else {
            return;
        };
        if let Err(error) = self
            .git
            .run("refresh the index", &["reset", "--quiet"])
            .await
        {
            tracing::debug!(%error, "commit written, index not updated; `git status` shows old \
                                     changes until the index can be written");
            return;
        }
        blocking(move || write.done()).await;
        self.index_behind.store(false, Ordering::Relaxed);
    }

    /// As [`Self::refresh_index`], between commits.
    pub(super) async fn catch_up(&self) {
        if self.index_behind.load(Ordering::Relaxed) && self.files(Tree::has_repository).await {
            let _turn = self.turn.lock().await;
            self.refresh_index().await;
        }
    }

    pub(super) async fn begin(&self) -> Result<(), HistoryError> {
        self.git
            .run(
                "begin a repository",
                &["init", "--quiet", "--initial-branch=main", "--template="],
            )
            .await?;
        self.files(Tree::write_ignore).await
    }

    /// Returns whether the newest commit and its tree can be read, or there is no commit yet.
    pub(super) async fn is_sound(&self) -> Result<bool, HistoryError> {
        if self
            .git
            .ask("read", &["rev-parse", "--git-dir"])
            .await?
            .is_none()
        {
            return Ok(false);
        }
        if let Some(tip) = self.tip().await? {
            return Ok(self
                .git
                .ask("read", &["ls-tree", "-r", "-t", tip.as_str()])
                .await?
                .is_some());
        }
        // A repository without commits is sound; an existing branch without a commit is not.
        Ok(!self.files(Tree::has_branch).await)
    }

    /// Quarantines a broken repository as a whole. First checks that git itself works: a git that
    /// cannot print its version proves nothing about the repository.
    pub(super) async fn set_aside(&self) -> Result<PathBuf, HistoryError> {
        self.git.run("print its version", &["version"]).await?;
        let quarantined = self.files(Tree::quarantine).await?;
        tracing::error!(
            quarantine = %quarantined.display(),
            "history broken; repository quarantined and a new one started"
        );
        Ok(quarantined)
    }
}
