//! Checks a tree that is not to be loaded yet. It runs apart from the committing task and in its own stage, so that no
//! commit waits for a trial.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::batch::Wishes;
use super::files::{Contents, Seen};
use super::promise::{self, Lack};
use super::stage::{self, Stage, StageError};
use super::{CommitterConfig, disk};
use crate::bird::check::Checker;
use crate::bird::client::Client;
use crate::observed::bird::tree::MAIN;
use crate::observed::bird::{Diagnostic, LiveTree, Tree};
use crate::observed::{Ownership, SharedOwnership};
use crate::ports::CommitError;
use crate::util::file::Stamp;
use crate::util::group::group_id;
use crate::util::task::blocking;

/// How often a tree is retried while commits change the files that it is checked with.
const TRIES: usize = 3;

/// Checks trees, one at a time.
#[derive(Debug, Clone)]
pub(super) struct Trials {
    directory: PathBuf,
    manages_main: bool,
    ownership: SharedOwnership,
    client: Client,
    checker: Checker,
    program: String,
    stage: Arc<Mutex<Stage>>,
    last: Arc<parking_lot::Mutex<Last>>,
}

/// What is known from the last reading.
#[derive(Default)]
struct Last {
    reading: Option<Reading>,
    contents: Contents,
}

impl std::fmt::Debug for Last {
    /// Without the texts, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Last")
    }
}

/// The last reading of the live files, valid while none of them changes.
#[derive(Debug)]
struct Reading {
    ownership: Arc<Ownership>,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    live: Arc<LiveTree>,
}

impl Reading {
    fn is_valid(&self, ownership: &Arc<Ownership>) -> bool {
        let mut stamps = self.stamps.iter();
        self.ownership == *ownership && stamps.all(|(path, stamp)| Stamp::at(path) == *stamp)
    }
}

impl Trials {
    pub(super) fn new(config: &CommitterConfig, client: Client, checker: Checker) -> Self {
        let directory =
            std::path::absolute(&config.directory).unwrap_or_else(|_| config.directory.clone());
        let group = config.file_group.as_deref().and_then(group_id);
        let stage = Stage::new(
            directory.clone(),
            stage::OF_TRIALS,
            config.stage_elsewhere,
            group,
        );
        Self {
            directory,
            manages_main: config.manage_main_config,
            ownership: config.ownership.clone(),
            client,
            checker,
            program: config.bird_binary.display().to_string(),
            stage: Arc::new(Mutex::new(stage)),
            last: Arc::default(),
        }
    }

    /// Reads the live files, if any has changed since the last time.
    pub(super) async fn read(&self) -> Result<Arc<LiveTree>, CommitError> {
        let (directory, manages_main) = (self.directory.clone(), self.manages_main);
        let (ownership, last) = (self.ownership.get(), Arc::clone(&self.last));
        blocking(move || {
            let mut last = last.lock();
            let reading = last.reading.as_ref();
            if let Some(reading) = reading.filter(|it| it.is_valid(&ownership)) {
                return Ok(Arc::clone(&reading.live));
            }
            let seen = Seen::after(std::mem::take(&mut last.contents));
            let live = Arc::new(disk::read(&directory, manages_main, &ownership, &seen)?);
            let (stamps, contents) = seen.settled();
            let reading = stamps.map(|stamps| Reading {
                ownership,
                stamps,
                live: Arc::clone(&live),
            });
            *last = Last { reading, contents };
            Ok(live)
        })
        .await
    }

    /// Checks a tree with the operator's current files.
    pub(super) async fn check(&self, tree: Tree) -> Result<(), CommitError> {
        let stage = self.stage.lock().await;
        let mut live = self.read().await?;
        let mut outcome = self.check_with(&stage, &tree, &live).await;
        for _ in 1..TRIES {
            let now = self.read().await?;
            if outcome.is_ok() || now == live {
                break;
            }
            live = now;
            outcome = self.check_with(&stage, &tree, &live).await;
        }
        outcome
    }

    async fn check_with(
        &self,
        stage: &Stage,
        tree: &Tree,
        live: &LiveTree,
    ) -> Result<(), CommitError> {
        let mut tree = tree.clone();
        tree.base
            .retain(|path, _| live.main.is_agents() || path != MAIN);
        tree.foreign.clone_from(&live.tree.foreign);
        match stage.check(&tree, live, &self.checker).await {
            Ok(_) => match promise::lack(&tree, &Wishes::default(), &self.directory) {
                Some(Lack::Files(missing)) => Err(CommitError::NotReached(missing)),
                Some(Lack::Protocols(_)) | None => Ok(()),
            },
            Err(StageError::Refused { what, .. }) => Err(self
                .other_version(what)
                .await
                .unwrap_or_else(CommitError::Tree)),
            Err(StageError::Failed(error)) => Err(error),
        }
    }

    /// Returns an error that attributes the parser's rejection to the daemon's different version, or the rejection
    /// itself if the versions are equal or unknown.
    pub(super) async fn other_version(&self, what: Diagnostic) -> Result<CommitError, Diagnostic> {
        let versions = (self.checker.version().await, self.client.version().await);
        let (Ok(parser), Ok(daemon)) = versions else {
            return Err(what);
        };
        if parser == daemon {
            return Err(what);
        }
        Ok(CommitError::Versions {
            program: self.program.clone(),
            parser,
            daemon,
            what,
        })
    }
}
