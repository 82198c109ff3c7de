//! Runs BIRD's part of a reconcile. Work that takes long continues in its own task, so that the controller can
//! reconcile the key again meanwhile: its tunnel is repaired while BIRD hangs. A late failure becomes the result of
//! the next run.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::context::Context;
use crate::intervals::LATE_FAILURE_KEPT;
use crate::model::ObjectKey;
use crate::plan::{Action, Step};

/// Keys for which BIRD works, or has failed late.
#[derive(Debug, Default, Clone)]
pub struct BirdWork(Arc<Mutex<BTreeMap<ObjectKey, Slot>>>);

#[derive(Debug)]
enum Slot {
    /// BIRD works in this task.
    Busy(Option<AbortHandle>),
    /// BIRD failed after the reconcile had given up.
    Failed(Late),
}

/// Result of work whose reconcile no longer waits for it.
#[derive(Debug)]
struct Late {
    work: Work,
    at: Instant,
    result: Box<dyn Any + Send>,
}

/// Work for BIRD. Different work never receives the result of this work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work(Arc<[Action]>);

impl Work {
    /// Returns the work of these steps.
    pub(super) fn of<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Self {
        Self(steps.into_iter().map(|step| step.action.clone()).collect())
    }
}

/// A result that may be a failure.
pub(super) trait Fallible: Send + 'static {
    /// Whether the work failed.
    fn is_failure(&self) -> bool;
}

impl<T: Send + 'static, E: Send + 'static> Fallible for Result<T, E> {
    fn is_failure(&self) -> bool {
        self.is_err()
    }
}

/// The completed part, and the error that stopped the rest.
impl<T: Send + 'static, E: Send + 'static> Fallible for (T, Option<E>) {
    fn is_failure(&self) -> bool {
        self.1.is_some()
    }
}

impl BirdWork {
    /// Returns whether BIRD works for any key.
    pub(super) fn is_busy(&self) -> bool {
        let busy = |slot: &Slot| matches!(slot, Slot::Busy(_));
        self.0.lock().values().any(busy)
    }

    /// Aborts all tasks. A commit that has begun continues in the committer.
    pub(super) fn abort(&self) {
        for slot in self.0.lock().values() {
            if let Slot::Busy(Some(task)) = slot {
                task.abort();
            }
        }
    }

    /// Reserves a key for work, or returns the late failure of the same work.
    fn begin<T: Fallible>(&self, key: &ObjectKey, work: &Work) -> Begin<T> {
        let mut slots = self.0.lock();
        match slots.remove(key) {
            Some(Slot::Failed(late))
                if late.work == *work && late.at.elapsed() < LATE_FAILURE_KEPT =>
            {
                if let Ok(result) = late.result.downcast() {
                    return Begin::Late(*result);
                }
            }
            Some(busy @ Slot::Busy(_)) => {
                slots.insert(key.clone(), busy);
                return Begin::Busy;
            }
            _ => {}
        }
        slots.insert(key.clone(), Slot::Busy(None));
        drop(slots);
        Begin::Turn(Turn {
            work: self.clone(),
            key: key.clone(),
        })
    }

    /// Keeps a failure for the next run, unless newer work exists.
    fn keep<T: Fallible>(&self, key: &ObjectKey, work: Work, result: T) {
        let late = Late {
            work,
            at: Instant::now(),
            result: Box::new(result),
        };
        let mut slots = self.0.lock();
        slots.entry(key.clone()).or_insert(Slot::Failed(late));
    }

    /// Runs work for a key. Without a patience, waits until the work ends.
    async fn run<T: Fallible>(
        &self,
        key: &ObjectKey,
        work: Work,
        patience: Option<Duration>,
        does: impl Future<Output = T> + Send + 'static,
        ended_late: impl FnOnce(ObjectKey) + Send + 'static,
    ) -> Option<T> {
        let turn = match self.begin(key, &work) {
            Begin::Turn(turn) => turn,
            Begin::Busy => return None,
            Begin::Late(result) => return Some(result),
        };
        let (done, waiting) = oneshot::channel();
        let task = tokio::spawn(async move {
            let result = does.await;
            let (slots, key) = (turn.work.clone(), turn.key.clone());
            drop(turn);
            if let Err(result) = done.send(result) {
                if result.is_failure() {
                    slots.keep(&key, work, result);
                }
                ended_late(key);
            }
        });
        if let Some(Slot::Busy(place)) = self.0.lock().get_mut(key) {
            *place = Some(task.abort_handle());
        }
        match patience {
            None => waiting.await.ok(),
            Some(patience) => tokio::time::timeout(patience, waiting).await.ok()?.ok(),
        }
    }
}

