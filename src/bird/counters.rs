use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the operations on BIRD and its files since the start. Shared by [`super::Client`] and
/// [`super::Committer`], so that a test can prove that nothing happened when nothing changed.
#[derive(Debug, Default)]
pub struct BirdCounters {
    reads: AtomicU64,
    actions: AtomicU64,
    configures: AtomicU64,
    writes: AtomicU64,
    checks: AtomicU64,
}

impl BirdCounters {
    /// Commands that only read: `show …`, `eval`, `configure status`.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Commands on one protocol: `disable`, `enable`, `restart`, `reload`.
    pub fn actions(&self) -> u64 {
        self.actions.load(Ordering::Relaxed)
    }

    /// `configure timeout N`: how often BIRD had to read its files. `configure confirm` and
    /// `configure undo` do not count, because they read none.
    pub fn configures(&self) -> u64 {
        self.configures.load(Ordering::Relaxed)
    }

    /// Files written or removed in the live tree; staged copies do not count.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Runs of `bird -p`.
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    pub(super) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_action(&self) {
        self.actions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_configure(&self) {
        self.configures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_check(&self) {
        self.checks.fetch_add(1, Ordering::Relaxed);
    }
}
