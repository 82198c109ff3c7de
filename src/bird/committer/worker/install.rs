//! Writes the tree of an attempt, and lets BIRD load it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::{Progress, Worker};
use crate::bird::committer::batch::Wishes;
use crate::bird::committer::blame::Blame;
use crate::bird::committer::changes::FileChanges;
use crate::bird::committer::confirm::{Load, LoadError, Running};
use crate::observed::Ownership;
use crate::observed::bird::outline::protocols_in;
use crate::observed::bird::{Diagnostic, LiveTree, Tree};
use crate::ports::{CommitError, Committed};
use crate::util::sorted::Sorted as _;

/// The input of one attempt, and the tree that it would write.
pub(super) struct Attempt<'a> {
    pub(super) live: &'a LiveTree,
    pub(super) wishes: &'a Wishes,
    pub(super) progress: &'a Progress,
    pub(super) ownership: Arc<Ownership>,
    pub(super) before: Tree,
    pub(super) wanted: Tree,
    pub(super) changes: FileChanges,
    pub(super) generation: String,
}

impl Attempt<'_> {
    pub(super) fn committed(
        &self,
        loaded: bool,
        changed: bool,
        warnings: Vec<Diagnostic>,
    ) -> Committed {
        Committed {
            loaded,
            changed,
            warnings,
            generation: self.generation.clone(),
        }
    }

    /// Returns whether BIRD runs all of the agent's files on disk.
    pub(super) fn is_of(&self, running: &Running) -> bool {
        *running == Running::Loaded(Some(self.before.generation()))
    }
}

impl Worker {
    /// Writes the wanted files, and loads and verifies them unless something blocks that.
    pub(super) async fn install(
        &mut self,
        attempt: &Attempt<'_>,
        running: &Running,
        blocked: Option<CommitError>,
        warnings: Vec<Diagnostic>,
    ) -> Result<Committed, Blame> {
        let Attempt {
            wishes,
            progress,
            ownership,
            before,
            wanted,
            changes,
            generation,
            ..
        } = attempt;
        let load = Load {
            client: &self.client,
            directory: &self.directory,
            ownership,
            group: self.group,
            confirm_timeout: self.confirm_timeout(),
            live: attempt.live,
            changes,
            generation,
            files: wanted.count(),
            promised: promised(wishes),
            may_go_down: (wishes.base.is_none()
                && progress.blamed.is_empty()
                && attempt.is_of(running))
            .then(|| touched(before, wishes, &progress.stale)),
        };
        if let Some(blocked) = blocked {
            // The files are ready for the operator to include; the daemon runs the operator's configuration.
            load.write().await?;
            self.written.set(wanted);
            return Err(blocked.into());
        }
        match load.run().await {
            Ok(loaded) => {
                self.written.set(wanted);
                Ok(attempt.committed(loaded, loaded || !changes.is_empty(), warnings))
            }
            Err(LoadError::Commit(error)) => {
                if matches!(error, CommitError::NotSettled(_)) {
                    // The files stay, because BIRD is about to run them.
                    self.written.set(wanted);
                }
                self.failed
                    .remember_tree(generation, &error, Instant::now());
                Err(error.into())
            }
            Err(LoadError::Missing(missing)) => Err(Blame::Unverified(missing)),
        }
    }
}

/// Returns the protocols that each fragment of the requested changes promises.
fn promised(wishes: &Wishes) -> BTreeMap<String, Vec<String>> {
    let set = wishes
        .fragments
        .iter()
        .filter_map(|(name, fragment)| Some((name, fragment.as_ref()?)));
    set.map(|(name, fragment)| (name.clone(), fragment.protocols.clone()))
        .sorted_map()
}

/// Returns the protocols of the changing fragments: those of their old texts and of their new ones.
fn touched(tree: &Tree, wishes: &Wishes, stale: &BTreeSet<String>) -> BTreeSet<String> {
    let names = wishes.fragments.keys().chain(stale);
    let old = names
        .filter_map(|name| tree.fragments.get(name))
        .flat_map(|text| protocols_in(text));
    let new = wishes.fragments.values().flatten();
    old.chain(
        new.flat_map(|fragment| {
            [protocols_in(&fragment.text), fragment.protocols.clone()].concat()
        }),
    )
    .sorted_set()
}
