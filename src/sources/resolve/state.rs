//! The state of every name, and the address that each endpoint uses. It has neither a clock nor
//! lookups: both are arguments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::choose::choose;
use super::{Resolution, ResolveError};
use crate::intervals::{ADDRESS_GOOD_AGAIN, ADDRESS_SILENCE, LOOKUP_PAUSE, LOOKUP_RETRY};
use crate::model::{Endpoint, Host};
use crate::util::backoff::Backoff;
use crate::util::sorted::Sorted as _;

#[derive(Debug, Default)]
pub(super) struct State {
    names: BTreeMap<String, Name>,
    endpoints: HashMap<Endpoint, Option<Choice>>,
    /// Addresses from an earlier run of endpoints that are not watched yet.
    remembered: BTreeMap<Endpoint, IpAddr>,
    changed: BTreeSet<String>,
}

/// One name.
#[derive(Debug)]
struct Name {
    /// Addresses of the last good answer.
    candidates: Vec<IpAddr>,
    error: Option<String>,
    at: Option<Timestamp>,
    /// When to look up next.
    due: Instant,
    started: Option<Instant>,
    running: bool,
    failures: u32,
    /// Whether the last lookup reached its deadline.
    hangs: bool,
}

/// The address that an endpoint uses.
#[derive(Debug)]
struct Choice {
    address: IpAddr,
    since: Instant,
    /// Number of moves since it was last good.
    moves: u32,
    complained: Instant,
}

impl Choice {
    fn new(address: IpAddr, now: Instant) -> Self {
        Self {
            address,
            since: now,
            moves: 0,
            complained: now,
        }
    }

    /// Returns how much longer than [`ADDRESS_SILENCE`] this address is kept, so that the endpoint of a dead peer
    /// does not move from address to address twice a minute indefinitely.
    fn extra_patience(&self, candidates: usize) -> Duration {
        let rounds = self.moves / u32::try_from(candidates.max(1)).unwrap_or(u32::MAX);
        Backoff::new(ADDRESS_SILENCE, ADDRESS_SILENCE * 16).wait(rounds) - ADDRESS_SILENCE
    }
}

/// A lookup to make.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) name: String,
    pub(super) hangs: bool,
}

