//! Serves the local API. The API is optional for routing: while its address is in use the agent
//! converges without it, reports that in the log and in the condition `ApiListening`, and retries.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Parts, api};
use crate::controller::Convenience;
use crate::document::ConditionType;
use crate::http::{HttpOptions, Server};
use crate::intervals::LISTEN_RETRY;
use crate::model::ObjectKey;
use crate::telemetry::chain;
use crate::util::backoff::Backoff;

/// Options of the local API's server.
pub(super) fn options(parts: &Arc<Parts>) -> HttpOptions {
    HttpOptions {
        listen: parts.config.server.listen.clone(),
        token: parts.api_token.clone(),
        state: Arc::new(api::Api::new(Arc::clone(parts))),
    }
}

/// Listens as soon as the address is free, and serves until the agent stops.
pub(super) async fn run(parts: Arc<Parts>, options: HttpOptions, stop: CancellationToken) {
    let server = tokio::select! {
        server = bind(&parts, &options) => server,
        () = stop.cancelled() => return,
    };
    server.run(stop.cancelled_owned()).await;
}

async fn bind(parts: &Parts, options: &HttpOptions) -> Server {
    let mut waits = Backoff::new(LISTEN_RETRY.0, LISTEN_RETRY.1).waits();
    loop {
        let error = match Server::bind(options).await {
            Ok(server) => {
                set(parts, Convenience::works("Listening"));
                return server;
            }
            Err(error) => chain(&error),
        };
        let message =
            format!("{error}; free the address or change server.listen; the agent retries");
        set(parts, Convenience::fails("AddressTaken", message));
        tokio::time::sleep(waits.next().unwrap_or(LISTEN_RETRY.1)).await;
    }
}

fn set(parts: &Parts, is: Convenience) {
    let context = &parts.context;
    if context.conveniences.set(ConditionType::ApiListening, is) {
        context.hint(ObjectKey::Router);
    }
}
