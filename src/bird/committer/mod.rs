//! The only owner of BIRD's files and of `configure`.
//!
//! ```text
//! set_fragment ┐
//! set_base     ├─▶ gather 100 ms ─▶ plan ─▶ stage ─▶ `bird -p` ─▶ put live ─▶ configure timeout N
//! converge     ┘                     │         ▲         │ error       │          │ settled?
//!                    nothing differs │         └─ without ◀┘           │          ▼
//!                    and it is loaded ▼           the guilty one       │       verify ─▶ confirm
//!                                  nothing at all                      └◀─ undo ◀─┘ else
//! ```
//!
//! * One bad include fails a whole `configure`, and BIRD's next start too. Therefore each tree is parsed
//!   in a stage first, the fragment that BIRD names is excluded (its last good text stays), and the rest
//!   continues.
//! * However many fragments changed, BIRD reads its files once. What a pass requests is gathered until its end, which is
//!   known (`all_requested`), and other changes for 100 ms.
//! * A tree that lacks promised protocols parses too. Therefore its outline is compared before a load, and a
//!   tree that failed after a load is not loaded again for a while (`loads`).
//! * `moenet/generation.conf` defines a constant: the hash of all other files. `eval` of it returns the
//!   generation that the *running* daemon has loaded, even after a process was killed in between (strings can be
//!   evaluated, and a change of only the constant restarts and reloads nothing: measured on 2.0.12 to 3.4.0).
//! * `configure`, `undo` and `confirm` are sent only while no reconfiguration is in progress: BIRD 3 aborts otherwise.
//!
//! The caller's `moenet/main.conf` begins with `include "generation.conf";` and has
//! `include "sessions/*.conf";` at its end.

mod batch;
mod blame;
mod changes;
mod confirm;
mod disk;
mod files;
mod late;
mod loads;
mod main_file;
mod names;
mod operator;
mod owned;
mod promise;
mod stage;
mod trial;
mod worker;
mod written;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::check::Checker;
use super::client::Client;
use super::counters::BirdCounters;
use crate::intervals::{BIRD_COMMAND, BIRD_CONFIRM, BIRD_READ_WAIT, COMMIT_GATHER};
use crate::observed::SharedOwnership;
use crate::observed::bird::{LiveTree, Texts, Tree};
use crate::ports::{BaseError, CommitError, Committed, Fragment, FragmentError};
use batch::Request;
use trial::Trials;

/// Paths and timeouts of the committer.
#[derive(Debug, Clone)]
pub struct CommitterConfig {
    /// BIRD's configuration directory: `/etc/bird`.
    pub directory: PathBuf,
    /// BIRD's control socket: `/run/bird/bird.ctl`.
    pub control_socket: PathBuf,
    /// The program that parses: `bird`.
    pub bird_binary: PathBuf,
    /// Whether the agent may write `bird.conf`. If not, or if the file is the operator's anyway, it must include
    /// `moenet/main.conf`.
    pub manage_main_config: bool,
    /// Decides which files are the agent's, and holds the identity that marks new ones.
    pub ownership: SharedOwnership,
    /// Whether trees are checked in a temporary directory, for a process that writes only BIRD's files.
    pub stage_elsewhere: bool,
    /// How long BIRD waits for the agent's confirmation before it reverts; whole seconds.
    pub confirm_timeout: Duration,
    /// How long changes are gathered into one commit.
    pub gather: Duration,
    /// Deadline of a check of few files; it follows their number and the time of the last check.
    pub check_deadline: Duration,
    /// The group that may read the files, which may hold passwords. Ignored if it does not exist.
    pub file_group: Option<String>,
}

impl Default for CommitterConfig {
    fn default() -> Self {
        Self {
            directory: "/etc/bird".into(),
            control_socket: "/run/bird/bird.ctl".into(),
            bird_binary: "bird".into(),
            manage_main_config: true,
            ownership: SharedOwnership::default(),
            stage_elsewhere: false,
            confirm_timeout: BIRD_CONFIRM,
            gather: COMMIT_GATHER,
            check_deadline: BIRD_COMMAND,
            file_group: Some("bird".into()),
        }
    }
}

/// A handle of the committer. Cheap to clone; the task behind it ends with the last handle, after its
/// pending requests.
#[derive(Debug, Clone)]
pub struct Committer {
    inbox: mpsc::UnboundedSender<Request>,
    client: Client,
    checker: Checker,
    trials: Trials,
    generation: Generation,
}

/// The generation of the files that were last compared with the daemon's: a hash of all of them.
type Generation = Arc<Mutex<(Arc<LiveTree>, String)>>;

impl Committer {
    /// Starts the task with its own client. Touches nothing until the first request.
    pub fn start(config: CommitterConfig) -> Self {
        let client = Client::new(&config.control_socket);
        Self::with_client(config, client)
    }

