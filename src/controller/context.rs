use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::bird_work::BirdWork;
use super::conveniences::Conveniences;
use super::enabled::Enabled;
use super::firewall::FirewallKeeper;
use super::observe::{BirdState, Observer};
use super::planning::{Key, View};
use super::pulse::Pulse;
use super::reports::Reports;
use super::runner::Hint;
use super::sysctls::Sysctls;
use super::taken::{Taken, TakenStep};
use super::turns::Turns;
use super::world::{HeldChange, World};
use crate::document::{ConditionType, Kind, StatusBody};
use crate::kernel::source_towards;
use crate::model::{Endpoint, Host, ObjectName, Uid};
use crate::plan::kernel_view::KernelView;
use crate::ports::{Bird, Kernel};
use crate::probe::{Prober, Target};
use crate::resolve::Resolver;
use crate::status::{NameFacts, RouteFacts};
use crate::store::{AppliedDocument, Place, Store, StoreError};

/// What every reconcile works with.
pub struct Context {
    /// The state directory.
    pub store: Arc<Store>,
    /// The kernel, for changes.
    pub kernel: Arc<dyn Kernel>,
    /// The kernel and BIRD, for looks.
    pub observer: Observer,
    /// BIRD, for changes.
    pub committer: Arc<dyn Bird>,
    /// Our table in nftables.
    pub firewall: FirewallKeeper,
    /// Names of endpoints.
    pub resolver: Resolver,
    /// Round-trip times.
    pub prober: Prober,
    /// Everything that is wanted.
    pub world: watch::Receiver<Arc<World>>,
    /// What the Control Plane is told.
    pub reports: Reports,
    /// Steps that were taken and are not yet in the history.
    pub taken: Taken,
    /// What came into force, for the history.
    pub journal: mpsc::UnboundedSender<Entry>,
    /// The last status of every object.
    pub board: Board,
    /// Progress of the runner.
    pub pulse: Pulse,
    /// Seconds between keepalives of backbone tunnels.
    pub keepalive: u16,
    /// Objects that are to be made anew, and who waits for it.
    pub restarts: Restarts,
    /// BIRD's part of reconciles that are not waited for.
    pub bird_work: BirdWork,
    /// When each protocol was enabled last that a command had disabled.
    pub enabled: Enabled,
    /// Turns at the kernel and the state directory.
    pub turns: Turns,
    /// What announced that an object may have changed.
    pub announced: Announced,
    /// How the node's conveniences are.
    pub conveniences: Conveniences,
    /// The sysctls that could not be set.
    pub sysctls: Sysctls,
    /// Links with our mark and without a record whose removal is held, as the last look found them.
    pub unrecorded: Unrecorded,
    /// Where a reconcile says that another key must be looked at, while the agent runs.
    pub hints: Mutex<Option<mpsc::UnboundedSender<Hint>>>,
}

/// Links with our mark and without a record whose removal is held: uid and reason.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<Vec<(Uid, String)>>);

