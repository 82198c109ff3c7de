//! The runs of the last pass. The next pass waits until all of them have ended, so that one observation reads back all.
//! A run that hangs delays the others only for a moment.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::intervals::{BATCH_MAX, BATCH_PER_RUN, BATCH_QUIET};
use crate::model::ObjectKey;

/// The runs of the last pass that have not ended.
#[derive(Debug)]
pub(super) struct Batch {
    running: BTreeSet<ObjectKey>,
    begun: Instant,
    /// The longest time that they are waited for.
    most: Duration,
    /// The time at which one of them last ended.
    last: Instant,
}

impl Batch {
    /// Returns a batch without runs.
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        Self {
            running: BTreeSet::new(),
            begun,
            most: BATCH_MAX,
            last: begun,
        }
    }

    /// Adds runs that begin now, beside those that are waited for.
    pub(super) fn begin(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        if self.until().is_none() {
            *self = Self::new();
        }
        let before = self.running.len();
        self.running.extend(keys);
        let added = u32::try_from(self.running.len() - before).unwrap_or(u32::MAX);
        self.most += BATCH_PER_RUN * added;
        self.last = Instant::now();
    }

    /// Records the end of a run. Returns whether it was one of these.
    pub(super) fn end(&mut self, key: &ObjectKey) -> bool {
        let was_running = self.running.remove(key);
        if was_running {
            self.last = Instant::now();
        }
        was_running
    }

    /// Returns whether all runs have ended.
    pub(super) fn is_over(&self) -> bool {
        self.running.is_empty()
    }

    /// Returns the time until which the runs are waited for, unless they have ended.
    pub(super) fn until(&self) -> Option<Instant> {
        let until = (self.last + BATCH_QUIET).min(self.begun + self.most);
        (!self.running.is_empty() && Instant::now() < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn key(index: u32) -> ObjectKey {
        crate::document::Kind::BgpSession.key(&format!("wg_{index}").parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_run_delays_others_for_a_moment() {
        let mut batch = Batch::new();
        batch.begin((0..3).map(key));
        for index in 0..2 {
            assert!(batch.until().is_some());
            sleep(BATCH_QUIET - Duration::from_millis(1)).await;
            batch.end(&key(index));
        }
        let until = batch.until().unwrap();
        assert_eq!(until - Instant::now(), BATCH_QUIET);
        sleep(BATCH_QUIET).await;
        assert_eq!(batch.until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn batch_ends_with_its_last_run_or_its_longest_time() {
        let mut batch = Batch::new();
        batch.begin([key(0)]);
        batch.end(&key(0));
        assert_eq!(batch.until(), None);
        batch.begin((0..1000).map(key));
        let begun = Instant::now();
        for index in 0.. {
            batch.end(&key(index));
            sleep(BATCH_QUIET / 2).await;
            if batch.until().is_none() {
                break;
            }
        }
        assert!(begun.elapsed() <= BATCH_MAX + BATCH_PER_RUN * 1000);
    }
}
