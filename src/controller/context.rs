use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::conveniences::Conveniences;
use super::enabled::Enabled;
use super::error::{ReconcileError, RestartError};
use super::firewall::FirewallKeeper;
use super::first_lists::FirstLists;
use super::hint::Hint;
use super::observe::Observer;
use super::pass::{Observation, Reads, record_of};
use super::permits::Permits;
use super::planning::KeyObservation;
use super::pulse::Pulse;
use super::records::{Records, StatusWrite, Statuses};
use super::reports::Reports;
use super::step_log::{LoggedStep, StepLog};
use super::sysctls::Sysctls;
use super::together::Group;
use crate::desired::{Desired, HeldChange, single};
use crate::document::{Condition, ConditionType, Kind, Phase, StatusBody};
use crate::intervals::{GIT_AT_WORK_CHECK, TREE_CHANGING_MAX};
use crate::kernel::source_towards;
use crate::model::{Endpoint, InterfaceName, ObjectKey, Uid};
use crate::ports::{Bird, Kernel};
use crate::sources::probe::{Prober, Target};
use crate::sources::resolve::Resolver;
use crate::store::{AppliedDocument, Place, Store, StoreError, Written};
use crate::util::task::blocking;

/// Everything that a reconcile works with.
pub struct Context {
    /// The state directory.
    pub store: Arc<Store>,
    /// The kernel, for changes.
    pub kernel: Arc<dyn Kernel>,
    /// The kernel and BIRD, for observations.
    pub observer: Observer,
    /// BIRD, for changes.
    pub committer: Arc<dyn Bird>,
    /// The agent's table in nftables.
    pub firewall: FirewallKeeper,
    /// Resolver of endpoint names.
    pub resolver: Resolver,
    /// Round-trip times.
    pub prober: Prober,
    /// Start of this run of the agent.
    pub begun: Instant,
    /// Everything that is wanted.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// The lists that the first pass of a new router waits for.
    pub first_lists: FirstLists,
    /// Reports to the Control Plane.
    pub reports: Arc<Reports>,
    /// Applied records that wait to be written.
    pub records: Records,
    /// Statuses and reports that wait to be written.
    pub status_writes: Statuses,
    /// Steps that ran and are not yet in the history.
    pub step_log: StepLog,
    /// Changes that took effect, for the history.
    pub applied_changes: mpsc::UnboundedSender<AppliedChange>,
    /// The last status of every object.
    pub statuses: StatusCache,
    /// Progress of the runner.
    pub pulse: Pulse,
    /// Objects to recreate, and the requests that wait for it.
    pub restarts: Restarts,
    /// Time at which each protocol that a command had disabled was last enabled.
    pub enabled: Enabled,
    /// Permits for the kernel and the state directory.
    pub permits: Permits,
    /// Sources of the announcements that an object may have changed.
    pub announced: Announced,
    /// State of the node's conveniences.
    pub conveniences: Conveniences,
    /// Sysctls that could not be set.
    pub sysctls: Sysctls,
    /// Links with the agent's mark and without a record whose removal is held, from the last observation.
    pub unrecorded: Unrecorded,
    /// Channel on which a reconcile asks for a reconcile of another key, while the agent runs.
    pub hints: Mutex<Option<mpsc::UnboundedSender<Hint>>>,
}

/// Links with the agent's mark and without a record whose removal is held: uid and reason.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<Vec<(Uid, String)>>);

impl Unrecorded {
    /// Replaces the list.
    pub fn set(&self, held: Vec<(Uid, String)>) {
        *self.0.lock() = held;
    }

    fn all(&self) -> Vec<(Uid, String)> {
        let held = self.0.lock();
        held.clone()
    }
}

