//! Commits in the background: recording takes only as long as reading a few files.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::cause::{Cause, Paths};
use super::commit::Recorded;
use super::tree::Tree;
use super::{History, HistoryError};
use crate::intervals::{HISTORY_GATHER, HISTORY_IDLE, HISTORY_RETRY, INDEX_REFRESH_MAX};
use crate::util::backoff::Backoff;

/// Maximum number of waiting causes; further ones are merged.
const WAITING: usize = 64;
/// Maximum number of lines of a merged message.
const LINES: usize = 1000;

/// Handle to record causes. Clones share the queue.
#[derive(Debug, Clone)]
pub struct HistoryHandle {
    tree: Tree,
    queue: Arc<Queue>,
    health: watch::Receiver<Option<String>>,
}

#[derive(Debug, Default)]
struct Queue {
    causes: Mutex<State>,
    changed: Notify,
    idle: Notify,
    ended: Notify,
    retry: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Recorded>,
    /// When the waiting causes are committed: those of about the same time become durable together.
    due: Option<Instant>,
    /// Whether commits of causes from the queue are in progress.
    busy: bool,
    closed: bool,
    has_ended: bool,
}

impl History {
    /// Starts committing in the background. The task ends after [`HistoryHandle::close`].
    pub fn start(self: Arc<Self>) -> (HistoryHandle, JoinHandle<()>) {
        let (handle, work) = self.queue();
        (handle, tokio::spawn(work))
    }

    /// Returns the handle to record causes, and the work of the task that commits them. The task
    /// ends after [`HistoryHandle::close`].
    pub fn queue(self: Arc<Self>) -> (HistoryHandle, impl Future<Output = ()> + Send + 'static) {
        let queue = Arc::new(Queue::default());
        let (report, health) = watch::channel(None);
        let handle = HistoryHandle {
            tree: self.tree.clone(),
            queue: Arc::clone(&queue),
            health,
        };
        (handle, work(self, queue, report))
    }
}

impl HistoryHandle {
    /// Records a cause with the current content of its files, whose reading blocks. Never waits for git; when too many
    /// causes wait, they are merged, and no change is lost.
    pub fn record(&self, cause: Cause) {
        let recorded = Recorded::new(&self.tree, cause);
        let mut state = self.queue.causes.lock();
        let full = state.waiting.len() >= WAITING;
        // The content of a cause without one is read when it is committed: later changes are not its own.
        let (now, is_read_later) = (Instant::now(), recorded.contents.is_none());
        let due = state.due.get_or_insert(now + HISTORY_GATHER);
        if is_read_later {
            *due = now;
        }
        match state.waiting.back_mut() {
            Some(last) if full => merge(last, recorded),
            _ => state.waiting.push_back(recorded),
        }
        drop(state);
        self.queue.changed.notify_one();
    }

    /// The last error, until a commit succeeds again: the condition `HistoryRecorded`.
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.clone()
    }

    /// Ends the wait after a failed commit: its reason may have passed, as when HEAD is back at the branch.
    pub fn retry(&self) {
        self.queue.retry.notify_one();
    }

    /// Waits until all recorded causes are committed. This never ends while git fails, so callers set a limit.
    pub async fn flush(&self) {
        self.queue.causes.lock().due = Some(Instant::now());
        self.queue.changed.notify_one();
        self.until(|state| state.waiting.is_empty() && !state.busy)
            .await;
    }

    /// Waits until the task has ended, and its git with it.
    pub(super) async fn ended(&self) {
        self.until(|state| state.has_ended).await;
    }

    async fn until(&self, is_done: impl Fn(&State) -> bool) {
        loop {
            let idle = self.queue.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if is_done(&self.queue.causes.lock()) {
                return;
            }
            idle.await;
        }
    }

    /// Lets the task end when the queue is empty, or when git fails.
    pub fn close(&self) {
        self.queue.causes.lock().closed = true;
        self.queue.changed.notify_one();
        self.queue.ended.notify_one();
    }
}

