//! Puts a checked tree live, has BIRD load it, looks at what came of it, and confirms or undoes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::CommitError;
use super::tree::{FileChanges, GENERATION_SYMBOL, LiveTree, plan_undo};
use super::{disk, worker};
use crate::bird::client::{BirdError, Client};
use crate::bird::command::{Command, Symbol};
use crate::bird::protocols::Protocol;
use crate::bird::status::{ConfigureStatus, Phase};
use crate::plan::mark::Ownership;

/// Why a tree is not loaded. The files are as before, unless the error says otherwise.
#[derive(Debug)]
pub(super) enum LoadError {
    /// Fragments whose protocols BIRD does not have, with the names. It was undone.
    Missing(BTreeMap<String, Vec<String>>),
    /// Anything else.
    Commit(CommitError),
}

impl<E: Into<CommitError>> From<E> for LoadError {
    fn from(error: E) -> Self {
        Self::Commit(error.into())
    }
}

/// What the running daemon says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Running {
    /// It does not run.
    Not,
    /// It runs this generation for good, or none of ours.
    Loaded(Option<String>),
    /// It runs something it may take back any moment.
    Unconfirmed,
}

/// Asks the daemon what it runs, once it is settled.
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

/// Polls `configure status` until nothing is in progress: 1 to 10 ms for a session that restarts,
/// and up to 3 s when 3.1.8 removes 3000 (measured).
async fn settled(client: &Client, patience: Duration) -> Result<ConfigureStatus, CommitError> {
    let (start, mut pause) = (Instant::now(), Duration::from_millis(2));
    loop {
        let status = client.configure_status().await?;
        if status.phase == Phase::Settled {
            return Ok(status);
        }
        if start.elapsed() > patience {
            return Err(CommitError::NotSettled(patience));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// One load of one tree.
pub(super) struct Load<'a> {
    pub(super) client: &'a Client,
    pub(super) directory: &'a Path,
    pub(super) ownership: &'a Arc<Ownership>,
    pub(super) group: Option<u32>,
    pub(super) confirm_timeout: Duration,
    pub(super) live: &'a LiveTree,
    pub(super) changes: &'a FileChanges,
    pub(super) generation: &'a str,
    /// The protocols that must be there afterwards, by the fragment that promises them.
    pub(super) promised: BTreeMap<String, Vec<String>>,
    /// The protocols that may go down: those of changed fragments. `None`: all of them may, as when
    /// the base changed or nobody knows what BIRD ran before.
    pub(super) may_go_down: Option<BTreeSet<String>>,
}

impl Load<'_> {
    /// Half the time BIRD waits for us: the other half is for looking at what came of it.
    fn patience(&self) -> Duration {
        (self.confirm_timeout / 2).max(Duration::from_secs(1))
    }

    /// Writes the files, and has the daemon load nothing.
    pub(super) async fn write(&self) -> Result<(), CommitError> {
        if self.changes.is_empty() {
            return Ok(());
        }
        self.apply(self.changes.clone()).await
    }

    /// Returns whether the daemon has loaded the tree; `false` if there is no daemon.
    pub(super) async fn run(&self) -> Result<bool, LoadError> {
        // BIRD is spoken to before any file changes: one that hangs, hangs here.
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

    /// The protocols before the change, from a settled BIRD.
    async fn before(&self) -> Result<Vec<Protocol>, CommitError> {
        settled(self.client, self.patience()).await?;
        Ok(self.client.protocol_rows().await?)
    }

    async fn configure(&self) -> Result<(), CommitError> {
        let command = Command::Configure {
            timeout: self.confirm_timeout,
        };
        Ok(self.client.run(&command).await.map(drop)?)
    }

    async fn settle_and_verify(&self, before: &[Protocol]) -> Result<(), LoadError> {
        match settled(self.client, self.patience()).await {
            Ok(_) => {}
            // An undo in progress kills BIRD 3, and BIRD's own timer would send one. What is on disk
            // is what BIRD is on its way to, so that stays, and the next commit looks again.
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
            // The files first: if the undo fails, BIRD's timer does it, or the generation tells.
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

    /// Undoes, if BIRD is settled; otherwise its timer will, as far as anyone can tell.
    async fn undo(&self) {
        let undone = async {
            settled(self.client, self.patience()).await?;
            self.client.run(&Command::ConfigureUndo).await?;
            settled(self.client, self.patience()).await
        };
        if let Err(error) = undone.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "bird.undo.failed");
        }
    }

    async fn restore(&self) {
        if let Err(error) = self.apply(plan_undo(self.live, self.changes)).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "bird.restore.failed"
            );
        }
    }

    async fn apply(&self, changes: FileChanges) -> Result<(), CommitError> {
        let (directory, group) = (self.directory.to_owned(), self.group);
        let counters = Arc::clone(self.client.counters());
        let (live, ownership) = (self.live.clone(), Arc::clone(self.ownership));
        worker::blocking(move || {
            disk::apply(&directory, &live, &ownership, &changes, group, &counters)
        })
        .await
    }
}

/// The promised protocols that are not there.
fn missing(
    promised: &BTreeMap<String, Vec<String>>,
    after: &[Protocol],
) -> BTreeMap<String, Vec<String>> {
    let there: BTreeSet<_> = after
        .iter()
        .map(|protocol| protocol.name.as_str())
        .collect();
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
        .collect()
}

/// The sessions that were established and are not any more, without those that may.
fn went_down(before: &[Protocol], after: &[Protocol], excused: &BTreeSet<String>) -> Vec<String> {
    let established = |protocols: &[Protocol]| -> BTreeSet<String> {
        protocols
            .iter()
            .filter(|protocol| protocol.is_established())
            .map(|protocol| protocol.name.clone())
            .collect()
    };
    let after = established(after);
    established(before)
        .into_iter()
        .filter(|name| !after.contains(name) && !excused.contains(name))
        .collect()
}
