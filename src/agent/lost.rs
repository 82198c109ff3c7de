//! A start without its state directory: the disk is not mounted, or the directory is lost. Links
//! and BIRD files with the agent's mark prove that there was one. The agent makes no new identity
//! then, and changes and writes nothing, until the directory is back or an operator confirms that
//! it is lost (`approve --state-lost`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::build::{self, BuildError};
use super::known_agents;
use crate::config::Config;
use crate::history::History;
use crate::http::{
    AgentApi, ApiRefusal, Confirmation, HttpOptions, MaintenanceView, NodeView, Server, StatusView,
};
use crate::intervals::LOST_DIRECTORY_POLL;
use crate::kernel::{KernelOptions, LinuxKernel};
use crate::model::{Identity, InterfaceName};
use crate::observed::bird::mark;
use crate::observed::bird::mark::Mark as FileMark;
use crate::observed::kernel::KernelView;
use crate::observed::mark::Alias;
use crate::observed::{Mark, Succession};
use crate::ports::Kernel as _;
use crate::store::{IDENTITY, StateIdentity, Store, StoreError};
use crate::telemetry::chain;

/// The reason in conditions and `/status`.
const REASON: &str = "StateDirectoryMissing";

/// A missing state directory, with the evidence that it existed.
#[derive(Debug, Clone)]
pub struct Missing {
    dir: PathBuf,
    links: BTreeMap<InterfaceName, Alias>,
    files: BTreeMap<PathBuf, Option<Identity>>,
    /// Why the links could not be listed.
    unlisted: Option<String>,
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        if let Some(error) = &self.unlisted {
            return write!(
                f,
                "{REASON}: the state directory {} is missing or empty, and the kernel's links cannot be listed ({error}), \
                 so that marks of an earlier run cannot be excluded. Nothing is changed. Mount the disk, or let the \
                 agent list links (CAP_NET_ADMIN, AF_NETLINK)",
                self.dir.display()
            );
        }
        let links = self.links.keys().map(ToString::to_string);
        let files = self.files.keys().map(|path| path.display().to_string());
        let evidence: Vec<_> = links.chain(files).collect();
        let shown = evidence[..evidence.len().min(SHOWN)].join(", ");
        let more = match evidence.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(
            f,
            "{REASON}: the state directory {} is missing or empty, but {shown}{more} carry the agent's mark. Nothing is \
             changed. Mount the disk, and the agent goes on by itself; or correct state.directory and restart the agent. \
             If the directory is lost for good, run `moenet-agent approve --state-lost`",
            self.dir.display()
        )
    }
}

impl Missing {
    /// Detects a start that would make a new identity although an earlier one left its marks. Writes nothing.
    pub(crate) async fn look(config: &Config) -> Result<(), Self> {
        let dir = &config.state.directory;
        if StateIdentity::read(dir).is_some() || in_history(dir).await.is_some() {
            return Ok(());
        }
        let links = match view().await {
            Ok(view) => marked(&view, dir),
            Err(error) => {
                return Err(Self {
                    dir: dir.clone(),
                    links: BTreeMap::new(),
                    files: BTreeMap::new(),
                    unlisted: Some(error),
                });
            }
        };
        let mut files = marked_files(&config.bird.directory, dir);
        if links.is_empty() && is_used(dir) {
            // A mark without an identity may be from an earlier build that served these documents.
            files.retain(|_, identity| identity.is_some());
        }
        match links.is_empty() && files.is_empty() {
            true => Ok(()),
            false => Err(Self {
                dir: dir.clone(),
                links,
                files,
                unlisted: None,
            }),
        }
    }

    /// The identities whose objects a new directory takes over.
    fn succession(&self) -> Succession {
        let links = self.links.values().map(|alias| &alias.identity);
        let marks = links.chain(self.files.values());
        Succession {
            identities: marks.clone().flatten().cloned().collect(),
            unnamed: marks.clone().any(Option::is_none),
        }
    }

    /// Returns whether the objects that the directory owned are known, so that a new one can take them over.
    pub(crate) fn can_be_succeeded(&self) -> bool {
        self.unlisted.is_none()
    }

    /// Makes a new identity that takes over the objects of the lost directory.
    ///
    /// # Errors
    /// The identity cannot be written.
    pub(crate) fn succeed(&self) -> Result<StateIdentity, StoreError> {
        let new = StateIdentity::new(self.succession());
        std::fs::create_dir_all(&self.dir).map_err(StoreError::io("create", &self.dir))?;
        new.write(&self.dir)?;
        Ok(new)
    }
}

/// Restores the identity from the history if its file was deleted.
pub(super) async fn put_back(dir: &Path) {
    if StateIdentity::read(dir).is_some() {
        return;
    }
    if let Some(known) = in_history(dir).await {
        info!(identity = %known.identity, "identity read from the history; the file was missing");
        if let Err(error) = known.write(dir) {
            warn!(error = %chain(&error), "identity not written");
        }
    }
}

async fn in_history(dir: &Path) -> Option<StateIdentity> {
    if !dir.join(".git").exists() {
        return None;
    }
    let kept = History::new(dir).last_committed(Path::new(IDENTITY)).await;
    StateIdentity::parse(&kept.ok()??)
}

/// The kernel as an agent without an identity sees it: every mark is foreign.
async fn view() -> Result<KernelView, String> {
    let kernel = LinuxKernel::new(KernelOptions::default());
    kernel.observe().await.map_err(|error| chain(&error))
}