impl Queue {
    /// Returns the next causes, once they are due; `None` after the queue was closed.
    async fn next(&self) -> Option<Vec<Recorded>> {
        loop {
            let due = {
                let mut state = self.causes.lock();
                let due = state.due.filter(|_| !state.waiting.is_empty());
                if due.is_some_and(|due| state.closed || due <= Instant::now()) {
                    (state.busy, state.due) = (true, None);
                    return Some(state.waiting.drain(..).collect());
                }
                if state.closed && due.is_none() {
                    return None;
                }
                due
            };
            match due {
                Some(due) => drop(timeout_at(due, self.changed.notified()).await),
                None => self.changed.notified().await,
            }
        }
    }

    fn done(&self) {
        self.causes.lock().busy = false;
        self.idle.notify_waiters();
    }
}

async fn work(history: Arc<History>, queue: Arc<Queue>, report: watch::Sender<Option<String>>) {
    while let Some(recorded) = next(&history, &queue).await {
        if keep_trying(&history, &queue, &recorded, &report).await {
            report.send_if_modified(|health| health.take().is_some());
        }
        queue.done();
        if let Err(error) = history.maintain().await {
            tracing::warn!(%error, "history not packed; the next commit tries again");
        }
    }
    history.rest().await;
    queue.causes.lock().has_ended = true;
    queue.done();
}

/// Returns the next causes. Meanwhile refreshes an index that another git had locked, to the last commit, and ends the
/// git that waits for commits when none has come for a while.
async fn next(history: &History, queue: &Queue) -> Option<Vec<Recorded>> {
    let next = queue.next();
    tokio::pin!(next);
    let mut idle = Duration::ZERO;
    for wait in Backoff::new(HISTORY_RETRY.0, INDEX_REFRESH_MAX).waits() {
        if let Ok(next) = tokio::time::timeout(wait, &mut next).await {
            return next;
        }
        history.catch_up().await;
        idle += wait;
        if idle >= HISTORY_IDLE {
            history.rest().await;
        }
    }
    next.await
}

/// Commits, with retries. `false`: it gave up, because the agent ends.
async fn keep_trying(
    history: &History,
    queue: &Queue,
    recorded: &[Recorded],
    report: &watch::Sender<Option<String>>,
) -> bool {
    let mut failures = 0;
    while let Err(error) = history.commit_recorded(recorded).await {
        tell(report, &error);
        if queue.causes.lock().closed {
            return false;
        }
        failures = back_off(queue, failures).await;
    }
    true
}

/// Waits before the next try. Returns the number of failures that the wait after that counts.
async fn back_off(queue: &Queue, failures: u32) -> u32 {
    let wait = Backoff::new(HISTORY_RETRY.0, HISTORY_RETRY.1).wait(failures);
    tokio::select! {
        () = tokio::time::sleep(wait) => failures.saturating_add(1),
        () = queue.ended.notified() => failures,
        () = queue.retry.notified() => 0,
    }
}

fn tell(report: &watch::Sender<Option<String>>, error: &HistoryError) {
    let text = error.to_string();
    if report.borrow().as_deref() != Some(text.as_str()) {
        report.send_replace(Some(text));
    }
}

/// Merges a cause into a waiting one.
fn merge(last: &mut Recorded, next: Recorded) {
    match (&mut last.contents, next.contents) {
        (Some(contents), Some(newer)) => contents.extend(newer),
        (contents, _) => *contents = None,
    }
    last.cause.paths = match &last.contents {
        Some(contents) => Paths::Exactly(contents.clone()),
        None => Paths::All,
    };
    let body = &mut last.cause.body;
    body.push(String::new());
    body.push(format!(
        "Merged because the queue was full: {}",
        next.cause.subject
    ));
    body.extend(next.cause.body);
    body.truncate(LINES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retry_ends_the_wait_and_the_backoff() {
        let queue = Queue::default();
        let begun = Instant::now();
        let mut failures = 0;
        for _ in 0..9 {
            failures = back_off(&queue, failures).await;
        }
        assert_eq!((failures, begun.elapsed()), (9, Duration::from_secs(511)));
        let begun = Instant::now();
        queue.retry.notify_one();
        assert_eq!(back_off(&queue, failures).await, 0);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
