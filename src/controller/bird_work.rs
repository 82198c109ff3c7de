//! BIRD's part of reconciles. It goes on in a task of its own when BIRD takes long, so that the key can be looked at
//! again meanwhile: its tunnel is repaired while BIRD hangs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::context::Context;
use super::planning::Key;

/// How long a reconcile waits for BIRD: longer than a commit of many sessions takes on a small machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The same while an operator waits for the result.
pub(super) const ATTENDED: Duration = Duration::from_secs(50);

/// The keys for which BIRD is at work, each with its task.
#[derive(Debug, Default)]
pub struct BirdWork(Mutex<BTreeMap<Key, Option<AbortHandle>>>);

impl BirdWork {
    /// Whether BIRD is at work for any key.
    pub(super) fn is_busy(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Ends all tasks. A commit that has begun goes on in the committer.
    pub(super) fn abort(&self) {
        let tasks: Vec<_> = self.lock().values().flatten().cloned().collect();
        tasks.iter().for_each(AbortHandle::abort);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Option<AbortHandle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One key's work, until it is dropped.
struct Turn {
    context: Arc<Context>,
    key: Key,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.context.bird_work.lock().remove(&self.key);
    }
}

/// Does work for a key to its end, and returns its result. `None`: it takes longer than the patience, or earlier
/// work for this key does. The key is looked at again when it ends.
pub(super) async fn run<T: Send + 'static>(
    ctx: &Arc<Context>,
    key: &Key,
    patience: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    if let Entry::Vacant(place) = ctx.bird_work.lock().entry(key.clone()) {
        place.insert(None);
    } else {
        return None;
    }
    let turn = Turn {
        context: Arc::clone(ctx),
        key: key.clone(),
    };
    let (done, waiting) = oneshot::channel();
    let task = tokio::spawn(async move {
        let result = work.await;
        let (context, key) = (Arc::clone(&turn.context), turn.key.clone());
        drop(turn);
        if done.send(result).is_err() {
            context.hint(key);
        }
    });
    if let Some(place) = ctx.bird_work.lock().get_mut(key) {
        *place = Some(task.abort_handle());
    }
    if ctx.observer.is_patient() {
        return waiting.await.ok();
    }
    tokio::time::timeout(patience, waiting).await.ok()?.ok()
}
