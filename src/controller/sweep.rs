//! The regular look at everything. Not every change is announced: up to 100 objects are observed in full at each tick. With
//! more, most ticks read only WireGuard of the kernel, and one within a minute reads everything. Objects whose observed state
//! changed since the last tick are due, and of the others a share, so that each has its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pass::{Observation, Reads};
use crate::desired::Desired;
use crate::model::ObjectKey;
use crate::observed::bird::{BirdState, LiveTree, Protocol, ProtocolState};
use crate::util::sorted::Sorted as _;

/// Number of objects that have their turn at one tick without a change, at least.
const SHARE: usize = 100;
/// Number of ticks within which every object has its turn.
const TURNS: usize = 6;

/// The state of the regular look.
#[derive(Default)]
pub(super) struct Sweep {
    /// What the last tick observed.
    last: Option<Observation>,
    ticks: usize,
    /// Whether the next observation is compared with the last one.
    is_due: bool,
    /// BIRD's files as last observed.
    files: Option<Arc<LiveTree>>,
}

impl Sweep {
    /// Begins a tick. Returns the keys that have their turn, and what is read of the kernel: once in all turns everything,
    /// for the few changes of links that the kernel does not announce.
    pub(super) fn tick(&mut self, desired: &Desired) -> (Vec<ObjectKey>, Reads) {
        let all = desired.keys();
        let turns = all.len().div_ceil(SHARE).clamp(1, TURNS);
        self.ticks += 1;
        self.is_due = turns > 1;
        let turn = self.ticks % turns;
        let has_turn = |(index, key): (usize, ObjectKey)| {
            let is_shared = matches!(key, ObjectKey::Router | ObjectKey::Firewall);
            (is_shared || index % turns == turn).then_some(key)
        };
        let reads = match turn {
            0 => Reads::Everything,
            _ => Reads::WireGuard,
        };
        let keys = all.into_iter().enumerate().filter_map(has_turn);
        (keys.collect(), reads)
    }

    /// Returns the keys whose observed state changed between the last ticks, if this is the observation of a tick.
    pub(super) fn changed(&mut self, desired: &Desired, now: &Observation) -> BTreeSet<ObjectKey> {
        let is_seen = |last: &Observation| match (&last.kernel, &now.kernel) {
            (Ok(last), Ok(now)) => Arc::ptr_eq(last, now),
            _ => false,
        };
        let is_new = now.of_all && !self.last.as_ref().is_some_and(is_seen);
        if !is_new || !std::mem::take(&mut self.is_due) {
            return BTreeSet::new();
        }
        let changed = match &self.last {
            Some(last) => changed(desired, last, now),
            None => BTreeSet::new(),
        };
        self.last = Some(Observation {
            kernel: now.kernel.clone(),
            bird: Arc::clone(&now.bird),
            // Not compared, and the records of all objects are large.
            applied: Ok(BTreeMap::new()),
            ..*now
        });
        changed
    }

    /// Returns whether a file changed that the check of every session's text depends on: a shared one, or an operator's.
    pub(super) fn is_shared_text_new(&mut self, bird: &BirdState) -> bool {
        if bird.files_unknown().is_some() {
            return false;
        }
        let last = self.files.replace(Arc::clone(&bird.live));
        last.is_some_and(|last| {
            !Arc::ptr_eq(&last, &bird.live)
                && (&last.tree.base, &last.tree.foreign, &last.main)
                    != (
                        &bird.live.tree.base,
                        &bird.live.tree.foreign,
                        &bird.live.main,
                    )
        })
    }
}

fn changed(desired: &Desired, before: &Observation, now: &Observation) -> BTreeSet<ObjectKey> {
    let (Ok(old), Ok(new)) = (&before.kernel, &now.kernel) else {
        return desired.keys();
    };
    if !is_same_bird(&before.bird, &now.bird) {
        return desired.keys();
    }
    let links = new.links.changed_since(&old.links);
    let links = links.filter_map(|name| desired.key_of(name));
    let is_other = !Arc::ptr_eq(&before.bird.protocols, &now.bird.protocols);
    let protocols = is_other.then(|| changed_protocols(&before.bird, &now.bird));
    let protocols = protocols.into_iter().flatten();
    let protocols = protocols.filter_map(|name| desired.owners.protocols.get(name).cloned());
    links.chain(protocols).sorted_set()
}

/// Compares everything but the protocols.
fn is_same_bird(a: &BirdState, b: &BirdState) -> bool {
    let versions = |state: &BirdState| (state.running, state.installed);
    let flags = |state: &BirdState| (state.loaded, state.unread);
    versions(a) == versions(b)
        && flags(a) == flags(b)
        && (&a.down, &a.silent, &a.files_error) == (&b.down, &b.silent, &b.files_error)
        && a.babel == b.babel
        && a.live == b.live
}

/// Returns the names of protocols that are new, gone, or in another state.
fn changed_protocols<'a>(
    before: &'a BirdState,
    now: &'a BirdState,
) -> impl Iterator<Item = &'a String> {
    let other = |of: &'a BirdState, than: &'a BirdState| {
        let is_other = |protocol: &&'a Protocol| {
            let found = than.protocol(&protocol.name);
            found.is_none_or(|found| state_of(found) != state_of(protocol))
        };
        of.protocols.iter().filter(is_other).map(|it| &it.name)
    };
    other(now, before).chain(other(before, now))
}

fn state_of(protocol: &Protocol) -> (&ProtocolState, Option<i64>, &str) {
    (&protocol.state, protocol.since, &protocol.info)
}
