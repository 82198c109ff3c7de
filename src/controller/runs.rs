//! Keeps the tasks in progress, each with its key, so that a panicked one is still known by its key.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// Tasks in progress. Dropping them ends them.
#[derive(Debug)]
pub(super) struct Runs<K, T> {
    tasks: JoinSet<T>,
    keys: HashMap<Id, K>,
}

impl<K: std::fmt::Display, T: Send + 'static> Runs<K, T> {
    /// Returns an empty set of tasks.
    pub(super) fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            keys: HashMap::new(),
        }
    }

    /// Starts a task. It is boxed: the runtime copies what it spawns several times, and a reconcile has kilobytes.
    pub(super) fn start(&mut self, key: K, task: impl Future<Output = T> + Send + 'static) {
        let task = self.tasks.spawn(Box::pin(task));
        self.keys.insert(task.id(), key);
    }

    /// Returns whether no task is in progress.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits for the next task to end, and returns its key; `None` when there are no tasks. A task that panicked has
    /// no result: its key backs off alone, and every other task continues. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<(K, Option<T>)> {
        loop {
            let (id, result) = match self.tasks.join_next_with_id().await? {
                Ok((id, result)) => (id, Some(result)),
                Err(error) => {
                    self.log(&error);
                    (error.id(), None)
                }
            };
            if let Some(key) = self.keys.remove(&id) {
                return Some((key, result));
            }
        }
    }

    fn log(&self, error: &tokio::task::JoinError) {
        let object = self.keys.get(&error.id()).map(tracing::field::display);
        tracing::error!(object, %error, "reconcile ended early; please report this");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::controller::queue::{Backoff, Outcome, Queue};
    use crate::model::ErrorClass;

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
        assert_eq!(ended, Some(("bad", None)));
        queue.finish(
            &"bad",
            Outcome::Failed(ErrorClass::Bug),
            Instant::now(),
            1.0,
        );
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
        queue.finish(&key, outcome.unwrap(), Instant::now(), 1.0);
        let then: Vec<_> = std::iter::from_fn(|| Some(queue.next(Instant::now())?.0)).collect();
        assert_eq!(
            then,
            ["good", "bad"],
            "both are due by now, and the news of the first is older"
        );
        assert_eq!(runs.ended().await, None);
    }
}
