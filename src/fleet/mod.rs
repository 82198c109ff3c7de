//! The embedded Control Plane (docs/contract/fleet.md): every endpoint of the API, served from a
//! directory of YAML files, from commits of a Git repository, or from PostgreSQL. Files are read at each request, so an edit is
//! served at once; a file that does not parse is an error to the router, which keeps its state, and
//! of an item that an agent would reject the last valid version is served.

mod across;
mod admin;
mod answers;
mod audit;
mod change;
mod check;
mod commit;
mod described;
mod files;
mod finding;
mod good;
mod history;
mod layout;
mod mesh_keys;
pub mod network;
mod openapi;
mod overview;
mod owners;
mod plan;
mod posts;
mod removal;
mod review;
mod revisions;
mod rollout;
mod service;
mod serving;
mod source;
mod store;
mod tagged;
#[cfg(feature = "postgres")]
mod transfer;
mod tree;
mod validate;
mod version;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::http::{ApiError, ServeError, TlsError, TlsFiles};
use crate::model::AddressRange;
#[cfg(feature = "postgres")]
use crate::model::Secret;
use crate::util::fs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use admin::all_metrics;
pub use admin::{Access, AccessError};
pub(crate) use audit::AuditEntry;
pub use change::{ChangeError, Changes, Holder, Must, SessionPlace, Wish};
pub(crate) use commit::read as read_commit;
pub(crate) use history::ServedList;
pub use network::{TokenHash, owner_path, router_path, schemas, session_path};
pub use openapi::openapi;
pub(crate) use overview::{RouterView, SessionView, audit, followed, history, rollout, routers};
pub(crate) use plan::{ObjectChange, Step as PlanStep, plan};
pub use removal::is_removed;
pub(crate) use rollout::RolloutView;
pub use service::{Watcher, watched};
pub use source::Source;
pub(crate) use store::git::GitView;
#[cfg(feature = "postgres")]
pub use store::postgres::StoreError;
#[cfg(feature = "postgres")]
pub use transfer::{Copied, Invalid, Replace, TransferError, export, import};
pub use tree::read;
pub(crate) use validate::Findings;
pub use validate::validate;

/// Options of the embedded Control Plane.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The directory with the files of the fleet.
    pub dir: PathBuf,
    pub serving: Serving,
    /// The request limit of each router.
    pub rate: RateLimit,
    /// The reference of the directory's Git repository whose newest commit is served, in place of the files.
    pub git_ref: Option<String>,
}

/// Where the server listens, and who may look at the whole fleet.
#[derive(Debug, Clone)]
pub struct Serving {
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// Whether other machines may connect without TLS.
    pub insecure: bool,
    pub access: Access,
    /// The reverse proxies whose headers name the client.
    pub trusted_proxies: Vec<AddressRange>,
}

impl Serving {
    /// Returns the options for an address of this machine.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: None,
            insecure: false,
            access: Access::default(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// A rate of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Requests per second.
    pub per_second: f64,
    /// Requests at once.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        // A router that reports a thousand sessions at its first start is served at once.
        Self {
            per_second: 50.0,
            burst: 2000,
        }
    }
}

impl FleetOptions {
    /// Returns the default options for a directory and an address.
    pub fn new(dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            dir: dir.into(),
            serving: Serving::new(listen),
            rate: RateLimit::default(),
            git_ref: None,
        }
    }
}

/// A failure to serve.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The directory does not exist.
    #[error("fleet directory {dir} does not exist; give its path, or begin one with `moenet-agent fleet init {dir}`", dir = .0.display())]
    NoDirectory(PathBuf),
    /// Two servers would not see each other's posts.
    #[error(
        "another server serves the fleet directory {dir}; stop it, or use --store with PostgreSQL for several servers",
        dir = .0.display()
    )]
    Served(PathBuf),
    /// A file or folder of the network's description cannot be read.
    #[error("read {file} of the fleet: {source}; check its owner and mode", file = .file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    /// The description of the network has an error, or could not be read.
    #[error("description of the network: {0}")]
    Invalid(String),
    /// The record of the whole fleet cannot be read.
    #[error("record of the fleet: {0}")]
    Record(ApiError),
    /// The store cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other machines could read tokens and preshared keys on their way.
    #[error(
        "{0} can be reached from outside, and there is no TLS: give --tls-cert and --tls-key, listen on 127.0.0.1 behind a proxy, \
         or add --insecure-listen where no other machine can listen in, as inside a tunnel"
    )]
    Insecure(SocketAddr),
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket of the operators cannot be used.
    #[error(transparent)]
    Socket(#[from] ServeError),
    /// The address cannot be used.
    #[error("listen on {listen}: {source}")]
    Bind {
        listen: SocketAddr,
        source: io::Error,
    },
}