/// Source of the announcement that an object may have changed, for the line that logs its repair.
#[derive(Debug, Default)]
pub struct Announced(Mutex<BTreeMap<ObjectKey, (&'static str, Instant)>>);

impl Announced {
    /// Records the source of an announcement.
    pub fn note(&self, key: ObjectKey, by: &'static str) {
        self.0.lock().insert(key, (by, Instant::now()));
    }

    /// Returns the source of the last announcement; without one, the periodic check found the change.
    pub fn take(&self, key: &ObjectKey) -> &'static str {
        let announced = self.0.lock().remove(key);
        announced.map_or("periodic check", |(by, _)| by)
    }

    /// Forgets an announcement that a reconcile has answered, because it says nothing about a later drift. An
    /// announcement that arrived after the reconcile began belongs to the next one.
    pub(super) fn forget(&self, key: &ObjectKey, begun: Instant) {
        let mut all = self.0.lock();
        if all.get(key).is_some_and(|(_, at)| *at <= begun) {
            all.remove(key);
        }
    }
}

/// Objects to recreate (`POST /restart`), and the requests that wait for it.
#[derive(Debug, Default)]
pub struct Restarts(Mutex<BTreeMap<ObjectKey, Vec<Waiter>>>);

/// A request that waits until an object has been recreated.
pub(super) type Waiter = tokio::sync::oneshot::Sender<Result<(), RestartError>>;

impl Restarts {
    /// Requests that an object is recreated, and returns the receiver of the result.
    pub fn ask(&self, key: ObjectKey) -> tokio::sync::oneshot::Receiver<Result<(), RestartError>> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.0.lock().entry(key).or_default().push(done);
        wait
    }

    /// Takes the requests that wait for an object; its next reconcile calls this.
    pub fn take(&self, key: &ObjectKey) -> Vec<Waiter> {
        self.0.lock().remove(key).unwrap_or_default()
    }
}

/// A change that took effect, with its steps and reasons, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedChange {
    pub key: ObjectKey,
    /// Files that the agent wrote to the state directory for the object; without a text, the file was removed.
    /// Empty where the steps ran for the records of other objects.
    pub files: Vec<(Place, Option<Arc<str>>)>,
    pub steps: Vec<LoggedStep>,
}

/// The last status of every object; the source of `/status`, the metrics and the reports.
#[derive(Debug, Default)]
pub struct StatusCache {
    statuses: Mutex<BTreeMap<ObjectKey, Arc<StatusBody>>>,
    /// Objects whose status file is older than their status.
    unwritten: Mutex<BTreeSet<ObjectKey>>,
    /// Number of changes of what is logged.
    logged_changes: watch::Sender<u64>,
}

impl StatusCache {
    pub fn set(&self, key: ObjectKey, status: StatusBody) {
        let mut statuses = self.statuses.lock();
        if statuses.get(&key).map(|last| logged(last)) != Some(logged(&status)) {
            self.logged_changes.send_modify(|number| *number += 1);
        }
        statuses.insert(key, Arc::new(status));
    }

    /// Forgets an object.
    pub fn remove(&self, key: &ObjectKey) {
        if self.statuses.lock().remove(key).is_some() {
            self.logged_changes.send_modify(|number| *number += 1);
        }
        self.set_unwritten(key, false);
    }

    /// Returns a number that changes with every change that is logged.
    pub(super) fn logged_changes(&self) -> u64 {
        *self.logged_changes.borrow()
    }

    /// Returns a receiver of the number of changes that are logged.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.logged_changes.subscribe()
    }

    /// Records whether the status file of an object is older than its status, because it could not be written.
    pub fn set_unwritten(&self, key: &ObjectKey, unwritten: bool) {
        let mut keys = self.unwritten.lock();
        if unwritten {
            keys.insert(key.clone());
        } else {
            keys.remove(key);
        }
    }

    /// Returns whether the status file of an object is older than its status.
    pub fn is_unwritten(&self, key: &ObjectKey) -> bool {
        self.unwritten.lock().contains(key)
    }

    /// Returns every status.
    pub fn all(&self) -> BTreeMap<ObjectKey, Arc<StatusBody>> {
        self.statuses.lock().clone()
    }

    /// Returns the phase of every object.
    pub fn phases(&self) -> Vec<(ObjectKey, Phase)> {
        let statuses = self.statuses.lock();
        let phases = statuses
            .iter()
            .map(|(key, status)| (key.clone(), status.phase));
        phases.collect()
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<StatusBody>> {
        self.statuses.lock().get(key).map(Arc::clone)
    }
}

/// Returns what the log says of a status.
pub(super) fn logged(status: &StatusBody) -> (&[Condition], Option<Timestamp>) {
    let since = status.bgp.as_ref().and_then(|bgp| bgp.since);
    (&status.conditions, since)
}

