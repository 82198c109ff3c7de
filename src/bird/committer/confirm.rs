//! Installs a checked tree, lets BIRD load it, verifies the result, and confirms or undoes it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::{FileChanges, plan_undo};
use super::disk;
use crate::bird::client::Client;
use crate::bird::command::Command;
use crate::intervals::{SETTLING_MIN, SETTLING_POLL};
use crate::observed::Ownership;
use crate::observed::bird::tree::GENERATION_SYMBOL;
use crate::observed::bird::{ConfigureStatus, LiveTree, Phase, Protocol, Symbol};
use crate::ports::{BirdError, CommitError};
use crate::util::backoff::Backoff;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// Reason why a tree is not loaded. The files are as before, unless the error says otherwise.
#[derive(Debug)]
pub(super) enum LoadError {
    /// Fragments whose protocols BIRD does not have, with the names. The load was undone.
    Missing(BTreeMap<String, Vec<String>>),
    /// Any other error.
    Commit(CommitError),
}

impl<E: Into<CommitError>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Commit(error.into())
    }
}

/// The state that the running daemon reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Running {
    Not,
    /// BIRD runs this confirmed generation, or a configuration without one of the agent's.
    Loaded(Option<String>),
    /// BIRD runs an unconfirmed configuration that it may revert at any moment.
    Unconfirmed,
}

/// Asks the daemon which generation it runs, once no reconfiguration is in progress.
pub(super) async fn running(client: &Client, patience: Duration) -> Result<Running, CommitError> {
    let status = match settled(client, patience).await {
        Err(CommitError::Bird(error)) if error.is_not_running() => return Ok(Running::Not),
        status => status?,
    };
    if status.undo_in.is_some() {
        return Ok(Running::Unconfirmed);
    }
    Ok(Running::Loaded(generation(client).await?))
}

async fn generation(client: &Client) -> Result<Option<String>, BirdError> {
    match Symbol::new(GENERATION_SYMBOL) {
        Ok(symbol) => client.eval(symbol).await,
        Err(_) => Ok(None),
    }
}

/// Polls `configure status` until no reconfiguration is in progress: 1 to 10 ms for a session that restarts,
/// and up to 3 s when 3.1.8 removes 3000 (measured).
async fn settled(client: &Client, patience: Duration) -> Result<ConfigureStatus, CommitError> {
    let start = Instant::now();
    let polls = Backoff::new(SETTLING_POLL.0, SETTLING_POLL.1);
    for pause in polls.waits() {
        let status = client.configure_status().await?;
        if status.phase == Phase::Settled {
            return Ok(status);
        }
        if start.elapsed() > patience {
            return Err(CommitError::NotSettled(patience));
        }
        tokio::time::sleep(pause).await;
    }
    Err(CommitError::NotSettled(patience))
}

/// The load of one tree.
pub(super) struct Load<'a> {
    pub(super) client: &'a Client,
    pub(super) directory: &'a Path,
    pub(super) ownership: &'a Arc<Ownership>,
    pub(super) group: Option<u32>,
    pub(super) confirm_timeout: Duration,
    pub(super) live: &'a LiveTree,
    pub(super) changes: &'a FileChanges,
    pub(super) generation: &'a str,
    /// The number of files that BIRD reads.
    pub(super) files: usize,
    /// The protocols that must exist afterwards, by the fragment that promises them.
    pub(super) promised: BTreeMap<String, Vec<String>>,
    /// The protocols that may go down: those of changed fragments. `None`: all of them may, for instance when
    /// the base changed or the previous configuration of BIRD is unknown.
    pub(super) may_go_down: Option<BTreeSet<String>>,
}

