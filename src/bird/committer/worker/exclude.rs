//! Excludes the changes that are to blame from a batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Settling, Worker};
use crate::bird::committer::blame::Blame;
use crate::bird::committer::disk;
use crate::intervals::FOREIGN_FILE_QUIET;
use crate::observed::bird::Diagnostic;
use crate::observed::bird::tree::fragment_path;
use crate::ports::{CommitError, Fragment, FragmentError};
use crate::util::task::blocking;

impl Worker {
    /// Excludes the changes to blame from the batch.
    ///
    /// # Errors
    /// No change of the batch is to blame.
    pub(super) async fn exclude(
        &mut self,
        batch: &mut Settling,
        blame: Blame,
    ) -> Result<(), Arc<CommitError>> {
        let Settling {
            wishes, outcome, ..
        } = batch;
        match blame {
            Blame::All(error) => return Err(error.into()),
            Blame::Base(error) if wishes.base.take().is_some() => outcome.base = Some(error),
            Blame::Fragments(faulty)
                if faulty
                    .keys()
                    .any(|name| wishes.fragments.contains_key(name)) =>
            {
                for (name, error) in faulty {
                    let fragment = wishes.fragments.remove(&name).flatten();
                    let fragment = fragment.map(|fragment| (name.clone(), fragment));
                    batch.tried.extend(fragment);
                    outcome.fragments.insert(name, error);
                }
            }
            Blame::Stale(name, what) if batch.progress.blamed.insert(name.clone()) => {
                tracing::warn!(fragment = name, error = %what, "BIRD rejects a file that is not wanted; removing it");
                self.exclude_stale(batch, name, what).await?;
            }
            Blame::Unverified(missing)
                if missing
                    .keys()
                    .any(|name| wishes.fragments.contains_key(name)) =>
            {
                self.exclude_unverified(batch, missing);
            }
            // A change that is blamed twice is not the cause.
            Blame::Base(error) => return Err(unexplained(error.to_string())),
            Blame::Fragments(faulty) => {
                let texts: Vec<_> = faulty.values().map(ToString::to_string).collect();
                return Err(unexplained(texts.join("; ")));
            }
            Blame::Stale(_, what) => return Err(CommitError::Tree(what).into()),
            Blame::Unverified(_) => return Err(CommitError::NotIncluded.into()),
        }
        Ok(())
    }

    /// Removes a file on disk that BIRD rejects. A foreign one that may still be written gets some time first.
    async fn exclude_stale(
        &self,
        batch: &mut Settling,
        name: String,
        what: Diagnostic,
    ) -> Result<(), Arc<CommitError>> {
        let path = fragment_path(&name);
        if batch.live.others.contains_key(&path) {
            return Err(CommitError::Tree(what).into());
        }
        let judged = batch.live.tree.foreign.get(&path).cloned();
        let file = self.directory.join(&path);
        let is_incomplete =
            move |judged: String| disk::may_be_incomplete(&file, &judged, FOREIGN_FILE_QUIET);
        if !batch.progress.waited && blocking(move || judged.is_some_and(is_incomplete)).await {
            batch.progress.waited = true;
            batch.progress.blamed.remove(&name);
            tokio::time::sleep(FOREIGN_FILE_QUIET).await;
            batch.live = self.read().await?;
            return Ok(());
        }
        if Arc::make_mut(&mut batch.live)
            .tree
            .foreign
            .remove(&path)
            .is_none()
        {
            batch.progress.stale.insert(name.clone());
        } else {
            self.quarantine(path).await?;
        }
        if let Some(fragment) = batch.left.remove(&name) {
            batch.outcome.fragments.remove(&name);
            batch.wishes.fragments.insert(name, Some(fragment));
        }
        Ok(())
    }

    /// Excludes the changes whose protocols BIRD does not have after the load.
    fn exclude_unverified(&mut self, batch: &mut Settling, missing: BTreeMap<String, Vec<String>>) {
        for (name, missing) in missing {
            let fragment = batch.wishes.fragments.remove(&name).flatten();
            let error = FragmentError::Unverified {
                name: name.clone(),
                missing,
            };
            if let Some(Fragment { text, .. }) = fragment {
                self.failed
                    .remember_fragment(&name, text, error.clone(), Instant::now());
            }
            batch.outcome.fragments.insert(name, error);
        }
    }
}

fn unexplained(message: String) -> Arc<CommitError> {
    let what = Diagnostic {
        message,
        ..Default::default()
    };
    CommitError::Tree(what).into()
}
