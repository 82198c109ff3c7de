use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use async_trait::async_trait;
use tokio::sync::oneshot;

/// Looks up the addresses of a name. Tests use one that answers from memory.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// Returns the addresses of the name, in the system's order of preference.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Reason why a name has no new addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The system's resolver returned an error.
    #[error("resolve {name}: {source}; check the name, and the name servers in /etc/resolv.conf")]
    Failed {
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The system's resolver did not answer.
    #[error(
        "resolve {name}: no answer within {seconds} s; check the name servers in /etc/resolv.conf"
    )]
    Deadline {
        name: String,
        /// How long the agent waited.
        seconds: u64,
    },
    /// The answer has no usable address.
    #[error(
        "resolve {name}: no usable address in the answer ({found}); check the DNS records of the name"
    )]
    Unusable {
        name: String,
        /// The content of the answer.
        found: String,
    },
}

/// The system's resolver: `getaddrinfo`, and with it `/etc/hosts`, `nsswitch.conf` and search domains.
///
/// Each lookup has its own thread. `getaddrinfo` cannot be cancelled, and with a dead name server it
/// blocks for half a minute or more (resolv.conf(5): 5 s, two attempts, up to three servers, each search
/// domain). In tokio's pool of blocking threads, which `tokio::net::lookup_host` uses, such calls take
/// the threads that file access needs, and the runtime waits for them before it ends.
#[derive(Debug, Default)]
pub struct SystemLookup {
    running: Arc<AtomicUsize>,
}

impl SystemLookup {
    /// Limit of threads, even if all of them hang beyond their deadline.
    const MAX_THREADS: usize = 256;
}

#[async_trait]
#[expect(clippy::disallowed_methods, reason = "each lookup has its own thread")]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let slot = Slot::take(&self.running)
            .ok_or_else(|| io::Error::other("too many lookups hang in the system's resolver"))?;
        let (answer, wait) = oneshot::channel();
        let query = (name.to_owned(), 0);
        thread::Builder::new()
            .name("resolve".to_owned())
            .spawn(move || {
                let found = query
                    .to_socket_addrs()
                    .map(|list| list.map(|found| found.ip()).collect());
                drop(slot);
                // The caller stops waiting at the deadline.
                let _ = answer.send(found);
            })?;
        wait.await
            .map_err(|_| io::Error::other("the lookup thread ended without an answer"))?
    }
}

/// A permit for one thread; returned when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(running: &Arc<AtomicUsize>) -> Option<Self> {
        let slot = Self(Arc::clone(running));
        (running.fetch_add(1, Ordering::Relaxed) < SystemLookup::MAX_THREADS).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_resolver_knows_localhost() {
        let found = SystemLookup::default().lookup("localhost").await.unwrap();
        assert!(
            found.iter().all(IpAddr::is_loopback) && !found.is_empty(),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn too_many_hanging_lookups_fail_without_another_thread() {
        let system = SystemLookup {
            running: Arc::new(AtomicUsize::new(SystemLookup::MAX_THREADS)),
        };
        assert!(system.lookup("localhost").await.is_err());
        assert_eq!(
            system.running.load(Ordering::Relaxed),
            SystemLookup::MAX_THREADS
        );
    }
}
