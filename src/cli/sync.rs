//! `sync`: fetches the sessions now, and prints the result.

use std::process::ExitCode;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::api::Api;
use super::{Arguments, Outcome, block_on, output};
use crate::intervals::{SYNC_POLL, SYNC_WAIT};
use crate::util::text::counted;

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.load()?;
    let sync = block_on(async {
        let api = Api::new(&config)?;
        api.get("/sync").await?;
        finished(&api).await
    })?;
    let printed = output::value(arguments.output, &sync)?;
    if let Some(error) = sync["error"].as_str() {
        anyhow::bail!("sync failed: {error}");
    }
    if !printed {
        output::line(format_args!(
            "Sync finished: {}, {} changed",
            counted(
                usize::try_from(sync["sessions"].as_u64().unwrap_or_default())?,
                "session"
            ),
            sync["changed"]
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of the requested sync, or of a later one.
async fn finished(api: &Api) -> anyhow::Result<Value> {
    let end = Instant::now() + SYNC_WAIT;
    let mut wanted = None;
    loop {
        let sync = api.get("/status").await?["sync"].take();
        let requested = *wanted.get_or_insert(sync["requested"].as_u64().unwrap_or_default());
        if sync["finished"]
            .as_u64()
            .is_some_and(|finished| finished >= requested)
        {
            return Ok(sync);
        }
        if Instant::now() >= end {
            anyhow::bail!(
                "the sync has not finished after {} s; `moenet-agent status` shows the last fetch",
                SYNC_WAIT.as_secs()
            );
        }
        sleep(SYNC_POLL).await;
    }
}
