//! Addresses of the names of RPKI servers. BIRD blocks while it resolves a name, so the agent gives it addresses.
//!
//! The last good address stays in use while lookups fail, also across a restart of the agent: it is
//! stored next to the documents. An answer in another order, or one that still contains the address
//! in use, changes nothing. If a server does not answer at its address, the agent tries the next
//! one of the answer, at increasing intervals, because every change is a reload of BIRD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::resolve::{Resolution, Resolver, ResolverSettings, SystemLookup};
use crate::document::{RoutingPolicySpec, RpkiServer};
use crate::intervals::{RPKI_SILENCE, RPKI_SILENCE_MAX};
use crate::model::{Endpoint, Host};
use crate::observed::bird::roa::Servers;
use crate::render::rpki_protocol;
use crate::status::RpkiName;
use crate::store::Store;
use crate::telemetry::chain;
use crate::util::backoff::Backoff;
use crate::util::notices::Notices;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// File with the addresses, below the state directory.
const FILE: &str = "rpki.json";

/// The names of RPKI servers, with a resolver of their own: other names do not delay them.
#[derive(Debug)]
pub(crate) struct RpkiServers {
    resolver: Resolver,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The content of the file.
    kept: BTreeMap<String, IpAddr>,
    silent: BTreeMap<Endpoint, Silence>,
    failing: Notices,
}

/// A server that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Silence {
    /// Start of the silence at this address.
    since: Instant,
    /// Number of changes to another address.
    moves: u32,
}

impl Silence {
    fn is_over(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since)
            >= Backoff::new(RPKI_SILENCE, RPKI_SILENCE_MAX)
                .factor(3.0)
                .wait(self.moves)
    }
}

impl RpkiServers {
    /// Loads the stored addresses. Returns the servers, and the task that looks them up.
    pub(crate) fn kept(store: &Store) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let read = || -> Result<BTreeMap<String, IpAddr>, Box<dyn std::error::Error>> {
            Ok(store
                .kept(FILE)?
                .map(|text| serde_json::from_str(&text))
                .transpose()?
                .unwrap_or_default())
        };
        let kept = read().unwrap_or_else(|error| {
            warn!(file = FILE, error = %chain(&*error), "RPKI server addresses not readable; \
                                                         looking them up again");
            BTreeMap::new()
        });
        let (resolver, work) = Resolver::new(
            Arc::new(SystemLookup::default()),
            ResolverSettings::default(),
        );
        let known = kept
            .iter()
            .filter_map(|(name, address)| Some((name.parse().ok()?, *address)));
        resolver.remember(known.sorted_map());
        let state = Mutex::new(State {
            kept,
            ..State::default()
        });
        (Self { resolver, state }, work)
    }

    /// Watches the servers of this policy from now on.
    pub(super) fn watch(&self, policy: &RoutingPolicySpec) {
        self.resolver.watch(&named(policy));
    }

    /// Resolutions of every name.
    pub(crate) fn known(&self) -> BTreeMap<Endpoint, Resolution> {
        self.resolver.all()
    }

    /// The names with their addresses and errors, without the times of the lookups.
    pub(crate) fn names(&self) -> BTreeMap<Endpoint, RpkiName> {
        let name = |(endpoint, known): (Endpoint, Resolution)| {
            let name = RpkiName {
                endpoint: endpoint.clone(),
                address: known.address.map(|address| address.ip()),
                error: known.error,
            };
            (endpoint, name)
        };
        self.known().into_iter().map(name).sorted_map()
    }

    /// Waits until the resolution of a name changes, or starts or stops failing.
    pub(super) async fn changed(&self) {
        self.resolver.changed().await;
    }

    /// Looks up the servers of this policy, and waits until each has an address or an error.
    /// Returns whether it had to wait.
    pub(crate) async fn resolved(&self, policy: &RoutingPolicySpec) -> bool {
        self.watch(policy);
        let open = || {
            self.known()
                .values()
                .any(|known| known.address.is_none() && known.error.is_none())
        };
        let waited = open();
        while open() {
            self.changed().await;
        }
        waited
    }

    /// Tries the next address of servers that have been silent for too long. If the address
    /// changes, [`RpkiServers::changed`] triggers a new desired state.
    pub(super) fn judge(&self, policy: &RoutingPolicySpec, servers: &Servers, now: Instant) {
        let silent = policy
            .rpki
            .servers
            .iter()
            .filter(|server| !servers.answers(&rpki_protocol(server)));
        let silent: BTreeSet<Endpoint> = silent.map(RpkiServer::endpoint).sorted_set();
        let due: Vec<Endpoint> = self.state.lock().silent_for_long(silent, now);
        for endpoint in due {
            let before = self.resolver.current(&endpoint).address;
            let after = self.resolver.next(&endpoint).address;
            if let (Some(before), Some(after)) = (before, after)
                && before != after
            {
                info!(server = %endpoint, silent = %before.ip(), address = %after.ip(), "RPKI \
                                                                                         server \
                                                                                         does not \
                                                                                         answer; \
                                                                                         trying \
                                                                                         its next \
                                                                                         address");
            }
        }
    }

    /// Stores the addresses in use if they differ from the file.
    pub(crate) async fn keep(&self, store: &Arc<Store>, names: &[RpkiName]) {
        let addresses = names
            .iter()
            .filter_map(|name| Some((name.endpoint.to_string(), name.address?)));
        let addresses: BTreeMap<String, IpAddr> = addresses.sorted_map();
        if addresses.is_empty() || self.state.lock().kept == addresses || !store.is_writable() {
            return;
        }
        let Ok(text) = serde_json::to_string_pretty(&addresses) else {
            return;
        };
        let store = Arc::clone(store);
        let done = blocking(move || store.keep(FILE, &text)).await;
        let mut state = self.state.lock();
        let begins = state.failing.edge(done.is_err()) == Some(true);
        match done {
            Ok(_) => state.kept = addresses,
            Err(error) if begins => {
                warn!(file = FILE, error = %chain(&error), "RPKI server addresses not saved");
            }
            Err(_) => {}
        }
    }
}

