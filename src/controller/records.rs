//! What runs write to the state directory: applied records, and statuses with their reports. Those that are ready at about
//! the same time are written together.

use super::reports::{Report, Reports};
use super::together::{Group, Together};
use crate::document::StatusDocument;
use crate::store::{AppliedDocument, Store, StoreError, Written};

/// The applied records that wait to be written.
pub type Records = Together<AppliedDocument, Result<Written, StoreError>>;

/// The statuses that wait to be written.
pub type Statuses = Together<StatusWrite, Result<(), StoreError>>;

/// The end of a run: its report, and its status if the file is to be written.
#[derive(Debug)]
pub struct StatusWrite {
    pub(super) report: Option<Report>,
    pub(super) status: Option<StatusDocument>,
}

impl Group<AppliedDocument, Result<Written, StoreError>> {
    /// Writes the records. An error of the whole group goes to the first; the others are then written one by one, since
    /// each needs an error, or a success, of its own. Blocks.
    pub(super) fn write_records(self, store: &Store) {
        let (records, replies) = self.split();
        let (results, mut error) = match store.write_all_applied(&records) {
            Ok(results) => (results, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut results = results.into_iter();
        for (reply, record) in replies.into_iter().zip(&records) {
            let result = match error.take() {
                Some(error) => Err(error),
                None => results
                    .next()
                    .unwrap_or_else(|| store.write_applied(record)),
            };
            // The object's reconcile may have been given up.
            let _ = reply.send(result);
        }
    }
}

impl Group<StatusWrite, Result<(), StoreError>> {
    /// Keeps the reports, and writes the statuses. Blocks.
    pub(super) fn write_statuses(self, store: &Store, reports: &Reports) {
        let (writes, replies) = self.split();
        let statuses: Vec<_> = writes.iter().filter_map(|it| it.status.as_ref()).collect();
        let mut written = store.write_statuses(&statuses).into_iter();
        for (reply, StatusWrite { report, status }) in replies.into_iter().zip(writes) {
            if let Some(report) = report {
                reports.keep(report);
            }
            let written = status.and_then(|_| written.next());
            let _ = reply.send(written.map_or(Ok(()), |written| written.map(drop)));
        }
    }
}
