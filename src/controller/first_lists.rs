//! The first lists of a new router. Its first pass waits for them, so that all their documents are one desired state,
//! one observation and one load of BIRD, instead of those of each list in turn.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Whether the first pass has to wait.
#[derive(Debug, Default)]
pub struct FirstLists {
    /// Each list was fetched once, or its fetch failed.
    is_fetched: AtomicBool,
    /// Whether the last listing of the state directory has all documents that were written so far.
    is_listed: AtomicBool,
    is_built: watch::Sender<bool>,
    /// Whether the keys of the first desired state are known to the controller.
    is_told: watch::Sender<bool>,
}

impl FirstLists {
    /// Records that each list was fetched once, or failed. Returns whether that is new.
    pub(crate) fn fetched(&self) -> bool {
        !self.is_fetched.swap(true, Ordering::Relaxed)
    }

    /// Records that documents of a list are written, which no listing has yet. Never during a listing.
    pub(crate) fn written(&self) {
        self.is_listed.store(false, Ordering::Relaxed);
    }

    /// Records that a listing begins. Never while documents of a list are written.
    pub(super) fn listing(&self) {
        self.is_listed.store(true, Ordering::Relaxed);
    }

    /// Returns whether the last listing has the documents of all lists.
    pub(super) fn are_listed(&self) -> bool {
        self.is_fetched.load(Ordering::Relaxed) && self.is_listed.load(Ordering::Relaxed)
    }

    /// Records that the desired state has them.
    pub(super) fn built(&self) {
        self.is_built
            .send_if_modified(|built| !std::mem::replace(built, true));
    }

    /// Records that the controller knows the keys of a desired state.
    pub(super) fn told(&self) {
        self.is_told
            .send_if_modified(|told| !std::mem::replace(told, true));
    }

    /// Waits until the keys of the first desired state are known, so that they share the first pass.
    pub(crate) async fn wait_for_keys(&self) {
        // The sender lives as long as this value.
        let _ = self.is_told.subscribe().wait_for(|told| *told).await;
    }

    /// Waits for the desired state with the documents of the first lists.
    pub(crate) async fn wait(&self) {
        // The sender lives as long as this value.
        let _ = self.is_built.subscribe().wait_for(|built| *built).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_before_the_last_document_has_not_all() {
        let lists = FirstLists::default();
        lists.listing();
        lists.written();
        assert!(lists.fetched());
        assert!(!lists.are_listed());
        lists.listing();
        assert!(lists.are_listed());
    }

    #[test]
    fn listing_before_the_last_fetch_may_have_all() {
        let lists = FirstLists::default();
        lists.written();
        lists.listing();
        assert!(!lists.are_listed(), "a list may be missing");
        assert!(lists.fetched());
        assert!(lists.are_listed());
    }
}