impl Context {
    /// Returns the current desired state.
    pub fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.desired.borrow())
    }

    /// Returns every held change: of documents, and of links without a record.
    pub fn held(&self) -> Vec<HeldChange> {
        let unrecorded = self.unrecorded.all().into_iter();
        let unrecorded = unrecorded.map(|(uid, reason)| HeldChange::unrecorded(uid, reason));
        self.desired()
            .held()
            .into_iter()
            .chain(unrecorded)
            .collect()
    }

    /// Returns what an object of this desired state is compared with.
    ///
    /// # Errors
    /// When the kernel or the state directory could not be read; then nothing can be compared.
    pub fn look(
        &self,
        desired: &Desired,
        seen: &Observation,
        key: &ObjectKey,
        endpoint: Option<&Endpoint>,
    ) -> Result<KeyObservation, ReconcileError> {
        let applied = seen.applied.as_ref();
        let applied = applied.map_err(|error| ReconcileError::Store(Arc::clone(error)))?;
        let kernel = seen.kernel.clone().map_err(ReconcileError::Kernel)?;
        let known = endpoint.map(|endpoint| {
            let known = self.resolver.current(endpoint);
            let is_compared = |it: &SocketAddr| desired.has_compared(endpoint, it.ip());
            (known.address.filter(is_compared), known.error)
        });
        let (resolved, name_error) = known.unwrap_or_default();
        Ok(KeyObservation {
            kernel,
            bird: Arc::clone(&seen.bird),
            applied: applied.get(key).cloned(),
            resolved,
            name_error,
            source: resolved.and_then(|address| source_towards(address.ip())),
            now: seen.now,
        })
    }

    /// Observes for these keys, not earlier than `not_before`.
    pub(super) async fn observe(
        &self,
        keys: Vec<ObjectKey>,
        not_before: Instant,
        reads: Reads,
    ) -> Observation {
        let begun = Instant::now();
        let kernel = async {
            match (reads, self.observer.last_kernel()) {
                (Reads::Nothing, Some(last)) => Ok(last),
                (Reads::WireGuard, _) => self.observer.wireguard(not_before).await,
                _ => self.observer.kernel(not_before).await,
            }
        };
        let (kernel, bird, applied) =
            tokio::join!(kernel, self.observer.bird(not_before), self.applied(keys),);
        Observation::new(begun, kernel, bird, applied)
    }

    /// Observes of the kernel these links alone: everything else of it is as last observed. BIRD is observed not earlier than
    /// `not_before`; without it, BIRD too is as last observed.
    pub(super) async fn observe_links(
        &self,
        keys: Vec<ObjectKey>,
        names: BTreeSet<InterfaceName>,
        not_before: Option<Instant>,
    ) -> Observation {
        let begun = Instant::now();
        let bird = async {
            match not_before {
                Some(not_before) => self.observer.bird(not_before).await,
                None => self.observer.known_bird(),
            }
        };
        let links = self.observer.links(&names);
        let (links, bird, applied) = tokio::join!(links, bird, self.applied(keys.clone()));
        let kernel = match links {
            Ok(Some(kernel)) if not_before.is_some() || !bird.unread => Ok(kernel),
            Err(error) => Err(error),
            Ok(_) => return self.observe(keys, begun, Reads::Everything).await,
        };
        Observation {
            of_all: false,
            ..Observation::new(begun, kernel, bird, applied)
        }
    }

    /// Returns what was last observed, for one key, and observes nothing. `None` before the first observation, and
    /// while the kernel cannot be read.
    pub(crate) async fn last_observation(&self, key: &ObjectKey) -> Option<Observation> {
        let kernel = Ok(self.observer.last_kernel()?);
        let bird = self.observer.known_bird();
        let applied = self.applied(vec![key.clone()]).await;
        Some(Observation::new(Instant::now(), kernel, bird, applied))
    }

    /// Reads the applied records of these keys. A status without a file is written by the key's run.
    async fn applied(
        &self,
        keys: Vec<ObjectKey>,
    ) -> Result<BTreeMap<ObjectKey, AppliedDocument>, Arc<StoreError>> {
        let recorded = keys.into_iter().filter_map(|key| {
            let (kind, name) = record_of(&key)?;
            Some((key, kind, name))
        });
        let recorded: Vec<_> = recorded.collect();
        let mut reported = recorded.clone();
        if recorded.iter().any(|(key, ..)| *key == ObjectKey::Router) {
            let (kind, name) = (Kind::RoutingPolicy, single(Kind::RoutingPolicy));
            reported.push((ObjectKey::Policy, kind, name));
        }
        let read = self.disk(move |store| {
            reported.retain(|(_, kind, name)| store.lacks_status(*kind, name));
            Ok((store.read_all_applied(recorded), reported))
        });
        let (applied, lacking) = read.await.map_err(Arc::new)?;
        for (key, ..) in lacking {
            self.statuses.set_unwritten(&key, true);
        }
        Ok(applied)
    }

    /// Runs work on the state directory on a thread that may block.
    ///
    /// # Errors
    /// The store's error.
    pub async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (store, before) = (Arc::clone(&self.store), self.store.trouble().is_some());
        let _turn = self.permits.disk().await;
        let done = blocking(move || work(&store)).await;
        if !before && self.store.trouble().is_some() {
            // The task that builds desired states logs the error and retries sooner.
            self.reports.reload();
        }
        done
    }

    /// As [`Self::disk`], for work that writes to the tree: waits for another git that changes the tree before it takes
    /// a turn, so that a git that hangs delays no other work.
    ///
    /// # Errors
    /// The store's error.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.git_at_rest().await;
        self.disk(work).await
    }

    /// Writes an applied record, together with those that are ready at about the same time.
    ///
    /// # Errors
    /// The store's error; then no step of the object may be made.
    pub async fn write_applied(&self, record: AppliedDocument) -> Result<Written, StoreError> {
        let write = |group: Group<_, _>| {
            self.write(move |store| {
                group.write_records(store);
                Ok(())
            })
        };
        let lost = || Err(StoreError::Bug("an applied record without a result".into()));
        let written = self.records.ask(record, write).await;
        written.unwrap_or_else(lost)
    }

    /// Writes a status and keeps a report, together with those that are ready at about the same time.
    ///
    /// # Errors
    /// The store's error, for the status.
    pub async fn write_status(&self, write: StatusWrite) -> Result<(), StoreError> {
        let all = |group: Group<_, _>| {
            let reports = Arc::clone(&self.reports);
            self.disk(move |store| {
                group.write_statuses(store, &reports);
                Ok(())
            })
        };
        let lost = || Err(StoreError::Bug("a status without a result".into()));
        let written = self.status_writes.ask(write, all).await;
        written.unwrap_or_else(lost)
    }

    /// Waits while another git changes the tree of the state directory, with a limit for a git that hangs.
    pub async fn git_at_rest(&self) {
        let begun = Instant::now();
        while begun.elapsed() < TREE_CHANGING_MAX {
            let store = Arc::clone(&self.store);
            if !blocking(move || store.is_git_at_work()).await {
                return;
            }
            tokio::time::sleep(GIT_AT_WORK_CHECK).await;
        }
    }

    /// Returns the position of HEAD while Git has moved the tree of the state directory.
    pub async fn moved(&self) -> Option<String> {
        let store = Arc::clone(&self.store);
        blocking(move || store.moved()).await
    }

    /// Returns the reason why the history cannot be written.
    pub fn history_problem(&self) -> Option<String> {
        self.conveniences.problem(ConditionType::HistoryRecorded)
    }

    /// Marks a key as due for a reconcile.
    pub fn hint(&self, key: ObjectKey) {
        if let Some(hints) = &*self.hints.lock() {
            let _ = hints.send(Hint::key(key));
        }
    }

    /// Returns the last measured round-trip time to a peer in milliseconds, and the share of lost echoes: until the first
    /// probe of this run, those of the status before, so that a restart changes no status.
    pub fn probed(
        &self,
        target: Option<&Target>,
        before: &StatusBody,
    ) -> (Option<f64>, Option<f64>) {
        let Some(target) = target else {
            return (None, None);
        };
        match self.prober.current(target) {
            Some(probe) => (probe.rtt_ms, Some(f64::from(probe.loss))),
            None if self.prober.is_waiting(target) => (before.rtt_ms, before.loss),
            None => (None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn announcement_is_forgotten_once_a_round_answered_it() {
        let announced = Announced::default();
        announced.note(ObjectKey::Router, "kernel event");
        announced.forget(&ObjectKey::Router, Instant::now());
        assert_eq!(announced.take(&ObjectKey::Router), "periodic check");
        let begun = Instant::now();
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        announced.note(ObjectKey::Router, "kernel event");
        announced.forget(&ObjectKey::Router, begun);
        assert_eq!(announced.take(&ObjectKey::Router), "kernel event");
    }
}