impl Load<'_> {
    /// Half of the confirm timeout. The other half is for verifying the result.
    fn patience(&self) -> Duration {
        (self.confirm_timeout / 2).max(SETTLING_MIN)
    }

    /// Writes the files without loading them into the daemon.
    pub(super) async fn write(&self) -> Result<(), CommitError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        self.apply(self.changes.clone()).await
    }

    /// Loads the tree. Returns whether the daemon has loaded it; `false` if there is no daemon.
    pub(super) async fn run(&self) -> Result<bool, LoadError> {
        // Contact BIRD before any file changes, so that a BIRD that hangs is found here.
        let before = match self.before().await {
            Err(CommitError::Bird(error)) if error.is_not_running() => {
                self.apply(self.changes.clone()).await?;
                return Ok(false);
            }
            before => before?,
        };
        let configured = match self.apply(self.changes.clone()).await {
            Ok(()) => self.configure().await,
            Err(error) => Err(error),
        };
        if let Err(error) = configured {
            self.restore().await;
            return Err(error.into());
        }
        self.settle_and_verify(&before).await.map(|()| true)
    }

    /// Returns the protocols before the change, once no reconfiguration is in progress.
    async fn before(&self) -> Result<Vec<Protocol>, CommitError> {
        settled(self.client, self.patience()).await?;
        Ok(self.client.protocol_rows().await?)
    }

    async fn configure(&self) -> Result<(), CommitError> {
        let configured = self.client.configure(self.confirm_timeout, self.files);
        Ok(configured.await?)
    }

    async fn settle_and_verify(&self, before: &[Protocol]) -> Result<(), LoadError> {
        match settled(self.client, self.patience()).await {
            Ok(_) => {}
            // An undo in progress kills BIRD 3, and BIRD's own timer would start one. The files on disk are those that
            // BIRD is
            // about to run, so they stay, and the next commit checks again.
            Err(error @ CommitError::NotSettled(_)) => {
                self.confirm().await?;
                return Err(error.into());
            }
            Err(error) => {
                self.restore().await;
                return Err(error.into());
            }
        }
        let verified = match self.verify(before).await {
            Ok(()) => self.confirm().await.map_err(LoadError::from),
            Err(error) => Err(error),
        };
        if verified.is_err() {
            // Files first: if the undo fails, BIRD's timer reverts, or the generation shows the difference.
            self.restore().await;
            self.undo().await;
        }
        verified
    }

    async fn verify(&self, before: &[Protocol]) -> Result<(), LoadError> {
        if generation(self.client).await?.as_deref() != Some(self.generation) {
            return Err(CommitError::NotIncluded.into());
        }
        let after = self.client.protocol_rows().await?;
        let missing = missing(&self.promised, &after);
        if !missing.is_empty() {
            return Err(LoadError::Missing(missing));
        }
        match &self.may_go_down {
            Some(excused) => match went_down(before, &after, excused) {
                names if names.is_empty() => Ok(()),
                names => Err(CommitError::WentDown(names).into()),
            },
            None => Ok(()),
        }
    }

    async fn confirm(&self) -> Result<(), BirdError> {
        self.client.run(&Command::ConfigureConfirm).await.map(drop)
    }

    /// Undoes the load if no reconfiguration is in progress. Otherwise BIRD's timer should do it.
    async fn undo(&self) {
        let undone = async {
            settled(self.client, self.patience()).await?;
            self.client.run(&Command::ConfigureUndo).await?;
            settled(self.client, self.patience()).await
        };
        if let Err(error) = undone.await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "BIRD configuration not undone"
            );
        }
    }

    async fn restore(&self) {
        if let Err(error) = self.apply(plan_undo(self.live, self.changes)).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "BIRD files not restored"
            );
        }
    }

    async fn apply(&self, changes: FileChanges) -> Result<(), CommitError> {
        let (directory, group) = (self.directory.to_owned(), self.group);
        let counters = Arc::clone(self.client.counters());
        let (live, ownership) = (self.live.clone(), Arc::clone(self.ownership));
        blocking(move || disk::apply(&directory, &live, &ownership, &changes, group, &counters))
            .await
    }
}

/// Returns the promised protocols that do not exist.
fn missing(
    promised: &BTreeMap<String, Vec<String>>,
    after: &[Protocol],
) -> BTreeMap<String, Vec<String>> {
    let there: BTreeSet<_> = after
        .iter()
        .map(|protocol| protocol.name.as_str())
        .sorted_set();
    let absent = |names: &Vec<String>| {
        names
            .iter()
            .filter(|name| !there.contains(name.as_str()))
            .cloned()
            .collect()
    };
    let all = promised
        .iter()
        .map(|(fragment, names)| (fragment.clone(), absent(names)));
    all.filter(|(_, names): &(String, Vec<String>)| !names.is_empty())
        .sorted_map()
}

/// Returns the sessions that were established and no longer are, except the excused ones.
fn went_down(before: &[Protocol], after: &[Protocol], excused: &BTreeSet<String>) -> Vec<String> {
    let established = |protocols: &[Protocol]| -> BTreeSet<String> {
        protocols
            .iter()
            .filter(|protocol| protocol.is_established())
            .map(|protocol| protocol.name.clone())
            .sorted_set()
    };
    let after = established(after);
    established(before)
        .into_iter()
        .filter(|name| !after.contains(name) && !excused.contains(name))
        .collect()
}
