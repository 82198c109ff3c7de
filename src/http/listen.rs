//! Serves the local API. The API is optional for routing: while its address is in use the agent
//! converges without it, reports that in the log and in the condition `ApiListening`, and retries.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{HttpOptions, Server};
use crate::controller::{Context, Convenience};
use crate::document::ConditionType;
use crate::intervals::LISTEN_RETRY;
use crate::model::ObjectKey;
use crate::telemetry::chain;
use crate::util::backoff::Backoff;

/// Listens as soon as the address is free, and serves until the agent stops.
pub async fn listen(context: Arc<Context>, options: HttpOptions, stop: CancellationToken) {
    let server = tokio::select! {
        server = bind(&context, &options) => server,
        () = stop.cancelled() => return,
    };
    server.run(stop.cancelled_owned()).await;
}

async fn bind(context: &Context, options: &HttpOptions) -> Server {
    let mut waits = Backoff::new(LISTEN_RETRY.0, LISTEN_RETRY.1).waits();
    loop {
        let error = match Server::bind(options).await {
            Ok(server) => {
                set(context, Convenience::works("Listening"));
                return server;
            }
            Err(error) => chain(&error),
        };
        set(context, Convenience::fails("AddressTaken", error));
        tokio::time::sleep(waits.next().unwrap_or(LISTEN_RETRY.1)).await;
    }
}

fn set(context: &Context, is: Convenience) {
    if context.conveniences.set(ConditionType::ApiListening, is) {
        context.hint(ObjectKey::Router);
    }
}