impl State {
    pub(super) fn watch<'a>(
        &mut self,
        endpoints: impl IntoIterator<Item = &'a Endpoint>,
        now: Instant,
    ) {
        let mut known = std::mem::take(&mut self.endpoints);
        let mut wanted = BTreeSet::new();
        for endpoint in endpoints {
            let Host::Name(name) = &endpoint.host else {
                continue;
            };
            if self.endpoints.contains_key(endpoint) {
                continue;
            }
            wanted.insert(name.clone());
            self.names
                .entry(name.clone())
                .or_insert_with(|| Name::new(now));
            let remembered = self
                .remembered
                .remove(endpoint)
                .map(|address| Choice::new(address, now));
            let choice = known.remove(endpoint).flatten().or(remembered);
            self.endpoints.insert(endpoint.clone(), choice);
        }
        self.names.retain(|name, _| wanted.contains(name));
        self.changed.retain(|name| wanted.contains(name));
        for name in wanted {
            self.choose_all(&name, now);
        }
    }

    pub(super) fn remember(&mut self, known: BTreeMap<Endpoint, IpAddr>) {
        self.remembered = known;
    }

    pub(super) fn all(&self) -> BTreeMap<Endpoint, Resolution> {
        let endpoints = self.endpoints.keys().chain(self.remembered.keys());
        endpoints
            .map(|endpoint| (endpoint.clone(), self.current(endpoint)))
            .sorted_map()
    }

    pub(super) fn addresses(&self) -> BTreeMap<Endpoint, BTreeSet<IpAddr>> {
        let addresses = |(endpoint, choice): (&Endpoint, &Option<Choice>)| {
            let Host::Name(host) = &endpoint.host else {
                return None;
            };
            let answer = self.names.get(host).map(|name| name.candidates.clone());
            let used = choice.as_ref().map(|choice| choice.address);
            let all = answer.unwrap_or_default().into_iter().chain(used);
            let all = all.map(|address| address.to_canonical()).sorted_set();
            Some((endpoint.clone(), all))
        };
        let remembered = self.remembered.iter();
        let remembered = remembered
            .map(|(endpoint, address)| (endpoint.clone(), [address.to_canonical()].into()));
        let watched = self.endpoints.iter().filter_map(addresses);
        remembered.chain(watched).sorted_map()
    }

    pub(super) fn current(&self, endpoint: &Endpoint) -> Resolution {
        let choice = self.endpoints.get(endpoint).and_then(Option::as_ref);
        let address = choice
            .map(|choice| choice.address)
            .or(self.remembered.get(endpoint).copied());
        let name = match &endpoint.host {
            Host::Name(name) => self.names.get(name),
            Host::Address(_) => None,
        };
        Resolution {
            address: address.map(|address| SocketAddr::new(address, endpoint.port.get())),
            error: name.and_then(|name| name.error.clone()),
            at: name.and_then(|name| name.at),
        }
    }

    /// Makes the name due when the peer has just become silent. Returns whether it has. A continuing silence
    /// does not count: a thousand dead peers must not query the name server a hundred times a second.
    pub(super) fn silent(&mut self, endpoint: &Endpoint, now: Instant) -> bool {
        let Host::Name(host) = &endpoint.host else {
            return false;
        };
        let Some(Some(choice)) = self.endpoints.get(endpoint) else {
            return false;
        };
        let Some(name) = self.names.get_mut(host) else {
            return false;
        };
        if now.saturating_duration_since(choice.complained) < ADDRESS_SILENCE {
            return false;
        }
        let earliest = name.started.map_or(now, |started| started + LOOKUP_PAUSE);
        name.due = name.due.min(earliest.max(now));
        true
    }

    /// Moves the endpoint to the next address when the current one has had its time. Returns whether it moved.
    pub(super) fn next(&mut self, endpoint: &Endpoint, now: Instant) -> bool {
        let Host::Name(host) = &endpoint.host else {
            return false;
        };
        let Some(candidates) = self.names.get(host).map(|name| &name.candidates) else {
            return false;
        };
        let Some(Some(choice)) = self.endpoints.get_mut(endpoint) else {
            return false;
        };
        if now.saturating_duration_since(choice.complained) >= ADDRESS_GOOD_AGAIN {
            choice.moves = 0;
        }
        choice.complained = now;
        let stale_since = choice.since + choice.extra_patience(candidates.len());
        match choose(candidates, Some(choice.address), Some(stale_since), now) {
            Some(address) if address != choice.address => {
                *choice = Choice {
                    address,
                    since: now,
                    moves: choice.moves + 1,
                    complained: now,
                };
                self.changed.insert(host.clone());
                true
            }
            _ => false,
        }
    }

    /// Returns the lookups that are due; each counts as running until [`State::record`].
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Due> {
        let due = self
            .names
            .iter_mut()
            .filter(|(_, name)| !name.running && name.due <= now);
        due.map(|(text, name)| {
            (name.running, name.started) = (true, Some(now));
            Due {
                name: text.clone(),
                hangs: name.hangs,
            }
        })
        .collect()
    }

    /// Returns when the next lookup is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.names
            .values()
            .filter(|name| !name.running)
            .map(|name| name.due)
            .min()
    }

    /// Records the result of a lookup. Returns whether anything changed.
    pub(super) fn record(
        &mut self,
        host: &str,
        answer: Result<Vec<IpAddr>, ResolveError>,
        (now, at): (Instant, Timestamp),
        interval: Duration,
    ) -> bool {
        // A missing name is no longer watched.
        let Some(name) = self.names.get_mut(host) else {
            return false;
        };
        let error_before = name.error.is_some();
        (name.running, name.at) = (false, Some(at));
        name.take(answer, now, interval);
        if error_before != name.error.is_some() {
            self.changed.insert(host.to_owned());
        }
        self.choose_all(host, now);
        self.changed.contains(host)
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    /// Selects again for every endpoint of the name; none is moved without need.
    fn choose_all(&mut self, host: &str, now: Instant) {
        let Some(candidates) = self.names.get(host).map(|name| &name.candidates) else {
            return;
        };
        let of_host =
            |endpoint: &Endpoint| matches!(&endpoint.host, Host::Name(name) if name == host);
        for (_, choice) in self
            .endpoints
            .iter_mut()
            .filter(|(endpoint, _)| of_host(endpoint))
        {
            let current = choice.as_ref().map(|choice| choice.address);
            let chosen = choose(candidates, current, None, now);
            if chosen.is_some() && chosen != current {
                *choice = chosen.map(|address| Choice::new(address, now));
                self.changed.insert(host.to_owned());
            }
        }
    }
}

impl Name {
    fn new(now: Instant) -> Self {
        Self {
            candidates: Vec::new(),
            error: None,
            at: None,
            due: now,
            started: None,
            running: false,
            failures: 0,
            hangs: false,
        }
    }

    fn take(
        &mut self,
        answer: Result<Vec<IpAddr>, ResolveError>,
        now: Instant,
        interval: Duration,
    ) {
        self.hangs = matches!(answer, Err(ResolveError::Deadline { .. }));
        match answer {
            Ok(candidates) => {
                (self.candidates, self.error, self.failures) = (candidates, None, 0);
                self.due = now + interval;
            }
            Err(error) => {
                self.error = Some(error.to_string());
                // Retry soon: after a boot the network may be ready within seconds.
                self.due = now + Backoff::new(LOOKUP_RETRY, interval).wait(self.failures);
                self.failures = self.failures.saturating_add(1);
            }
        }
    }
}