/// The links with the mark of an agent. Excludes links in the applied records of this directory (an
/// earlier build made it, and it lost only its marker), and links of another agent on this host
/// whose state directory exists.
fn marked(kernel: &KernelView, dir: &Path) -> BTreeMap<InterfaceName, Alias> {
    let records = Store::open_read_only(dir)
        .and_then(|store| store.load())
        .map(|snapshot| snapshot.applied_links())
        .unwrap_or_default();
    let of_others = |alias: &Alias| {
        let identity = alias.identity.as_ref();
        identity.is_some_and(|identity| known_agents::has_directory(identity, dir))
    };
    let marks = kernel.links.iter().filter_map(|(name, link)| {
        let Mark::Foreign(alias) = &link.mark else {
            return None;
        };
        Some((name.clone(), Alias::parse(alias)?))
    });
    marks
        .filter(|(name, alias)| {
            let recorded =
                alias.identity.is_none() && records.contains(&(name.clone(), alias.object.clone()));
            !recorded && !of_others(alias)
        })
        .collect()
}

/// Returns whether an operator has put documents into the directory, so that it is not an empty mount point.
fn is_used(dir: &Path) -> bool {
    let folders = ["", "sessions", "mesh", "ibgp", "applied", "overrides"];
    folders.iter().any(|folder| {
        let entries = std::fs::read_dir(dir.join(folder)).into_iter().flatten();
        entries.flatten().any(|entry| {
            entry
                .path()
                .extension()
                .is_some_and(|ending| ending == "yaml")
        })
    })
}

/// The files of an agent in BIRD's directory, each with the identity in its mark: after a reboot
/// they are the only trace of an unmounted directory. Excludes files of another agent on this host
/// whose state directory exists.
fn marked_files(bird: &Path, dir: &Path) -> BTreeMap<PathBuf, Option<Identity>> {
    let folders = ["moenet", "moenet/sessions"].map(|folder| bird.join(folder));
    let entries = folders.iter().flat_map(std::fs::read_dir).flatten();
    let files = entries.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "conf"));
    let marked = |path: PathBuf| {
        let text = crate::util::file::read_text(&path, crate::util::file::DOCUMENT).ok()?;
        match mark::read(&text) {
            FileMark::Missing => None,
            FileMark::Old => Some((path, None)),
            FileMark::Complete { identity, .. } => Some((path, identity)),
        }
    };
    let of_others = |identity: &Option<Identity>| {
        let identity = identity.as_ref();
        identity.is_some_and(|identity| known_agents::has_directory(identity, dir))
    };
    files
        .chain([bird.join("bird.conf")])
        .filter_map(marked)
        .filter(|(_, identity)| !of_others(identity))
        .collect()
}

/// Waits until the state directory is back, or an operator confirms that it is lost, and answers
/// the local API meanwhile. Returns whether to start.
pub(super) async fn wait(config: &Config, missing: Missing, stop: &CancellationToken) -> bool {
    error!(directory = %config.state.directory.display(), error = %missing, "waiting for the state directory");
    let serving = CancellationToken::new();
    let http = serve(config.clone(), missing, serving.clone());
    tokio::pin!(http);
    let back = loop {
        tokio::select! {
            () = stop.cancelled() => break false,
            () = &mut http => break false,
            () = tokio::time::sleep(LOST_DIRECTORY_POLL) => {}
        }
        if Missing::look(config).await.is_ok() {
            break true;
        }
    };
    serving.cancel();
    if back {
        http.await;
    }
    if back {
        info!(directory = %config.state.directory.display(), "state directory available; starting");
    }
    back
}

/// Serves the local API until `stop`. Retries while the port is in use.
async fn serve(config: Config, missing: Missing, stop: CancellationToken) {
    let state = std::sync::Arc::new(Waiting {
        name: config.node.name.clone(),
        why: missing.to_string(),
        since: Instant::now(),
    });
    loop {
        let options = HttpOptions {
            listen: config.server.listen.clone(),
            token: config.server.token_source(),
            state: state.clone(),
        };
        match Server::bind(&options).await {
            Ok(server) => return server.run(stop.cancelled_owned()).await,
            Err(error) => {
                warn!(error = %chain(&error), "the local API cannot listen; trying again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOST_DIRECTORY_POLL) => {}
        }
    }
}

/// The local API of an agent that waits for its state directory.
struct Waiting {
    name: String,
    why: String,
    since: Instant,
}

impl Waiting {
    fn refusal<T>(&self) -> Result<T, ApiRefusal> {
        Err(ApiRefusal::Failed(self.why.clone()))
    }
}

#[async_trait]
impl AgentApi for Waiting {
    async fn status(&self) -> StatusView {
        StatusView {
            status: "failed".to_owned(),
            version: build::VERSION.to_owned(),
            commit: build::COMMIT.to_owned(),
            uptime: self.since.elapsed().as_secs(),
            node: NodeView {
                name: self.name.clone(),
                ..NodeView::default()
            },
            circuit_breaker: "closed".to_owned(),
            notices: vec![self.why.clone()],
            ..StatusView::default()
        }
    }

    async fn trigger_sync(&self) -> Result<(), ApiRefusal> {
        self.refusal()
    }

    async fn restart(&self, _: InterfaceName) -> Result<(), ApiRefusal> {
        self.refusal()
    }

    async fn maintenance(&self) -> MaintenanceView {
        MaintenanceView::default()
    }

    async fn set_maintenance(&self, _: bool) -> Result<Confirmation, ApiRefusal> {
        self.refusal()
    }

    async fn metrics(&self) -> String {
        "# HELP moenet_agent_state_directory_missing Whether the agent waits for its state directory\n\
         # TYPE moenet_agent_state_directory_missing gauge\n\
         moenet_agent_state_directory_missing 1\n"
            .to_owned()
    }

    async fn ready(&self) -> bool {
        false
    }
}

impl From<Missing> for BuildError {
    fn from(missing: Missing) -> Self {
        Self::StateDirectoryMissing(Box::new(missing))
    }
}
