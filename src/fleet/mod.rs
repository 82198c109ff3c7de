//! The embedded Control Plane (docs/contract/fleet.md): every endpoint of the API, served from a
//! directory of YAML files, one folder a router. Files are read at each request, so an edit is served
//! at once; a file that does not parse is an error to the router, which keeps what it has, and of an item that an
//! agent would reject its last valid version is served.

mod check;
mod folder;
mod good;
mod parsed;
mod reported;
mod service;
mod validate;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::TcpListener;

pub use service::{Watcher, app, watched};
pub use validate::{Finding, Findings, validate};

/// What the embedded Control Plane is made from.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The directory with a folder a router.
    pub dir: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How much one router may ask.
    pub rate: RateLimit,
}

/// A rate of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// So many a second.
    pub per_second: f64,
    /// So many at once.
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
    /// The usual options for a directory and an address.
    pub fn new(dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            dir: dir.into(),
            listen,
            rate: RateLimit::default(),
        }
    }
}

/// Why the embedded Control Plane does not serve.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// There is nothing to serve.
    #[error("fleet directory {dir} not found; expected {dir}/<router>/router.yaml", dir = .0.display())]
    NoDirectory(PathBuf),
    /// The address cannot be had.
    #[error("listen on {listen}: {source}")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Listens and serves until the shutdown.
///
/// # Errors
/// There is no such directory, or the address is taken.
pub async fn serve(
    options: FleetOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), FleetError> {
    if !options.dir.is_dir() {
        return Err(FleetError::NoDirectory(options.dir));
    }
    folder::sweep(&options.dir);
    let listen = options.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| FleetError::Bind { listen, source })?;
    // Port 0 is a free one; say which.
    let listen = listener.local_addr().unwrap_or(listen);
    tracing::info!(%listen, fleet = %options.dir.display(), "embedded Control Plane listens");
    let (app, watcher) = watched(&options);
    tokio::select! {
        () = crate::http::run(listener, app, shutdown) => {}
        () = watcher.run() => {}
    }
    Ok(())
}
