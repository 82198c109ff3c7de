//! Limits access to resources that a thousand keys cannot use at once efficiently.
//!
//! Keys run in parallel without a limit, since most of them wait: for an observation that all of them share, or for
//! the one reload of BIRD that loads the texts of all of them. A limit on whole runs would load them a few at a
//! time.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Number of objects whose kernel steps run at once. The kernel applies its changes one after another anyway; more
/// objects would only wait.
const KERNEL: usize = 16;
/// Number of threads that work on the state directory at once.
const DISK: usize = 8;

/// Permits, granted in the order of the requests.
#[derive(Debug)]
pub struct Permits {
    kernel: Semaphore,
    disk: Semaphore,
}

impl Default for Permits {
    fn default() -> Self {
        Self {
            kernel: Semaphore::new(KERNEL),
            disk: Semaphore::new(DISK),
        }
    }
}

impl Permits {
    /// Waits for a turn at the kernel; the turn ends when the guard is dropped.
    pub(super) async fn kernel(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so acquire always succeeds.
        self.kernel.acquire().await.ok()
    }

    /// Waits for a turn at the state directory.
    pub(super) async fn disk(&self) -> Option<SemaphorePermit<'_>> {
        self.disk.acquire().await.ok()
    }
}
