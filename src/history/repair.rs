//! Repairs a repository that is missing, locked or broken.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::store::BRANCH;

use super::import::Writing;
use super::listing::Listing;
use super::tree::{Newest, Tree};
use super::{CommitId, History, HistoryError};

impl History {
    /// Creates a missing repository, and removes stale locks.
    pub(super) async fn prepare(&self, writing: &mut Writing) -> Result<(), HistoryError> {
        self.leave_locks(writing).await;
        match self.files(Tree::prepare).await? {
            true => Ok(()),
            false => self.begin().await,
        }
    }

    /// Ends the agent's own git if there is a lock, so that it does not count as the lock's holder.
    async fn leave_locks(&self, writing: &mut Writing) {
        if writing.is_kept() && self.files(Tree::is_locked).await {
            self.end_import(writing).await;
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

    /// Returns the newest commit without a call of git, if the repository's files name it.
    pub(super) async fn newest(&self) -> Result<Option<CommitId>, HistoryError> {
        match self.files(Tree::newest).await {
            Newest::Commit(id) => Ok(Some(id)),
            Newest::NoCommit => Ok(None),
            Newest::AskGit => self.tip().await,
        }
    }

    /// Returns the files of a commit.
    pub(super) async fn listing(
        &self,
        writing: &mut Writing,
        tip: Option<&CommitId>,
    ) -> Result<Listing, HistoryError> {
        match (writing.take(tip), tip) {
            (Some(known), _) => Ok(known),
            (None, Some(tip)) => self.list(tip).await,
            (None, None) => Ok(Listing::default()),
        }
    }

    /// Lists the files of a commit.
    pub(super) async fn list(&self, tip: &CommitId) -> Result<Listing, HistoryError> {
        let args = ["ls-tree", "-r", "-z", tip.as_str()];
        let listed = self.git.run("list", &args).await?;
        Ok(Listing::parse(tip, &listed))
    }

    /// Refreshes an index that may be behind to the newest commit, so that `git status` is correct.
    /// Does nothing while an operator's git operation is in progress, or HEAD is not at the
    /// history's branch.
    pub(super) async fn refresh_index(&self, writing: &mut Writing) {
        if !self.index_behind.load(Ordering::Relaxed) {
            return;
        }
        self.leave_locks(writing).await;
        match self.write_index(writing).await {
            Ok(true) => self.index_behind.store(false, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "commit written, index not updated; `git status` shows old \
                                         changes until the index can be written");
            }
        }
    }

    /// `false`: another git holds the index, or there is no commit yet.
    async fn write_index(&self, writing: &mut Writing) -> Result<bool, HistoryError> {
        let Some(tip) = self.newest().await? else {
            return Ok(false);
        };
        let listing = self.listing(writing, Some(&tip)).await?;
        let index = listing.index();
        writing.keep(listing);
        self.files(move |tree| tree.write_index(&index, &tip)).await
    }

    /// Ends the git that waits for commits.
    pub(super) async fn rest(&self) {
        let mut writing = self.turn.lock().await;
        self.end_import(&mut writing).await;
    }

    /// As [`Self::refresh_index`], between commits.
    pub(super) async fn catch_up(&self) {
        if self.index_behind.load(Ordering::Relaxed) && self.files(Tree::has_repository).await {
            let mut writing = self.turn.lock().await;
            self.refresh_index(&mut writing).await;
        }
    }

    pub(super) async fn begin(&self) -> Result<(), HistoryError> {
        self.files(Tree::begin).await
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
        Ok(!self.files(Tree::has_branch).await?)
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