impl Unrecorded {
    /// Replaces the list.
    pub fn set(&self, held: Vec<(Uid, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn all(&self) -> Vec<(Uid, String)> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}

/// What announced that an object may have changed, for the line that logs its repair.
#[derive(Debug, Default)]
pub struct Announced(Mutex<BTreeMap<Key, (&'static str, Instant)>>);

impl Announced {
    /// Notes the source of an announcement.
    pub fn note(&self, key: Key, by: &'static str) {
        self.lock().insert(key, (by, Instant::now()));
    }

    /// The source of the last announcement; without one, the periodic check found it.
    pub fn take(&self, key: &Key) -> &'static str {
        let announced = self.lock().remove(key);
        announced.map_or("periodic check", |(by, _)| by)
    }

    /// Forgets an announcement that a round has answered: it says nothing of a later drift. One that came after the
    /// round had begun is for the next one.
    pub(super) fn forget(&self, key: &Key, begun: Instant) {
        let mut all = self.lock();
        if all.get(key).is_some_and(|(_, at)| *at <= begun) {
            all.remove(key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, (&'static str, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Objects that are to be made anew (`POST /restart`), and who waits for it.
#[derive(Debug, Default)]
pub struct Restarts(Mutex<BTreeMap<Key, Vec<Waiter>>>);

type Waiter = tokio::sync::oneshot::Sender<Result<(), String>>;

impl Restarts {
    /// Asks for an object to be made anew, and gives what to wait for.
    pub fn ask(&self, key: Key) -> tokio::sync::oneshot::Receiver<Result<(), String>> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.lock().entry(key).or_default().push(done);
        wait
    }

    /// Those who wait for an object; asked for by its next reconcile.
    pub fn take(&self, key: &Key) -> Vec<Waiter> {
        self.lock().remove(key).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Vec<Waiter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that came into force, with its steps and reasons, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub key: Key,
    /// What the agent put into the state directory for it, or, where there is no text, took away. Empty
    /// where steps were taken for what is recorded of other objects.
    pub files: Vec<(Place, Option<String>)>,
    /// The steps, each with its reason.
    pub steps: Vec<TakenStep>,
}

/// The last status of every object; what `/status`, the metrics and the reports are made from.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Key, StatusBody>>, Mutex<BTreeSet<Key>>);

impl Board {
    /// Remembers a status.
    pub fn set(&self, key: Key, status: StatusBody) {
        self.lock().insert(key, status);
    }

    /// Forgets an object.
    pub fn remove(&self, key: &Key) {
        self.lock().remove(key);
        self.set_unwritten(key, false);
    }

    /// Remembers whether the file of an object's status is older than its status, because it could not be
    /// written.
    pub fn set_unwritten(&self, key: &Key, unwritten: bool) {
        let mut keys = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if unwritten {
            keys.insert(key.clone());
        } else {
            keys.remove(key);
        }
    }

    /// Whether the file of an object's status is older than its status.
    pub fn is_unwritten(&self, key: &Key) -> bool {
        self.1
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(key)
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<Key, StatusBody> {
        self.lock().clone()
    }

    /// The status of one object.
    pub fn get(&self, key: &Key) -> Option<StatusBody> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, StatusBody>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at everything that a key is compared with.
#[derive(Clone)]
pub struct Look {
    /// The kernel.
    pub kernel: Arc<KernelView>,
    /// BIRD.
    pub bird: Arc<BirdState>,
    /// What is in force.
    pub applied: Option<AppliedDocument>,
    /// The peer's address.
    pub resolved: Option<std::net::SocketAddr>,
    /// Why the name of the peer's endpoint was not resolved the last time it was looked up.
    pub name_error: Option<String>,
    /// The address of ours that the kernel sends from to it.
    pub source: Option<std::net::IpAddr>,
    /// When this was.
    pub now: Timestamp,
}

impl Look {
    /// What is known of the endpoint's name, when it has one.
    pub fn name(&self, endpoint: Option<&Endpoint>) -> Option<NameFacts<'_>> {
        matches!(endpoint?.host, Host::Name(_)).then_some(NameFacts {
            address: self.resolved,
            error: self.name_error.as_deref(),
        })
    }

    /// Whether the kernel has a route to the peer, where its address is known.
    pub fn route(&self) -> Option<RouteFacts> {
        let to = self.resolved?.ip();
        let found = self.source.is_some();
        Some(RouteFacts { to, found })
    }

    /// For the planner.
    pub fn view(&self) -> View<'_> {
        View {
            kernel: &self.kernel,
            bird: &self.bird,
            applied: self.applied.as_ref(),
            resolved: self.resolved,
            source: self.source,
            now: self.now,
        }
    }
}

impl Context {
    /// The world of this moment.
    pub fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.borrow())
    }

    /// Every change that waits for approval: of documents, and of links without a record.
    pub fn held(&self) -> Vec<HeldChange> {
        let unrecorded = self.unrecorded.all().into_iter();
        let unrecorded = unrecorded.map(|(uid, reason)| HeldChange::unrecorded(uid, reason));
        self.world().held().into_iter().chain(unrecorded).collect()
    }

    /// Looks at everything that an object is compared with, not older than `not_before`.
    ///
    /// # Errors
    /// When the kernel or the state directory cannot be read; then nothing can be compared.
    pub async fn look(
        &self,
        object: Option<(Kind, &ObjectName)>,
        endpoint: Option<&Endpoint>,
        not_before: Instant,
    ) -> Result<Look, String> {
        let kernel = self
            .observer
            .kernel(not_before)
            .await
            .map_err(|error| crate::telemetry::chain(&*error))?;
        let bird = self.observer.bird(not_before).await;
        let applied = match object {
            Some((kind, name)) => {
                let name = name.clone();
                self.disk(move |store| Ok(store.read_applied(kind, &name)))
                    .await
                    .map_err(|e| crate::telemetry::chain(&e))?
            }
            None => None,
        };
        let known = endpoint.map(|endpoint| self.resolver.current(endpoint));
        let (resolved, name_error) =
            known.map_or((None, None), |known| (known.address, known.error));
        let source = resolved.and_then(|address| source_towards(address.ip()));
        Ok(Look {
            kernel,
            bird,
            applied,
            resolved,
            name_error,
            source,
            now: Timestamp::now(),
        })
    }

    /// Does something with the state directory on a thread that may block.
    ///
    /// # Errors
    /// What the store says.
    pub async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (store, before) = (Arc::clone(&self.store), self.store.trouble().is_some());
        let _turn = self.turns.disk().await;
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        if !before && self.store.trouble().is_some() {
            // Whoever makes worlds tells of it, and looks more often whether it has passed.
            self.reports.reload();
        }
        // The closure does not panic; the runtime is going down.
        done.unwrap_or_else(|_| Err(StoreError::interrupted()))
    }

    /// Why the history cannot be written.
    pub fn history_problem(&self) -> Option<String> {
        self.conveniences.problem(ConditionType::HistoryRecorded)
    }

    /// Says that a key must be looked at.
    pub fn hint(&self, key: Key) {
        if let Some(hints) = &*self.hints.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = hints.send(Hint::Key(key));
        }
    }

    /// The last measured round-trip time to a peer in milliseconds, and the share of lost echoes.
    pub fn probed(&self, target: Option<&Target>) -> (Option<f64>, Option<f64>) {
        let probe = target.and_then(|target| self.prober.current(target));
        probe.map_or((None, None), |probe| {
            (probe.rtt_ms, Some(f64::from(probe.loss)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn announcement_is_forgotten_once_a_round_answered_it() {
        let announced = Announced::default();
        announced.note(Key::Router, "kernel event");
        announced.forget(&Key::Router, Instant::now());
        assert_eq!(announced.take(&Key::Router), "periodic check");
        let begun = Instant::now();
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        announced.note(Key::Router, "kernel event");
        announced.forget(&Key::Router, begun);
        assert_eq!(announced.take(&Key::Router), "kernel event");
    }
}
