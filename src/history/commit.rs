//! Commits: the content of a cause at the moment when it was recorded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::intervals::{GIT_AT_WORK_CHECK, OTHER_GIT_WAIT};
use crate::store::IDENTITY;
use crate::util::sorted::Sorted as _;

use super::cause::{Author, Cause, Paths};
use super::import::{Writing, stream};
use super::listing::Listing;
use super::tree::{Contents, Tree, is_kept};
use super::writers::has_secret;
use super::{CommitId, History, HistoryError};

/// A cause with the content of its files.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) cause: Cause,
    /// `None`: the content of the cause's paths when the commit is made.
    pub(super) contents: Option<Contents>,
}

impl Recorded {
    /// Reads the files of a cause. Blocks.
    pub(super) fn new(tree: &Tree, cause: Cause) -> Self {
        let contents = match &cause.paths {
            Paths::All | Paths::Gone => None,
            Paths::Some(paths) => Some(tree.read(paths.iter().cloned())),
            Paths::Exactly(exactly) => {
                let mut kept = exactly.clone();
                // The agent has just made these texts from valid records.
                kept.retain(|path, content| {
                    is_kept(path) && !content.as_deref().is_some_and(has_secret)
                });
                Some(kept)
            }
        };
        Self { cause, contents }
    }
}

impl History {
    /// Commits the changes of a cause, and leaves no git running. `None`: nothing changed.
    ///
    /// # Errors
    /// Git fails. The files are unchanged; a later commit with [`Paths::All`] catches up.
    pub async fn commit(&self, cause: Cause) -> Result<Option<CommitId>, HistoryError> {
        let recorded = self.files(move |tree| Recorded::new(tree, cause)).await;
        let committed = self.commit_recorded(&[recorded]).await;
        self.rest().await;
        committed
    }

    /// As [`Self::commit`], for several causes: a commit each, which become durable together. Returns the last one. The
    /// git that made the commits waits for the next ones, until [`Self::rest`].
    pub(super) async fn commit_recorded(
        &self,
        recorded: &[Recorded],
    ) -> Result<Option<CommitId>, HistoryError> {
        let mut writing = self.turn.lock().await;
        self.prepare(&mut writing).await?;
        let committed = self.commit_prepared(&mut writing, recorded).await?;
        self.refresh_index(&mut writing).await;
        Ok(committed)
    }

    async fn commit_prepared(
        &self,
        writing: &mut Writing,
        recorded: &[Recorded],
    ) -> Result<Option<CommitId>, HistoryError> {
        match self.commit_kept(writing, recorded).await {
            // Only an error of git itself may be the repository's fault; with a full disk the
            // repository is found sound.
            Err(HistoryError::Git { .. }) if !self.is_sound().await? => {
                let aside = self.set_aside().await?;
                self.begin().await?;
                let id = self.try_commit(writing, recorded).await?;
                self.try_commit(writing, &[first_commit(&aside)]).await?;
                Ok(id)
            }
            outcome => outcome,
        }
    }

    /// Commits, and tries once more if a git that was kept running failed: another git may have packed the objects
    /// that it knew, or ended it.
    async fn commit_kept(
        &self,
        writing: &mut Writing,
        recorded: &[Recorded],
    ) -> Result<Option<CommitId>, HistoryError> {
        let was_kept = writing.is_kept();
        match self.try_commit(writing, recorded).await {
            Err(error) if was_kept && !writing.is_kept() => {
                tracing::debug!(%error, "the git that waited for commits has failed; trying with a new one");
                self.try_commit(writing, recorded).await
            }
            outcome => outcome,
        }
    }

