//! Resolver of endpoint and RPKI server names, independent of all other work.
//!
//! [`Resolver::current`] answers at once from the known addresses; a separate task looks names up, each
//! with a deadline, so that a name server that is slow or gone delays no tunnel, no plan and no
//! other name. The last good answer is used while lookups fail.
//!
//! Every refresh keeps the address in use as long as it is in the answer: a record set that
//! changes its order each time moves no endpoint. An endpoint moves to the next address only when the
//! caller reports that the peer does not answer there ([`Resolver::next`]).

mod choose;
mod lookup;
mod state;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::intervals::{LOOKUP_INTERVAL, LOOKUP_LIMIT};
use crate::model::Endpoint;
use state::State;

pub use choose::{candidates, choose};
pub use lookup::{Lookup, ResolveError, SystemLookup};

/// Settings of the lookups.
#[derive(Debug, Clone)]
pub struct ResolverSettings {
    /// How long an answer is used before the next lookup, with a tenth of jitter.
    /// The TTLs of the DNS are not known: `getaddrinfo` does not return them.
    pub interval: Duration,
    /// How long one lookup may take.
    pub deadline: Duration,
    /// How many lookups start at the same time.
    pub concurrency: usize,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self {
            interval: LOOKUP_INTERVAL,
            deadline: LOOKUP_LIMIT,
            concurrency: 8,
        }
    }
}

/// The current state of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The address in use, from the last good answer.
    pub address: Option<SocketAddr>,
    /// Why the last lookup failed. There may be an address at the same time.
    pub error: Option<String>,
    /// When the last lookup ended; `None` before the first, and for addresses that need no lookup.
    pub at: Option<Timestamp>,
}

/// The resolver; the task of [`Resolver::start`] ends when it is dropped.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

/// A reader of all results of a resolver.
#[derive(Debug, Clone)]
pub struct KnownNames(Arc<Shared>);

impl KnownNames {
    /// Returns the addresses of the last good answer, and the one in use, of every endpoint with a name. Never waits.
    pub fn addresses(&self) -> BTreeMap<Endpoint, BTreeSet<IpAddr>> {
        self.0.state.lock().addresses()
    }

    /// Returns the state of the endpoint. Never waits.
    pub fn current(&self, endpoint: &Endpoint) -> Resolution {
        self.0.state.lock().current(endpoint)
    }
}

/// The state shared by the handle and the task.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signals a due lookup.
    wake: Notify,
    /// Signals a changed address or error.
    changed: Notify,
}

impl Shared {}

impl Resolver {
    /// Starts the task on the current tokio runtime.
    pub fn start(lookup: Arc<dyn Lookup>, settings: ResolverSettings) -> Self {
        let (mut resolver, work) = Self::new(lookup, settings);
        resolver.task = Some(tokio::spawn(work));
        resolver
    }

    /// Returns the resolver and its task, which the caller runs for as long as the resolver is used.
    pub fn new(
        lookup: Arc<dyn Lookup>,
        settings: ResolverSettings,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            wake: Notify::new(),
            changed: Notify::new(),
        });
        let work = task::run(Arc::clone(&shared), lookup, settings);
        (Self { shared, task: None }, work)
    }

    /// Returns a reader of all results.
    pub fn known(&self) -> KnownNames {
        KnownNames(Arc::clone(&self.shared))
    }

    /// Watches exactly these endpoints from now on; the others are forgotten.
    pub fn watch<'a>(&self, endpoints: impl IntoIterator<Item = &'a Endpoint>) {
        self.shared.state.lock().watch(endpoints, Instant::now());
        self.shared.wake.notify_one();
    }

    /// Starts with the results of an earlier run: such an address is used until an answer replaces it.
    pub fn remember(&self, known: BTreeMap<Endpoint, IpAddr>) {
        self.shared.state.lock().remember(known);
    }

    /// Returns the state of every endpoint with a name that is watched or remembered. Never waits.
    pub fn all(&self) -> BTreeMap<Endpoint, Resolution> {
        self.shared.state.lock().all()
    }

    /// Returns the state of the endpoint. Never waits.
    pub fn current(&self, endpoint: &Endpoint) -> Resolution {
        match endpoint.address() {
            Some(address) => Resolution {
                address: Some(address),
                error: None,
                at: None,
            },
            None => self.shared.state.lock().current(endpoint),
        }
    }

    /// Reports that the peer does not answer at the current address. When it has just become silent, the name is looked
    /// up at once, since the peer may have moved; when the address has had its time (`ADDRESS_SILENCE`,
    /// longer after each full round), the next one of the answer is used. May be called on every pass
    /// while the handshake is stale.
    pub fn next(&self, endpoint: &Endpoint) -> Resolution {
        let now = Instant::now();
        if self.shared.state.lock().silent(endpoint, now) {
            self.shared.wake.notify_one();
        }
        if self.shared.state.lock().next(endpoint, now) {
            self.shared.changed.notify_one();
        }
        self.current(endpoint)
    }

    /// Waits until a result changes, and returns the names it concerns.
    /// For one caller at a time; safe to cancel.
    pub async fn changed(&self) -> BTreeSet<String> {
        loop {
            let notified = self.shared.changed.notified();
            let names = self.shared.state.lock().take_changed();
            if !names.is_empty() {
                return names;
            }
            notified.await;
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
