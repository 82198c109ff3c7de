//! Keeps the runs in progress, each with its key, so that a panicked run is still known by its key.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

use super::queue::Outcome;

/// Runs in progress.
#[derive(Debug)]
pub(super) struct Runs<K> {
    tasks: JoinSet<Outcome>,
    keys: HashMap<Id, K>,
}

impl<K: std::fmt::Display> Runs<K> {
    /// Returns an empty set of runs.
    pub(super) fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            keys: HashMap::new(),
        }
    }

    /// Starts a run of a key.
    pub(super) fn start(&mut self, key: K, run: impl Future<Output = Outcome> + Send + 'static) {
        let task = self.tasks.spawn(run);
        self.keys.insert(task.id(), key);
    }

    /// Waits for the next run to end, and returns its key; `None` when there are no runs. A run that panicked has
    /// failed: its key backs off alone, and every other run continues. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<(K, Outcome)> {
        loop {
            let (id, outcome) = match self.tasks.join_next_with_id().await? {
                Ok(ended) => ended,
                Err(error) => (error.id(), self.failed(&error)),
            };
            if let Some(key) = self.keys.remove(&id) {
                return Some((key, outcome));
            }
        }
    }

    fn failed(&self, error: &tokio::task::JoinError) -> Outcome {
        let object = self.keys.get(&error.id()).map(tracing::field::display);
        tracing::error!(object, %error, "reconcile ended early; please report this");
        Outcome::Failed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::controller::queue::{Backoff, Queue};

    #[tokio::test(start_paused = true)]
    async fn panicking_run_releases_only_its_own_key() {
        let (mut queue, mut runs) = (Queue::new(Backoff::default(), Instant::now()), Runs::new());
        for key in ["bad", "good"] {
            queue.add(key, Instant::now());
            assert!(
                queue
                    .next(Instant::now())
                    .is_some_and(|(next, _)| next == key)
            );
        }
        runs.start("bad", async { panic!("a fault of the agent") });
        runs.start("good", async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Outcome::Settled(Duration::from_secs(60))
        });

        let ended = runs.ended().await;
        assert_eq!(ended, Some(("bad", Outcome::Failed)));
        queue.finish(&"bad", Outcome::Failed, Instant::now(), 1.0);
        queue.add("good", Instant::now());
        assert_eq!(
            queue.next(Instant::now()),
            None,
            "one runs still, and the other waits out its backoff"
        );
        assert_eq!(
            queue.next_due(),
            Some(Instant::now() + Backoff::default().first)
        );

        let (key, outcome) = runs.ended().await.unwrap();
        queue.finish(&key, outcome, Instant::now(), 1.0);
        let then: Vec<_> = std::iter::from_fn(|| Some(queue.next(Instant::now())?.0)).collect();
        assert_eq!(
            then,
            ["good", "bad"],
            "both are due by now, and the news of the first is older"
        );
        assert_eq!(runs.ended().await, None);
    }
}
