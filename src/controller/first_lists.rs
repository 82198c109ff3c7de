//! The first lists of a new router. Its first pass waits for them, so that all their documents are one desired state,
//! one observation and one load of BIRD, instead of those of each list in turn.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Whether the first pass has to wait.
#[derive(Debug, Default)]
pub struct FirstLists {
    /// Each list was fetched once, or its fetch failed.
    is_fetched: AtomicBool,
    is_built: watch::Sender<bool>,
}

impl FirstLists {
    /// Records that each list was fetched once, or failed. Returns whether that is new.
    pub(crate) fn fetched(&self) -> bool {
        !self.is_fetched.swap(true, Ordering::Relaxed)
    }

    /// Returns whether a desired state that is built from now on has the documents of all lists.
    pub(super) fn are_fetched(&self) -> bool {
        self.is_fetched.load(Ordering::Relaxed)
    }

    /// Records that the desired state has them.
    pub(super) fn built(&self) {
        self.is_built
            .send_if_modified(|built| !std::mem::replace(built, true));
    }

    /// Waits for the desired state with the documents of the first lists.
    pub(crate) async fn wait(&self) {
        // The sender lives as long as this value.
        let _ = self.is_built.subscribe().wait_for(|built| *built).await;
    }
}
