use std::fs::Permissions;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::accept;
use super::seats::CONNECTIONS;
use super::{HttpOptions, Proxies, app};
use crate::config::{Listen, TokenSource};
use crate::util::fs;
use crate::util::task::blocking;

/// A failure to listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Without a token every client could restart tunnels.
    #[error(
        "server.listen {0} can be reached from outside; set server.token (or tokenFile), or listen on 127.0.0.1"
    )]
    TokenRequired(Listen),
    #[error("server.token is empty; remove it, or give it a value")]
    EmptyToken,
    /// The address cannot be used.
    #[error("listen on {listen}: {source}")]
    Bind { listen: Listen, source: io::Error },
    /// The path of the socket is occupied.
    #[error("listen on unix:{}: {reason}", path.display())]
    Occupied {
        path: PathBuf,
        /// The file at the path, and the advice.
        reason: &'static str,
    },
}

impl ServeError {
    /// Returns the key of the configuration that is wrong.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::EmptyToken => "server.token",
            _ => "server.listen",
        }
    }
}

/// The API with its listener.
pub struct Server {
    listen: Listen,
    socket: Socket,
    app: Router,
    proxies: Proxies,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Checks everything that a retry cannot change.
    ///
    /// # Errors
    /// The address can be reached from outside and there is no token, or the token is empty.
    pub fn check(listen: &Listen, token: &TokenSource) -> Result<(), ServeError> {
        if !token.is_configured() && !listen.is_local() {
            return Err(ServeError::TokenRequired(listen.clone()));
        }
        match token.current() {
            Ok(Some(token)) if token.expose().trim().is_empty() => Err(ServeError::EmptyToken),
            _ => Ok(()),
        }
    }

    /// Listens.
    ///
    /// # Errors
    /// As [`Server::check`], and the address is in use.
    pub async fn bind(options: &HttpOptions) -> Result<Self, ServeError> {
        Self::check(&options.listen, &options.token)?;
        let listen = options.listen.clone();
        let socket = match &listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address)
                    .await
                    .map(Socket::Tcp)
                    .map_err(|source| ServeError::Bind {
                        listen: listen.clone(),
                        source,
                    })?
            }
            Listen::Unix(path) => Socket::Unix(bind_unix(path, None).await?),
        };
        Ok(Self {
            listen,
            socket,
            app: app(options),
            proxies: Proxies::new(options.trusted_proxies.clone()),
        })
    }

    /// Returns the listening address, if it is TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Serves until the shutdown, and waits for calls in progress.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let listen = self.listen;
        tracing::info!(%listen, "local API listens");
        match self.socket {
            Socket::Tcp(listener) => {
                accept::run(listener, self.app, &self.proxies, CONNECTIONS, shutdown).await
            }
            Socket::Unix(listener) => {
                accept::run(listener, self.app, &self.proxies, CONNECTIONS, shutdown).await
            }
        }
        if let Listen::Unix(path) = &listen {
            // Best effort: the next start recognizes a stale socket.
            let path = path.clone();
            let _ = blocking(move || fs::remove_file(path)).await;
        }
    }
}

/// Binds to a temporary path and renames the socket, so that no client can connect before group and mode are set.
pub(crate) async fn bind_unix(path: &Path, group: Option<u32>) -> Result<UnixListener, ServeError> {
    make_way(path).await?;
    let listen = Listen::Unix(path.to_owned());
    let failed = |source| ServeError::Bind {
        listen: listen.clone(),
        source,
    };
    let path = path.to_owned();
    blocking(move || bind_beside(&path, group))
        .await
        .map_err(failed)
}

fn bind_beside(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    if group.is_some() {
        fs::set_group(&beside, group)?;
    }
    fs::set_permissions(&beside, Permissions::from_mode(0o660))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

/// Refuses a path with a live socket or another file; a socket without a listener is left for the rename.
async fn make_way(path: &Path) -> Result<(), ServeError> {
    let occupied = |reason| {
        Err(ServeError::Occupied {
            path: path.to_owned(),
            reason,
        })
    };
    let at = path.to_owned();
    let Ok(found) = blocking(move || fs::symlink_metadata(at)).await else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return occupied(
            "a file that is not a socket exists there; move it away, or choose \
                         another path",
        );
    }
    if UnixStream::connect(path).await.is_ok() {
        return occupied("another process answers there; is a second agent running?");
    }
    Ok(())
}