/// Listens and serves until the shutdown.
///
/// # Errors
/// The directory does not exist, another server serves it, or the address is in use.
pub async fn serve(
    options: FleetOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), FleetError> {
    if !fs::is_dir(&options.dir) {
        return Err(FleetError::NoDirectory(options.dir));
    }
    let source = options.dir.display().to_string();
    if let Some(reference) = options.git_ref {
        let follower = Follower::open(options.dir, reference)?;
        let app = follower.app(&options.serving, options.rate);
        if follower.0.view().commit.is_none() {
            // Routers would only get errors before.
            follower.0.look().await;
        }
        let served = async {
            tokio::select! {
                served = serving::serve(app, options.serving, &source, shutdown) => served,
                () = Arc::clone(&follower.0).follow() => Ok(()),
            }
        };
        let served = served.await;
        follower.0.close().await;
        return served;
    }
    let Some(store) = store::directory::Directory::journaled(options.dir.clone(), false) else {
        return Err(FleetError::Served(options.dir));
    };
    let store = Arc::new(store);
    store::directory::sweep(&options.dir);
    let app = service::over(
        Arc::clone(&store) as _,
        options.rate,
        &options.serving,
        None,
    );
    let served = serving::serve(app, options.serving, &source, shutdown).await;
    store.close().await;
    served
}

/// A fleet that follows a reference of a Git repository.
pub struct Follower(Arc<store::git::Git>);

impl Follower {
    /// Opens a fleet, with the commit that was served last. Blocks.
    ///
    /// # Errors
    /// Another server serves the directory, or the last commit cannot be read.
    pub fn open(dir: PathBuf, reference: String) -> Result<Self, FleetError> {
        let git = store::git::Git::open(dir.clone(), reference)?;
        // Not before: the files of another server are complete soon.
        store::directory::sweep(&dir);
        Ok(Self(Arc::new(git)))
    }

    /// Returns the embedded Control Plane as a service, and the watcher of its files between requests.
    pub fn app(&self, serving: &Serving, rate: RateLimit) -> (axum::Router, Watcher) {
        let git = Some(Arc::clone(&self.0));
        service::over(Arc::clone(&self.0) as _, rate, serving, git)
    }

    /// Looks for a newer commit once. Returns why it is not served.
    pub async fn look(&self) -> Vec<String> {
        self.0.look().await.errors
    }
}

/// Serves a fleet in PostgreSQL until the shutdown, also while the database is unavailable.
///
/// # Errors
/// The URL is not valid, or the address is in use.
#[cfg(feature = "postgres")]
pub async fn serve_store(
    url: &Secret<String>,
    serving: Serving,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), FleetError> {
    let store = Arc::new(store::postgres::Postgres::open(url)?);
    let app = service::over(store, RateLimit::default(), &serving, None);
    serving::serve(app, serving, "PostgreSQL", shutdown).await
}

/// Maximum number of connections: two of each of ten thousand routers, one of which waits for a change.
const CONNECTIONS: u64 = 32 * 1024;

/// File descriptors that are not those of connections.
const OTHER_FILES: u64 = 512;

/// Raises the limit of file descriptors of this process, and returns the number of connections that it allows.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = CONNECTIONS + OTHER_FILES;
    let most = limit.maximum.unwrap_or(wanted).min(wanted);
    let mut current = limit.current.unwrap_or(wanted);
    if current < most {
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = most,
            Err(error) => tracing::warn!(%error, current, "limit of open files cannot be raised"),
        }
    }
    let connections = current.saturating_sub(OTHER_FILES).clamp(1, CONNECTIONS);
    usize::try_from(connections).unwrap_or(usize::MAX)
}