/// Ways in which a run begins.
enum Begin<T> {
    /// The run has this turn.
    Turn(Turn),
    /// The run does not start: earlier work is still running.
    Busy,
    /// The run returns the late failure of the same work.
    Late(T),
}

/// The reservation of one key; dropping it ends the reservation.
struct Turn {
    work: BirdWork,
    key: ObjectKey,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.work.0.lock().remove(&self.key);
    }
}

/// Runs work for a key to its end, and returns its result. Returns `None` if this work, or earlier work for the
/// key, takes longer than the patience. The key is reconciled again when the work ends, and a failure is the result
/// of that next run.
pub(super) async fn run<T: Fallible>(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    work: Work,
    patience: Duration,
    does: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let patience = (!ctx.observer.is_patient()).then_some(patience);
    let context = Arc::clone(ctx);
    let ended_late = move |key| context.hint(key);
    ctx.bird_work
        .run(key, work, patience, does, ended_late)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::COMMIT_WAIT;

    const SLOW: Duration = Duration::from_secs(20);

    /// Simulates a BIRD that takes longer than the patience and then refuses.
    async fn refuses_late(birds: &BirdWork, work: Work, words: &'static str) {
        let (late, hinted) = oneshot::channel();
        let does = async move {
            tokio::time::sleep(SLOW).await;
            Err::<(), _>(words)
        };
        let tell = move |key| drop(late.send(key));
        let result = birds
            .run(&ObjectKey::Router, work, Some(COMMIT_WAIT), does, tell)
            .await;
        assert_eq!(result, None, "the reconcile gives up");
        assert_eq!(hinted.await, Ok(ObjectKey::Router), "it is looked at again");
    }

    async fn runs(birds: &BirdWork, work: Work) -> Option<Result<(), &'static str>> {
        let does = async { Ok(()) };
        birds
            .run(&ObjectKey::Router, work, Some(COMMIT_WAIT), does, drop)
            .await
    }

    fn work(name: &str) -> Work {
        let path = name.to_owned();
        Work(Arc::new([Action::RemoveBase { path }]))
    }

    #[tokio::test(start_paused = true)]
    async fn late_failure_is_the_result_of_the_next_run() {
        let birds = BirdWork::default();
        refuses_late(&birds, work("a"), "syntax error").await;
        assert!(!birds.is_busy(), "a stop does not wait for it");
        assert_eq!(runs(&birds, work("a")).await, Some(Err("syntax error")));
        assert_eq!(runs(&birds, work("a")).await, Some(Ok(())), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn late_failure_is_no_result_of_other_work() {
        let birds = BirdWork::default();
        refuses_late(&birds, work("a"), "syntax error").await;
        assert_eq!(runs(&birds, work("b")).await, Some(Ok(())));
        assert_eq!(runs(&birds, work("a")).await, Some(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn late_failure_is_forgotten_after_a_while() {
        let birds = BirdWork::default();
        refuses_late(&birds, work("a"), "syntax error").await;
        tokio::time::advance(LATE_FAILURE_KEPT).await;
        assert_eq!(runs(&birds, work("a")).await, Some(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn key_has_one_work_at_a_time() {
        let birds = BirdWork::default();
        let does = async {
            tokio::time::sleep(SLOW).await;
            Ok::<(), &str>(())
        };
        let (late, hinted) = oneshot::channel();
        let tell = move |key| drop(late.send(key));
        let first = birds.run(&ObjectKey::Router, work("a"), Some(COMMIT_WAIT), does, tell);
        assert_eq!(first.await, None);
        assert!(birds.is_busy());
        assert_eq!(runs(&birds, work("a")).await, None);
        assert_eq!(hinted.await, Ok(ObjectKey::Router));
        assert_eq!(runs(&birds, work("a")).await, Some(Ok(())));
    }
}