    /// Starts the task with this client, whose counters it shares.
    pub fn with_client(config: CommitterConfig, client: Client) -> Self {
        let (committer, work) = Self::new(config, client);
        tokio::spawn(work);
        committer
    }

    /// Returns a handle and the task behind it, which the caller runs until the last handle is dropped.
    pub fn new(
        config: CommitterConfig,
        client: Client,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (inbox, requests) = mpsc::unbounded_channel();
        let checker = Checker::new(
            &config.bird_binary,
            config.check_deadline,
            Arc::clone(client.counters()),
        );
        let trials = Trials::new(&config, client.clone(), checker.clone());
        let work = worker::Worker::new(config, client.clone(), checker.clone(), trials.clone());
        let work = work.run(requests);
        let committer = Self {
            inbox,
            client,
            checker,
            trials,
            generation: Arc::default(),
        };
        (committer, work)
    }

    /// Returns the client, for reading.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the checker, which parses configurations.
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Returns the counters of the operations so far.
    pub fn counters(&self) -> &Arc<BirdCounters> {
        self.client.counters()
    }

    /// Sets the fragment of this name, or removes it (`None`). Returns once the result is final: loaded,
    /// rejected, or on disk while BIRD is not running. Calls within the gather time share one reload,
    /// and the failure of one does not affect the others. Of two calls for one name the later one counts,
    /// and both get its result.
    ///
    /// # Errors
    /// [`FragmentError::Refused`] and [`FragmentError::Unverified`] concern this fragment; its text
    /// on disk does not change. [`FragmentError::Commit`] concerns all callers; retry later.
    pub async fn set_fragment(
        &self,
        name: &str,
        fragment: Option<Fragment>,
    ) -> Result<Committed, FragmentError> {
        names::fragment(name)?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Fragment {
            name: name.to_owned(),
            fragment,
            reply,
        })?;
        answer
            .await
            .unwrap_or_else(|_| Err(CommitError::Gone.into()))
    }

    /// Sets all base files at once: relative path → text. `bird.conf` is skipped unless it is the agent's.
    /// Base files on disk that are not named are removed.
    ///
    /// # Errors
    /// [`BaseError::Path`] and [`BaseError::Refused`] concern these files, and the old ones stay.
    /// [`BaseError::Commit`] concerns all callers; retry later.
    pub async fn set_base(&self, files: Texts) -> Result<Committed, BaseError> {
        files.keys().try_for_each(|path| names::base(path))?;
        let (reply, answer) = oneshot::channel();
        self.send(Request::Base { files, reply })?;
        answer
            .await
            .unwrap_or_else(|_| Err(CommitError::Gone.into()))
    }

    /// Ends the gather time: all changes that belong together have been requested. A request is made when its future is first
    /// polled.
    pub fn all_requested(&self) {
        // Without the task there is no gather time.
        let _ = self.send(Request::AllRequested);
    }

    /// Ensures that the running BIRD has loaded the files on disk. Costs one query if it has.
    ///
    /// # Errors
    /// Any [`CommitError`]; retry later.
    pub async fn converge(&self) -> Result<Committed, Arc<CommitError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Converge { reply })?;
        answer
            .await
            .unwrap_or_else(|_| Err(CommitError::Gone.into()))
    }

    /// Checks a whole tree with BIRD's parser without loading it. Commits continue meanwhile.
    ///
    /// # Errors
    /// [`CommitError::Tree`] with BIRD's message when it is rejected, [`CommitError::NotReached`] when BIRD would not
    /// read all of it; any other when it could not be checked.
    pub async fn check(&self, tree: Tree) -> Result<(), CommitError> {
        self.trials.check(tree).await
    }

    /// Returns the files on disk, between two commits.
    ///
    /// # Errors
    /// [`CommitError::Io`].
    pub async fn live(&self) -> Result<Arc<LiveTree>, Arc<CommitError>> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Live { reply })?;
        answer
            .await
            .unwrap_or_else(|_| Err(CommitError::Gone.into()))
    }

    /// Returns whether the daemon runs exactly these files, confirmed. `false` for a daemon that does not
    /// answer.
    pub async fn is_loaded(&self, live: &Arc<LiveTree>) -> bool {
        let running = confirm::running(&self.client, BIRD_READ_WAIT).await;
        let Ok(confirm::Running::Loaded(Some(loaded))) = running else {
            return false;
        };
        let mut last = self.generation.lock();
        if !Arc::ptr_eq(&last.0, live) {
            *last = (Arc::clone(live), live.tree.generation());
        }
        loaded == last.1
    }

    fn send(&self, request: Request) -> Result<(), Arc<CommitError>> {
        let sent = self.inbox.send(request);
        sent.map_err(|_| CommitError::Gone.into())
    }
}
