//! Blocking work of tasks. A task that blocks an async worker delays all other tasks of that worker.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::AbortOnDropHandle;

thread_local! {
    /// Whether this thread runs blocking work.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Whether this process is the program, and not a test that links it.
static IS_PROGRAM: AtomicBool = AtomicBool::new(false);
/// Whether blocking work on an async worker is an error.
static CHECKS: AtomicBool = AtomicBool::new(false);

/// Runs blocking work on a thread for it. Propagates its panic to the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // Beside the task, so that the runtime's code is compiled once, and not for each type of result.
    let result = Arc::new(Mutex::new(None));
    let place = Arc::clone(&result);
    ended(spawn_blocking(move || *place.lock() = Some(work())).await).await;
    let done = result.lock().take();
    match done {
        Some(done) => done,
        None => unreachable!("work that has ended has a result"),
    }
}

/// Runs a future as a task of another runtime, and ends it when this one is dropped. Propagates its panic to the caller.
pub(crate) async fn on_runtime<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    ended(AbortOnDropHandle::new(runtime.spawn(work)).await).await
}

async fn ended<T>(task: Result<T, JoinError>) -> T {
    match task {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down, and the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Runs blocking work here, on a thread whose tasks may all wait for it.
pub(crate) fn block_here<T>(work: impl FnOnce() -> T) -> T {
    let _mark = Mark(MAY_BLOCK.replace(true));
    work()
}

/// Starts blocking work on a thread for it.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    spawn_boxed(Box::new(work))
}

/// Starts boxed work: so the runtime's code is compiled once for a type of result, and not for each caller.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that starts blocking work"
)]
fn spawn_boxed<T: Send + 'static>(work: Box<dyn FnOnce() -> T + Send>) -> JoinHandle<T> {
    tokio::task::spawn_blocking(|| block_here(work))
}

/// Restores the mark of a thread, which the runtime may use for other work afterwards.
struct Mark(bool);

impl Drop for Mark {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.0);
    }
}

/// Waits on a thread for blocking work.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "checks the thread")]
pub(crate) fn pause(time: Duration) {
    assert_may_block("pause");
    std::thread::sleep(time);
}

/// Records that this process is the program: a test that serves in its own process blocks workers as it likes.
pub(crate) fn is_program() {
    IS_PROGRAM.store(true, Ordering::Relaxed);
}

/// Makes [`assert_may_block`] effective in this process from now on, if it is a debug build of the program. For servers,
/// once their tasks start: a start and a verb of the command line have no other work that they could delay.
pub(crate) fn check_blocking_work() {
    let is_checked = cfg!(debug_assertions) && IS_PROGRAM.load(Ordering::Relaxed);
    CHECKS.store(is_checked, Ordering::Relaxed);
}

/// Panics if blocking work runs on an async worker.
#[track_caller]
pub(crate) fn assert_may_block(work: &str) {
    if cfg!(debug_assertions) && CHECKS.load(Ordering::Relaxed) && is_worker() {
        panic!("{work} blocks an async worker; use util::task::blocking");
    }
}

/// Returns whether this thread runs tasks. A thread of its own has no runtime.
fn is_worker() -> bool {
    !MAY_BLOCK.get() && Handle::try_current().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_blocking_work_may_block() {
        assert!(is_worker());
        assert!(!blocking(is_worker).await);
        let thread = std::thread::spawn(is_worker);
        assert!(!thread.join().unwrap());
        assert!(is_worker());
    }

    #[tokio::test]
    async fn panic_of_blocking_work_ends_its_caller() {
        let caller = tokio::spawn(blocking(|| panic!("expected")));
        assert!(caller.await.unwrap_err().is_panic());
        assert!(!blocking(is_worker).await, "the mark is restored");
    }
}
