//! Reloads inputs outside of the state directory while the agent runs: the configuration on SIGHUP,
//! and token files at any time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Parts;
use super::service_manager::ServiceManager;
use super::signals::{Asked, Signals};
use crate::config::{Config, TokenNews, TokenSource};
use crate::controller::Convenience;
use crate::document::ConditionType;
use crate::http::Server;
use crate::intervals::TOKEN_POLL;
use crate::model::ObjectKey;
use crate::telemetry::{self, chain};
use crate::util::task::blocking;
use crate::wire::Call;

/// Handles signals until the agent stops.
pub(super) async fn signals(
    (parts, manager): (Arc<Parts>, Arc<ServiceManager>),
    mut signals: Signals,
    stop: CancellationToken,
) {
    loop {
        match signals.next().await {
            Asked::Stop => return stop.cancel(),
            Asked::Reload => {
                manager.reloading().await;
                reload(&parts).await;
                manager.reloaded().await;
            }
        }
    }
}

/// Reads the configuration again. An invalid configuration changes nothing.
async fn reload(parts: &Arc<Parts>) {
    let reading = Arc::clone(parts);
    let read = blocking(move || reading.live.reload()).await;
    let reloaded = match read {
        Ok(reloaded) => reloaded,
        Err(error) => {
            return error!(
                error = chain(&error),
                "configuration not reloaded, the previous one stays active; fix the file and send SIGHUP again"
            );
        }
    };
    info!(
        changed = reloaded.changed.join(" "),
        "configuration reloaded"
    );
    if !reloaded.needs_restart.is_empty() {
        let keys = reloaded.needs_restart.join(" ");
        warn!(keys, "changed keys take effect at the next restart");
    }
    apply(parts, &parts.live.get()).await;
}

/// Passes the new values to all holders of a reloadable value.
async fn apply(parts: &Arc<Parts>, config: &Arc<Config>) {
    telemetry::set_level(&config.log.level);
    let (taking, config) = (Arc::clone(parts), Arc::clone(config));
    blocking(move || {
        if let Some(from) = &config.control_plane {
            let news = taking.shared.token.replace(&from.token_source());
            heed(&taking, "controlPlane.tokenFile", news);
        }
        // The listening socket is that of the start: without its token it could be reached without authentication.
        let token = config.server.token_source();
        match Server::check(&config.server.listen, &token) {
            Ok(()) => {
                let news = taking.shared.api_token.replace(&token);
                heed(&taking, "server.tokenFile", news);
            }
            Err(error) => error!(
                error = chain(&error),
                "server.token not replaced, the previous one stays in use; restart the agent to change server.listen too"
            ),
        }
    })
    .await;
    // Updates the intervals, the guard and all other inputs of the desired state.
    Call::ALL
        .into_iter()
        .for_each(|call| parts.shared.calls.wake(call));
    parts.shared.context.reports.reload();
}

/// Reads token files again when they change, until the agent stops.
pub(super) async fn files(parts: Arc<Parts>, stop: CancellationToken) {
    for (key, token) in tokens(&parts) {
        if let Some(error) = token.problem() {
            warn!(key, %error, "token not readable; continuing without it");
        }
    }
    loop {
        note_problems(&parts);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TOKEN_POLL) => {}
        }
        for (key, token) in tokens(&parts) {
            let news = blocking(move || token.refresh()).await;
            heed(&parts, key, news);
        }
    }
}

/// Updates the conditions of token files and of the log.
fn note_problems(parts: &Parts) {
    let problems: Vec<_> = tokens(parts)
        .into_iter()
        .filter_map(|(key, token)| Some(format!("{key}: {}", token.problem()?)))
        .collect();
    let tokens = match problems.is_empty() {
        true => Convenience::works("Read"),
        false => Convenience::fails("NotReadable", problems.join("; ")),
    };
    let log = match telemetry::loses_lines() {
        false => Convenience::works("Written"),
        true => Convenience::fails(
            "LinesDropped",
            "log lines were dropped within the last minute",
        ),
    };
    let context = &parts.shared.context;
    for (about, is) in [
        (ConditionType::TokensReadable, tokens),
        (ConditionType::LogWritten, log),
    ] {
        if context.conveniences.set(about, is) {
            context.hint(ObjectKey::Router);
        }
    }
}

fn tokens(parts: &Parts) -> Vec<(&'static str, TokenSource)> {
    let glass = parts.shared.glass.as_ref();
    let glass = glass.map(|glass| ("server.lookingGlass.tokenFile", glass.token.clone()));
    let all = [
        ("controlPlane.tokenFile", parts.shared.token.clone()),
        ("server.tokenFile", parts.shared.api_token.clone()),
    ];
    all.into_iter().chain(glass).collect()
}

fn heed(parts: &Parts, key: &str, news: TokenNews) {
    match news {
        TokenNews::None => return,
        TokenNews::Changed => info!(key, "token read from its file"),
        TokenNews::Readable => info!(key, "token file readable again"),
        TokenNews::Unreadable(error) => {
            return warn!(key, %error, "token not readable; using the last one");
        }
    }
    // Calls that were refused with the old token are retried without waiting for their backoff.
    Call::ALL
        .into_iter()
        .for_each(|call| parts.shared.calls.wake(call));
}
