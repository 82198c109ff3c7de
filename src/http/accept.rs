//! The loop that takes connections, and what a client may take of us: both servers face networks, and a client
//! that sends a header's byte a minute, never reads its answer, or opens a thousand connections must cost
//! nobody but itself. `axum::serve` sets no timer, so it would wait for such a client for ever.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How many are served at once; the next one waits. Each may take `HEAD_MAX` of memory and a file descriptor, of
/// which the kernel's and BIRD's sockets need some too.
const CONNECTIONS: usize = 256;

/// How long a client may take for the head of a request, the wait for the first or next one included.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// The largest head of a request, in bytes.
const HEAD_MAX: usize = 32 * 1024;

/// How long a connection takes further requests.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long the last call of a connection may take: longer than the slowest call, which is `/restart`, and
/// short enough that a client that does not read its answer is rid of.
const LAST_CALL: Duration = Duration::from_secs(90);

/// How long calls in progress may take after the shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until the shutdown, and gives calls in progress a moment to end.
pub(crate) async fn run<L: Listener>(
    mut listener: L,
    app: Router,
    shutdown: impl Future<Output = ()>,
) {
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (io, _) = listener.accept(), if connections.len() < CONNECTIONS => {
                connections.spawn(converse(io, app.clone(), stop.clone()));
            }
        }
    }
    drop(listener);
    stop.cancel();
    // What is left then is ended when the set is dropped.
    let _ = timeout(GRACE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

/// One connection, from its first byte to its end. How it fails is the client's business.
async fn converse<I>(io: I, app: Router, stop: CancellationToken)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(app));
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = stop.cancelled() => {}
        () = sleep(LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_CALL, connection).await;
}
