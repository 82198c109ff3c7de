//! Syncs that `/sync` requests. Start and end of each are logged, and `/status` shows the result of the last one.

use parking_lot::Mutex;
use tracing::{info, warn};

use crate::control_plane::at;
use crate::http::SyncView;

/// Result of one fetch of the sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Synced {
    /// Sessions in the list.
    pub(super) sessions: usize,
    /// Number of changed documents, or why they could not be written.
    pub(super) changed: Result<usize, String>,
}

/// The requested syncs. Requests that come while a fetch runs share the next one.
#[derive(Debug, Default)]
pub struct Syncs(Mutex<SyncView>);

impl Syncs {
    /// Records a request.
    pub(super) fn request(&self) {
        let mut state = self.0.lock();
        state.requested += 1;
        info!(request = state.requested, "sync requested by the local API");
    }

    /// Returns the last request that a fetch which begins now answers; `None` without a waiting request.
    pub(super) fn begin(&self) -> Option<u64> {
        let state = self.0.lock();
        (state.requested > state.finished).then_some(state.requested)
    }

    /// Records the end of a fetch that began with this request.
    pub(super) fn end(&self, request: Option<u64>, result: Result<Synced, String>) {
        let Some(request) = request else { return };
        let sessions = result.as_ref().map_or(0, |synced| synced.sessions as u64);
        let changed = result.and_then(|synced| synced.changed);
        let mut state = self.0.lock();
        *state = SyncView {
            requested: state.requested,
            finished: request,
            at: Some(at(std::time::Duration::ZERO)),
            sessions,
            changed: *changed.as_ref().unwrap_or(&0) as u64,
            error: changed.err(),
        };
        match &state.error {
            None => info!(request, sessions, changed = state.changed, "sync finished"),
            Some(error) => warn!(request, error, "sync failed"),
        }
    }

    /// The state for `/status`.
    pub(super) fn view(&self) -> SyncView {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_during_a_fetch_waits_for_the_next_one() {
        let syncs = Syncs::default();
        assert_eq!(syncs.begin(), None, "a regular poll answers no request");
        syncs.request();
        let first = syncs.begin();
        syncs.request();
        let synced = |changed| {
            Ok(Synced {
                sessions: 12,
                changed,
            })
        };
        syncs.end(first, synced(Ok(1)));
        let view = syncs.view();
        assert_eq!((view.requested, view.finished), (2, 1));
        assert_eq!((view.sessions, view.changed, view.error), (12, 1, None));
        let second = syncs.begin();
        syncs.end(second, synced(Err("disk full".into())));
        assert_eq!(syncs.view().error.as_deref(), Some("disk full"));
        assert_eq!(syncs.begin(), None);
    }
}
