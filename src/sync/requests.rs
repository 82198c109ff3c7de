//! Syncs that `/sync` requests. Start and end of each are logged, and `/status` shows the result of the last one.

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tracing::{info, warn};

use super::SyncError;
use crate::control_plane::{CallError, at};
use crate::telemetry::chain;

/// Result of one fetch of the sessions.
#[derive(Debug)]
pub(super) struct Synced {
    pub(super) sessions: usize,
    /// Number of changed documents, or why they could not be written.
    pub(super) changed: Result<usize, SyncError>,
}

/// The syncs that `/sync` requested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SyncView {
    /// Number of the last request.
    pub requested: u64,
    /// Number of the last request that is finished.
    pub finished: u64,
    /// End of the last finished request.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub at: Option<Timestamp>,
    /// Number of sessions in the list.
    pub sessions: u64,
    /// Number of changed documents.
    pub changed: u64,
    /// The error, if the sync failed.
    pub error: Option<String>,
}

/// The requested syncs. Requests that come while a fetch runs share the next one.
#[derive(Debug, Default)]
pub struct Requests(Mutex<SyncView>);

impl Requests {
    pub fn request(&self) {
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
    pub(super) fn end(&self, request: Option<u64>, result: &Result<Synced, CallError>) {
        let Some(request) = request else { return };
        let error = match result {
            Ok(synced) => synced.changed.as_ref().err().map(|error| chain(error)),
            Err(error) => Some(chain(error)),
        };
        let synced = result.as_ref().ok();
        let changed = synced.and_then(|synced| synced.changed.as_ref().ok());
        self.finish(SyncView {
            finished: request,
            sessions: synced.map_or(0, |synced| synced.sessions as u64),
            changed: changed.map_or(0, |changed| *changed as u64),
            error,
            ..SyncView::default()
        });
    }

    /// Ends the waiting request, because no Control Plane is configured.
    pub fn refuse(&self) {
        if let Some(request) = self.begin() {
            let why = "no Control Plane is configured (controlPlane.url and token)";
            self.finish(SyncView {
                finished: request,
                error: Some(why.to_owned()),
                ..SyncView::default()
            });
        }
    }

    fn finish(&self, view: SyncView) {
        let mut state = self.0.lock();
        *state = SyncView {
            requested: state.requested,
            at: Some(at(std::time::Duration::ZERO)),
            ..view
        };
        let (request, sessions) = (state.finished, state.sessions);
        match &state.error {
            None => info!(request, sessions, changed = state.changed, "sync finished"),
            Some(error) => warn!(request, error, "sync failed"),
        }
    }

    /// The state for `/status`.
    pub fn view(&self) -> SyncView {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_during_a_fetch_waits_for_the_next_one() {
        let syncs = Requests::default();
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
        syncs.end(first, &synced(Ok(1)));
        let view = syncs.view();
        assert_eq!((view.requested, view.finished), (2, 1));
        assert_eq!((view.sessions, view.changed, view.error), (12, 1, None));
        let second = syncs.begin();
        let head = "main~1".to_owned();
        syncs.end(second, &synced(Err(SyncError::Moved { head })));
        assert_eq!(
            syncs.view().error.as_deref(),
            Some("HEAD of the state directory is main~1; run `git checkout main` there to return")
        );
        assert_eq!(syncs.begin(), None);
    }
}
