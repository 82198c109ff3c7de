//! What the last look at the files of a network found.

use std::sync::Arc;
use std::time::Instant;

use super::super::finding::Finding;
use super::super::network::FleetFiles;
use super::{Current, Trouble};
use crate::http::ApiError;
use crate::intervals::FLEET_UNREAD;
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
    unread: Option<Unread>,
}

/// Files that are being written, or that were not read from the store yet.
struct Unread {
    since: Instant,
    why: String,
    is_logged: bool,
}

impl Unread {
    fn lasts(&self) -> bool {
        self.since.elapsed() >= FLEET_UNREAD
    }
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

    /// Returns why the newest files are not served.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        let files = self.seen.clone().filter(|_| self.unread.is_none());
        let of_description = self.error.clone().map(|why| Trouble {
            why,
            passes: false,
            files,
        });
        of_description.or_else(|| {
            let unread = self.unread.as_ref()?;
            let (why, passes) = (unread.why.clone(), !unread.lasts());
            Some(Trouble {
                why,
                passes,
                files: None,
            })
        })
    }

    /// Files that cannot be read now are no error of the description. It is one for the operator when it lasts.
    pub(super) fn unread(&mut self, error: &ApiError) {
        let why = error.message.clone();
        tracing::debug!(error = why, "files of the network cannot be read now");
        let unread = self.unread.get_or_insert_with(|| Unread {
            since: Instant::now(),
            why: String::new(),
            is_logged: false,
        });
        if unread.lasts() && !unread.is_logged {
            unread.is_logged = true;
            tracing::warn!(
                error = why,
                "files of the network cannot be read; serving the previous version"
            );
        }
        unread.why = why;
    }

    pub(super) fn was_read(&mut self) {
        if self.unread.take().is_some_and(|it| it.is_logged) {
            tracing::info!("files of the network can be read again");
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
                "description of the network has an error and is not served"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn unread_files_are_an_error_once_this_lasts() {
        let mut last = Last::default();
        let is_passing = |last: &Last| last.trouble().map(|it| it.passes);
        let error = ApiError::internal("being written");
        last.unread(&error);
        last.unread(&error);
        assert_eq!(is_passing(&last), Some(true));
        assert!(last.errors.first().is_none());
        let unread = last.unread.as_mut().unwrap();
        unread.since = unread
            .since
            .checked_sub(FLEET_UNREAD + Duration::from_secs(1))
            .unwrap();
        assert!(!unread.is_logged);
        last.unread(&error);
        assert_eq!(is_passing(&last), Some(false));
        assert!(last.unread.as_ref().unwrap().is_logged);
        last.was_read();
        assert_eq!(is_passing(&last), None);
        // An error of the description stays one while its files are written.
        last.fail(vec!["asn: wrong".to_owned()]);
        last.unread(&error);
        let trouble = last.trouble().unwrap();
        assert_eq!(
            (trouble.why.as_str(), trouble.passes),
            ("asn: wrong", false)
        );
    }
}
