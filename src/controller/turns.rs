//! Turns at what a thousand keys cannot do at once with profit.
//!
//! Keys run beside each other without a limit, since most of them wait: for a look that all of them share, for
//! the one reload of BIRD that loads the texts of all of them. A limit on whole runs would load them a few at
//! a time.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many objects have steps taken in the kernel at once. The kernel takes its changes one after another
/// anyway; more would only wait.
const KERNEL: usize = 16;
/// How many threads work on the state directory at once.
const DISK: usize = 8;

/// Turns, which are handed out in the order they are asked for.
#[derive(Debug)]
pub struct Turns {
    kernel: Semaphore,
    disk: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            kernel: Semaphore::new(KERNEL),
            disk: Semaphore::new(DISK),
        }
    }
}

impl Turns {
    /// Waits for a turn at the kernel; it ends when the guard is dropped.
    pub(super) async fn kernel(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there always is one.
        self.kernel.acquire().await.ok()
    }

    /// Waits for a turn at the state directory.
    pub(super) async fn disk(&self) -> Option<SemaphorePermit<'_>> {
        self.disk.acquire().await.ok()
    }
}
