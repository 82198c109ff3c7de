//! What is ready for BIRD. The keys of a pass are ready one after the other. What they ask of BIRD starts at the same time,
//! so that one load has it.

use tokio::time::Instant;

use crate::intervals::READY_MAX;

/// Work that waits for that of the other keys of its pass, and the time of the first.
#[derive(Debug)]
pub(super) struct Ready<T>(Vec<T>, Instant);

impl<T> Ready<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new(), Instant::now())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, work: T) {
        if self.is_empty() {
            self.1 = Instant::now();
        }
        self.0.push(work);
    }

    /// Returns the time at which the work begins: once the runs of the pass are not waited for any more, or after the
    /// longest time. `None` without work.
    pub(super) fn due(&self, batch: Option<Instant>) -> Option<Instant> {
        let latest = self.1 + READY_MAX;
        (!self.is_empty()).then(|| batch.map_or(self.1, |until| until.min(latest)))
    }

    /// Takes the work if it is due.
    pub(super) fn take(&mut self, batch: Option<Instant>) -> Vec<T> {
        match self.due(batch) {
            Some(due) if due <= Instant::now() => std::mem::take(&mut self.0),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const LATER: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn work_begins_with_the_end_of_the_batch() {
        let mut ready = Ready::new();
        assert_eq!(ready.due(None), None);
        ready.add(1);
        let batch = Some(Instant::now() + LATER);
        assert_eq!(ready.due(batch), batch);
        assert!(ready.take(batch).is_empty());
        ready.add(2);
        assert_eq!(ready.take(None), [1, 2]);
        assert!(ready.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn batch_that_goes_on_delays_work_for_the_longest_time() {
        let mut ready = Ready::new();
        ready.add(1);
        sleep(READY_MAX - LATER / 2).await;
        let batch = || Some(Instant::now() + LATER);
        ready.add(2);
        assert!(ready.take(batch()).is_empty());
        sleep(LATER / 2).await;
        assert_eq!(ready.take(batch()), [1, 2]);
    }
}
