//! How the server listens: with TLS, or where no other machine can listen in, and beside a socket for operators.

use std::future::{Future, pending};

use axum::{Extension, Router};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use super::admin::{Access, Trusted};
use super::{FleetError, Serving, Watcher, connections};
use crate::config::TokenNews;
use crate::http::{self, Proxies, Tls, TlsListener, bind_unix};
use crate::intervals::FLEET_SECRETS;
use crate::util::fs;
use crate::util::task::{blocking, check_blocking_work};

impl Serving {
    /// Refuses to show tokens and keys to a network.
    fn check(&self) -> Result<(), FleetError> {
        let is_local = self.listen.ip().to_canonical().is_loopback();
        match self.tls.is_some() || self.insecure || is_local {
            true => Ok(()),
            false => Err(FleetError::Insecure(self.listen)),
        }
    }
}

/// Listens and serves until the shutdown.
pub(super) async fn serve(
    (app, watcher): (Router, Watcher),
    serving: Serving,
    source: &str,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), FleetError> {
    serving.check()?;
    let Serving {
        listen,
        tls,
        access,
        trusted_proxies,
        ..
    } = serving;
    let tls = match tls {
        Some(files) => Some(blocking(move || Tls::read(&files)).await?),
        None => None,
    };
    let tcp = TcpListener::bind(listen)
        .await
        .map_err(|source| FleetError::Bind { listen, source })?;
    let socket = match &access.socket {
        Some(path) => Some(bind_unix(path, None).await?),
        None => None,
    };
    // Port 0 selects a free port; log which one.
    let listen = tcp.local_addr().unwrap_or(listen);
    tracing::info!(%listen, tls = tls.is_some(), fleet = source, "embedded Control Plane listens");
    check_blocking_work();
    // It ends the waits of routers too.
    let stop = watcher.stop();
    let stopping = stop.clone();
    let proxies = Proxies::new(trusted_proxies);
    let routers = routers((tcp, tls.clone()), app.clone(), &proxies, stop.clone());
    let operators = operators(socket, app, stop);
    tokio::select! {
        ((), ()) = async { tokio::join!(routers, operators) } => {}
        () = async { shutdown.await; stopping.cancel(); pending().await } => {}
        () = watcher.run() => {}
        () = follow(tls, access.clone()) => {}
    }
    if let Some(path) = access.socket {
        // Best effort: the next start recognizes a stale socket.
        let _ = blocking(move || fs::remove_file(path)).await;
    }
    Ok(())
}

async fn routers(
    (tcp, tls): (TcpListener, Option<Tls>),
    app: Router,
    proxies: &Proxies,
    stop: CancellationToken,
) {
    let (most, stopped) = (connections(), stop.cancelled_owned());
    match tls {
        Some(tls) => http::run(TlsListener { tcp, tls }, app, proxies, most, stopped).await,
        None => http::run(tcp, app, proxies, most, stopped).await,
    }
}

async fn operators(socket: Option<UnixListener>, app: Router, stop: CancellationToken) {
    if let Some(socket) = socket {
        let app = app.layer(Extension(Trusted));
        http::run(
            socket,
            app,
            &Proxies::default(),
            connections(),
            stop.cancelled_owned(),
        )
        .await;
    }
}

/// Reads certificates and tokens again, so that renewed ones need no restart.
async fn follow(tls: Option<Tls>, access: Access) {
    loop {
        tokio::time::sleep(FLEET_SECRETS).await;
        let (tls, tokens) = (tls.clone(), access.tokens());
        blocking(move || {
            match tls.map(|tls| tls.refresh()) {
                Some(Ok(true)) => tracing::info!("certificate of the Control Plane changed"),
                Some(Err(error)) => {
                    tracing::error!(%error, "certificate of the Control Plane cannot be read; keeping the previous one");
                }
                Some(Ok(false)) | None => {}
            }
            for token in tokens {
                match token.refresh() {
                    TokenNews::Changed => tracing::info!("token of an operator changed"),
                    TokenNews::Unreadable(error) => {
                        tracing::error!(%error, "token of an operator cannot be read; keeping the previous one");
                    }
                    TokenNews::Readable | TokenNews::None => {}
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_served_without_tls() {
        for (listen, is_local) in [
            ("127.0.0.1:0", true),
            ("[::1]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
            ("0.0.0.0:0", false),
            ("[::]:0", false),
            ("192.0.2.1:0", false),
        ] {
            let mut serving = Serving::new(listen.parse().unwrap());
            assert_eq!(serving.check().is_ok(), is_local, "{listen}");
            serving.insecure = true;
            assert!(serving.check().is_ok(), "{listen}");
        }
    }
}