impl State {
    /// Updates the set of silent servers. Returns those whose next address is due.
    fn silent_for_long(&mut self, silent: BTreeSet<Endpoint>, now: Instant) -> Vec<Endpoint> {
        self.silent.retain(|endpoint, _| silent.contains(endpoint));
        let mut due = Vec::new();
        for endpoint in silent {
            let silence = self.silent.entry(endpoint.clone()).or_insert(Silence {
                since: now,
                moves: 0,
            });
            if silence.is_over(now) {
                *silence = Silence {
                    since: now,
                    moves: silence.moves.saturating_add(1),
                };
                due.push(endpoint);
            }
        }
        due
    }
}

/// The servers with host names.
fn named(policy: &RoutingPolicySpec) -> BTreeSet<Endpoint> {
    let endpoints = policy.rpki.servers.iter().map(RpkiServer::endpoint);
    endpoints
        .filter(|endpoint| matches!(endpoint.host, Host::Name(_)))
        .sorted_set()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn saved_rpki_address_is_used_at_once_unless_broken() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store
            .keep(FILE, r#"{"rpki.nowhere.invalid:8282": "fd42::1"}"#)
            .unwrap();
        let (servers, _work) = RpkiServers::kept(&store);
        let known = servers.known();
        let address = known[&endpoint("rpki.nowhere.invalid:8282")].address;
        assert_eq!(address, Some("[fd42::1]:8282".parse().unwrap()));
        store.keep(FILE, "{").unwrap();
        assert!(RpkiServers::kept(&store).0.known().is_empty());
    }

    #[test]
    fn a_silent_server_is_tried_elsewhere_at_ever_greater_intervals() {
        let (mut state, server) = (State::default(), endpoint("rpki.dn42:8282"));
        let start = Instant::now();
        let moves = (0..100_000).step_by(10).filter(|second| {
            let now = start + Duration::from_secs(*second);
            !state
                .silent_for_long([server.clone()].into(), now)
                .is_empty()
        });
        let moves: Vec<u64> = moves.collect();
        assert_eq!(moves, [180, 720, 2340, 7200, 21_780, 65_520]);
        // After an answer, the wait starts again.
        let late = start + Duration::from_secs(200_000);
        assert!(state.silent_for_long(BTreeSet::new(), late).is_empty());
        assert!(
            state
                .silent_for_long([server.clone()].into(), late)
                .is_empty()
        );
        assert!(
            !state
                .silent_for_long([server].into(), late + RPKI_SILENCE)
                .is_empty()
        );
    }
}
