//! Writes applied records: those that are ready at about the same time become durable together.

use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep};

use crate::intervals::{RECORDS_GATHER, RECORDS_GATHER_MAX};
use crate::store::{AppliedDocument, Store, StoreError, Written};

type Reply = oneshot::Sender<Result<Written, StoreError>>;

/// Records that are written together, each with the object that waits for it.
#[derive(Debug, Default)]
pub(super) struct Group(Vec<(AppliedDocument, Reply)>);

/// The records that wait to be written.
#[derive(Debug, Default)]
pub struct Records {
    waiting: parking_lot::Mutex<Group>,
    turn: Mutex<()>,
}

impl Records {
    /// Adds a record, and waits until it is written. Of those that wait, the first gathers and calls `write` with the
    /// whole group, which answers each.
    ///
    /// # Errors
    /// The store's error; then no step of the object may be made.
    pub(super) async fn write<F: Future>(
        &self,
        record: AppliedDocument,
        write: impl FnOnce(Group) -> F,
    ) -> Result<Written, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        self.waiting.lock().0.push((record, reply));
        let turn = self.turn.lock().await;
        if let Ok(written) = answer.try_recv() {
            return written;
        }
        self.gather().await;
        let group = std::mem::take(&mut *self.waiting.lock());
        write(group).await;
        drop(turn);
        let lost = |_| Err(StoreError::Bug("an applied record without a result".into()));
        answer.await.unwrap_or_else(lost)
    }

    /// Waits until no more records come.
    async fn gather(&self) {
        let (begun, mut before) = (Instant::now(), 0);
        loop {
            let waiting = self.waiting.lock().0.len();
            if waiting == before || begun.elapsed() >= RECORDS_GATHER_MAX {
                return;
            }
            before = waiting;
            sleep(RECORDS_GATHER).await;
        }
    }
}

impl Group {
    /// Writes the records. An error of the whole group goes to the first; the others are then written one by one, since
    /// each needs an error, or a success, of its own. Blocks.
    pub(super) fn write(self, store: &Store) {
        let (records, replies): (Vec<_>, Vec<_>) = self.0.into_iter().unzip();
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