    async fn try_commit(
        &self,
        writing: &mut Writing,
        recorded: &[Recorded],
    ) -> Result<Option<CommitId>, HistoryError> {
        let tip = self.newest().await?;
        let mut listing = self.listing(writing, tip.as_ref()).await?;
        // The changes of the group's earlier causes.
        let mut pending = Contents::new();
        let (mut commits, mut from) = (Vec::new(), tip.as_ref());
        for recorded in recorded {
            let mut changed = self.changes(recorded, &listing, &pending).await?;
            if changed.keys().all(|path| path == Path::new(IDENTITY)) {
                continue;
            }
            if tip.is_none() && commits.is_empty() {
                let ignore = self.files(|tree| tree.read([PathBuf::from(".gitignore")]));
                changed.extend(ignore.await);
                changed.retain(|_, content| content.is_some());
            }
            commits.push(stream(&recorded.cause, from.take(), &changed));
            pending.extend(changed);
        }
        if commits.is_empty() {
            writing.keep(listing);
            return Ok(None);
        }
        let id = self.import(writing, tip.as_ref(), commits.concat()).await?;
        listing.follow(&pending, &id);
        writing.keep(listing);
        let count = u64::try_from(commits.len()).unwrap_or_default();
        self.commits.fetch_add(count, Ordering::Relaxed);
        self.index_behind.store(true, Ordering::Relaxed);
        Ok(Some(id))
    }

    /// Returns the contents of a cause that differ from the commit's, with those of earlier causes.
    async fn changes(
        &self,
        recorded: &Recorded,
        listing: &Listing,
        pending: &Contents,
    ) -> Result<Contents, HistoryError> {
        // Content that is read now must be from the branch's tree; recorded content is valid wherever HEAD is.
        let at_rest = match recorded.contents {
            Some(_) => None,
            None => {
                self.wait_for_git().await;
                Some(self.files(Tree::at_rest).await?)
            }
        };
        let mut changed = self.wanted(recorded, listing, pending).await;
        if let Some(at_rest) = at_rest
            && self.files(Tree::at_rest).await? != at_rest
        {
            return Err(self.tree.moved("being changed by another git"));
        }
        changed.retain(|path, content| match pending.get(path) {
            Some(pending) => pending != content,
            None => listing.differs(path, content.as_deref()),
        });
        Ok(changed)
    }

    /// Returns the contents of a cause, whether the history has them or not.
    async fn wanted(&self, recorded: &Recorded, listing: &Listing, pending: &Contents) -> Contents {
        let known = || {
            let paths: BTreeSet<_> = listing.paths().chain(pending.keys()).cloned().sorted_set();
            paths
        };
        let mut wanted = match (&recorded.contents, &recorded.cause.paths) {
            (Some(contents), _) => contents.clone(),
            (None, Paths::Gone) => {
                let known = known();
                let mut gone = self.files(move |tree| tree.read(known)).await;
                gone.retain(|_, content| content.is_none());
                gone
            }
            (None, _) => {
                let known = known();
                let read =
                    |tree: &Tree| tree.read(known.into_iter().chain(tree.on_disk(Path::new(""))));
                self.files(read).await
            }
        };
        // Recorded with the next cause: an identity alone is not a cause.
        let identity = self.files(|tree| tree.read([PathBuf::from(IDENTITY)]));
        let identity = identity.await;
        wanted.extend(identity.into_iter().filter(|(_, text)| text.is_some()));
        wanted
    }

    /// Waits for a limited time while another git holds the index, because it may be changing the
    /// tree. A lock that was created manually delays the commit only for that time.
    async fn wait_for_git(&self) {
        let begun = Instant::now();
        while self.files(Tree::is_moving).await && begun.elapsed() < OTHER_GIT_WAIT {
            tokio::time::sleep(GIT_AT_WORK_CHECK).await;
        }
    }
}

/// The commit that adds everything to a new repository.
fn first_commit(aside: &Path) -> Recorded {
    let name = aside.file_name().unwrap_or_default().display();
    let cause = Cause {
        author: Author::Agent,
        paths: Paths::All,
        subject: "Begin a new history".to_owned(),
        body: vec![format!(
            "The previous history was broken; it is kept as {name}."
        )],
    };
    Recorded {
        cause,
        contents: None,
    }
}
