//! The last listing, for a build that only the time asks for: a listing reads the stamps of all files, and what the watch
//! announces ends it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::controller::Context;
use crate::intervals::LISTING_MAX;
use crate::store::{Snapshot, Store};

/// A listing, and what it was made from.
pub(crate) struct KeptListing {
    snapshot: Arc<Snapshot>,
    /// Number of files that the agent had written before.
    writes: u64,
    at: Instant,
}

impl KeptListing {
    pub(crate) fn new(snapshot: Arc<Snapshot>, writes: u64) -> Self {
        Self {
            snapshot,
            writes,
            at: Instant::now(),
        }
    }

    /// Returns whether this is the listing.
    pub(crate) fn is(&self, snapshot: &Arc<Snapshot>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
    }

    /// Returns the listing, unless something waits in it, the agent has written files since, or it is too old: changes below
    /// `applied/` are not watched.
    pub(super) async fn current(&self, context: &Context) -> Option<Arc<Snapshot>> {
        if !self.snapshot.is_at_rest() || self.at.elapsed() >= LISTING_MAX {
            return None;
        }
        let writes = self.writes;
        let is_same = move |store: &Store| {
            let is_same = store.writes() == writes && store.moved().is_none();
            Ok(is_same && store.trouble().is_none() && store.approved().is_empty())
        };
        let is_same = context.disk(is_same).await.unwrap_or(false);
        is_same.then(|| Arc::clone(&self.snapshot))
    }
}
