use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Syncer;
use crate::intervals::LONG_POLL_APART;
use crate::wire::Call;

/// Fetches the lists as soon as the Control Plane tells that one has changed, while it offers to tell it. The polls
/// remain, and a 304 answers each list that did not change.
pub(super) async fn follow(sync: &Arc<Syncer>) {
    let mut known: Option<String> = None;
    loop {
        let earliest = Instant::now() + LONG_POLL_APART;
        match sync.client.next_revision(known.as_deref()).await {
            Ok(revision) if known.as_ref() == Some(&revision) => {
                if Instant::now() < earliest {
                    debug!("the Control Plane does not wait for a change; polling");
                    sync.client.end_offer();
                }
            }
            Ok(revision) => {
                // The lists have been fetched since the offer, and may have changed before this answer.
                known = Some(revision);
                let lists = Call::ALL.into_iter().filter(|call| !call.is_post());
                lists.for_each(|list| sync.calls.wake(list));
            }
            Err(failure) => debug!(%failure, "waiting for a change failed; polling"),
        }
        sleep_until(earliest).await;
    }
}
