//! Counters of writes to the kernel.

use std::sync::atomic::{AtomicU64, Ordering};

/// Writes since the start, by kind. A pass that changes nothing leaves all of them unchanged: tests verify
/// this, and metrics show it.
#[derive(Debug, Default)]
pub struct KernelCounters {
    /// Links created, changed and deleted.
    pub link_writes: AtomicU64,
    /// Addresses added and removed.
    pub address_writes: AtomicU64,
    pub route_writes: AtomicU64,
    /// Changes of WireGuard keys, ports and peers.
    pub wireguard_writes: AtomicU64,
    pub sysctl_writes: AtomicU64,
}

impl KernelCounters {
    /// All changes but sysctls, which are files.
    pub fn messages(&self) -> u64 {
        let all = [
            &self.link_writes,
            &self.address_writes,
            &self.route_writes,
            &self.wireguard_writes,
        ];
        all.iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .sum()
    }
}

/// Counts one write, whether it will succeed or not.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
