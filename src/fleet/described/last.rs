//! What the last look at the files of a network found.

use std::sync::Arc;
use std::time::Instant;

use super::super::finding::Finding;
use super::super::network::FleetFiles;
use super::Current;
use crate::util::notices::Notices;

/// Most errors of a description that are logged at once.
const FINDINGS_LOGGED: usize = 20;

/// The files at the last look, and the last description without an error.
#[derive(Default)]
pub(super) struct Last {
    pub(super) seen: Option<Arc<FleetFiles>>,
    pub(super) current: Option<Arc<Current>>,
    /// Why the newest files are not served.
    pub(super) error: Option<String>,
    /// When a description that could not be decided on is looked at again.
    pub(super) retry: Option<Instant>,
    errors: Notices<String>,
}

impl Last {
    /// Returns whether it is too early to look again at a description that could not be decided on.
    pub(super) fn waits(&self) -> bool {
        self.retry.is_some_and(|at| Instant::now() < at)
    }

    pub(super) fn has_seen(&mut self, files: &Arc<FleetFiles>) -> bool {
        let has_seen = self
            .seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, files));
        let serves = |current: &Arc<Current>| Arc::ptr_eq(&current.files, files);
        if has_seen && self.current.as_ref().is_some_and(serves) {
            // The store had an error in between.
            self.recover();
        }
        has_seen
    }

    pub(super) fn take(&mut self, files: Arc<FleetFiles>, read: Result<Current, Vec<Finding>>) {
        self.seen = Some(files);
        match read {
            Ok(current) => {
                self.recover();
                self.current = Some(Arc::new(current));
            }
            Err(findings) => self.fail(findings.iter().map(ToString::to_string).collect()),
        }
    }

    fn recover(&mut self) {
        self.error = None;
        if self.errors.news([]).is_over {
            tracing::info!("description of the network is valid again");
        }
    }

    /// Keeps the description that is served.
    pub(super) fn fail(&mut self, errors: Vec<String>) {
        self.error = errors.first().cloned();
        for error in self.errors.new_in(errors).iter().take(FINDINGS_LOGGED) {
            tracing::warn!(
                error,
                "description of the network has an error; serving the last valid one"
            );
        }
    }
}
