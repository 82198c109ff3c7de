//! State directory → world, on every hint of a change.
//!
//! | file | task |
//! |---|---|
//! | `maker` | combines the inputs of a world |
//! | `approval` | lifetime of approvals, and the guard's record |
//! | `drain` | records a drain before it is applied |
//! | `trial` | tests an operator's templates |

mod approval;
mod drain;
mod maker;
mod trial;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use maker::WorldMaker;
pub(super) use trial::test_templates;

use super::Parts;
use crate::controller::world::{Changed, endpoints};
use crate::controller::{Convenience, Hint, World, target};
use crate::document::{ConditionType, Kind};
use crate::intervals::{
    ANSWERS_GATHER, NAMES_WAIT, WATCH_RESTART, WORLD_TICK, WORLD_TROUBLED, WORLD_UNSETTLED,
};
use crate::model::{Endpoint, Host, ObjectKey, ObjectName};
use crate::store::{self, Area, Place, Snapshot, Store, StoreError};

/// Makes a world whenever something may have changed, until the agent stops.
pub(super) async fn run(
    parts: Arc<Parts>,
    hints: mpsc::UnboundedSender<Hint>,
    stop: CancellationToken,
) {
    *parts.context.hints.lock() = Some(hints.clone());
    let mut worlds = Worlds::new(Arc::clone(&parts), hints);
    loop {
        worlds.make().await;
        worlds.tell().await;
        if worlds.wait(&stop).await.is_break() {
            break;
        }
    }
    *parts.context.hints.lock() = None;
}

/// State between two worlds.
struct Worlds {
    parts: Arc<Parts>,
    hints: mpsc::UnboundedSender<Hint>,
    watched: mpsc::Receiver<store::Hint>,
    /// No file was being written at the last listing.
    settled: bool,
    /// The last listing failed.
    failing: bool,
    /// Changed files that the history has not recorded yet.
    changed: BTreeSet<Place>,
    /// Current and former places of documents and overrides, for a change whose place is unknown.
    known: BTreeSet<Place>,
    /// Places of documents and overrides at the last listing.
    listed: BTreeSet<Place>,
    /// Something changed at an unknown place.
    anywhere: bool,
    /// Position of the repository's HEAD while Git has moved the tree.
    moved: Option<String>,
    /// Names whose resolution changed since the last world.
    resolved: BTreeSet<String>,
    /// The keys in which the last world differs from the one before.
    differs: Changed,
}

impl Worlds {
    fn new(parts: Arc<Parts>, hints: mpsc::UnboundedSender<Hint>) -> Self {
        let watched = parts.context.store.watch();
        let (changed, known, listed) = Default::default();
        Self {
            parts,
            hints,
            watched,
            settled: true,
            failing: false,
            changed,
            known,
            listed,
            anywhere: false,
            moved: None,
            resolved: BTreeSet::new(),
            differs: Changed::default(),
        }
    }

    /// Makes and publishes a world; on failure the applied state stays.
    async fn make(&mut self) {
        let context = &self.parts.context;
        let recovered = context
            .disk(|store| Ok(store.has_recovered()))
            .await
            .unwrap_or_default();
        match publish(&self.parts).await {
            Ok(listed) => {
                self.note_moved(listed.moved);
                if self.moved.is_none() && listed.settled {
                    self.parts.feed.catch_up().await;
                }
                self.settled = listed.settled;
                self.known.extend(listed.places.iter().cloned());
                if self.settled && self.moved.is_none() && std::mem::take(&mut self.anywhere) {
                    self.parts.feed.edits_anywhere(&self.known).await;
                    self.known.clone_from(&listed.places);
                }
                self.listed = listed.places;
                self.differs = listed.changed;
                if recovered || self.failing {
                    // Objects that failed in the meantime are retried without waiting for their
                    // backoff, and the folders may have changed.
                    retry(&self.parts, &self.hints);
                    self.watched = self.parts.context.store.watch();
                }
                self.failing = false;
            }
            // The store keeps the error, and `Edges` reports it.
            Err(_) => self.failing = true,
        }
    }

    /// Records whether Git has moved the tree.
    fn note_moved(&mut self, moved: Option<String>) {
        // Changes during the move and the return are compared with the history after the return.
        self.anywhere |= moved.is_some();
        if self.moved.is_some() && moved.is_none() {
            self.parts.feed.retry();
        }
        self.moved = moved;
    }

    /// Reports the changes to the history and the queue.
    async fn tell(&mut self) {
        if self.moved.is_some() {
            self.changed.clear();
        }
        // A file that is being written counts as one change once it is complete.
        let places = if self.settled {
            std::mem::take(&mut self.changed)
        } else {
            BTreeSet::new()
        };
        // A file that was listed and is missing now is being saved again; it is reported once it is complete.
        let store = &self.parts.context.store;
        let is_away = |place: &Place| std::fs::symlink_metadata(store.path(place)).is_err();
        let (away, places) = places
            .into_iter()
            .partition(|place| self.listed.contains(place) && is_away(place));
        self.changed.extend::<BTreeSet<Place>>(away);
        self.parts.feed.edits(&places).await;
        for key in places.iter().filter_map(key_of) {
            let _ = self.hints.send(Hint::Key(key));
        }
        let resolved = std::mem::take(&mut self.resolved);
        for key in named(&self.parts.context.world(), &resolved) {
            let _ = self.hints.send(Hint::Key(key));
        }
        match std::mem::take(&mut self.differs) {
            Changed::Everything => drop(self.hints.send(Hint::Everything)),
            Changed::Keys(keys) => keys
                .into_iter()
                .for_each(|key| drop(self.hints.send(Hint::Key(key)))),
        }
    }

    /// Waits until a world may have changed. Breaks when the agent stops.
    async fn wait(&mut self, stop: &CancellationToken) -> ControlFlow<()> {
        let context = Arc::clone(&self.parts.context);
        let tick = if self.moved.is_some() || context.store.trouble().is_some() {
            WORLD_TROUBLED
        } else {
            WORLD_TICK
        };
        let wait = if self.settled {
            until_next(&context.world()).min(tick)
        } else {
            WORLD_UNSETTLED
        };
        let mut due = Instant::now() + wait;
        loop {
            tokio::select! {
                () = stop.cancelled() => return ControlFlow::Break(()),
                () = context.reports.changed.notified() => break,
                () = self.parts.sources.changed() => break,
                () = context.prober.answered() => due = due.min(Instant::now() + ANSWERS_GATHER),
                names = context.resolver.changed() => {
                    // An address may clash with a peer's, so the next world comes before the next pass.
                    self.resolved.extend(names);
                    break;
                }
                () = tokio::time::sleep_until(due) => break,
                hint = self.watched.recv() => {
                    match hint {
                        Some(hint) => self.take(hint),
                        None => {
                            // The watch could not start, or its thread panicked: wait before the restart.
                            tokio::time::sleep(WATCH_RESTART).await;
                            self.watched = context.store.watch();
                            self.anywhere = true;
                        }
                    }
                    break;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes this hint of the watch, and all queued ones.
    fn take(&mut self, hint: store::Hint) {
        let mut next = Some(hint);
        while let Some(hint) = next {
            match hint {
                store::Hint::Changed(place) => drop(self.changed.insert(place)),
                store::Hint::Everything => self.anywhere = true,
            }
            next = self.watched.try_recv().ok();
        }
    }
}

/// Reconciles every key as if its documents had changed.
fn retry(parts: &Parts, hints: &mpsc::UnboundedSender<Hint>) {
    for key in crate::controller::keys(&parts.context.world()) {
        let _ = hints.send(Hint::Key(key));
    }
}

/// Time until something expires by itself, at most one tick.
fn until_next(world: &World) -> Duration {
    let due = world
        .changes_at
        .map(|at| at.duration_since(Timestamp::now()));
    let due = due
        .and_then(|due| Duration::try_from(due).ok())
        .unwrap_or(WORLD_TICK);
    due.clamp(Duration::from_millis(50), WORLD_TICK)
}

fn key_of(place: &Place) -> Option<ObjectKey> {
    let name = place.name.clone();
    match (place.area, place.kind) {
        (Area::Documents | Area::Overrides, Kind::BgpSession) => Some(ObjectKey::Session(name)),
        (Area::Documents | Area::Overrides, Kind::MeshPeer) => Some(ObjectKey::Mesh(name)),
        (Area::Documents | Area::Overrides, Kind::IbgpPeer) => Some(ObjectKey::Ibgp(name)),
        (Area::Documents | Area::Overrides, _) => Some(ObjectKey::Router),
        _ => None,
    }
}

/// The objects whose endpoints have these names.
fn named(world: &World, names: &BTreeSet<String>) -> Vec<ObjectKey> {
    let has = |endpoint: &Endpoint| match &endpoint.host {
        Host::Name(name) => names.contains(name),
        Host::Address(_) => false,
    };
    let endpoints = world.endpoints().filter(|(_, endpoint)| has(endpoint));
    endpoints.map(|(object, _)| object.key()).collect()
}

/// The listing that a world was made from.
pub(super) struct Listed {
    /// No file is being written: all changes are in the world.
    pub(super) settled: bool,
    /// Position of the repository's HEAD while Git has moved the tree.
    moved: Option<String>,
    /// Places of documents and overrides.
    places: BTreeSet<Place>,
    /// The keys in which the world differs from the one before.
    changed: Changed,
}

impl Listed {
    fn of(snapshot: &Snapshot, changed: Changed) -> Self {
        let document = |kind: Kind| move |name: &ObjectName| Place::document(kind, name);
        let many = snapshot.sessions.keys().map(document(Kind::BgpSession));
        let many = many.chain(snapshot.mesh.keys().map(document(Kind::MeshPeer)));
        let many = many.chain(snapshot.ibgp.keys().map(document(Kind::IbgpPeer)));
        let single = [
            (Kind::Node, snapshot.node.is_some()),
            (Kind::RoutingPolicy, snapshot.policy.is_some()),
            (Kind::Maintenance, snapshot.maintenance.is_some()),
        ];
        let single = single.into_iter().filter(|(_, is_there)| *is_there);
        let single = single.map(|(kind, _)| Place::single(Area::Documents, kind));
        let overrides = snapshot
            .overrides
            .keys()
            .map(|(kind, name)| Place::new(Area::Overrides, *kind, name));
        Self {
            settled: snapshot.settled,
            moved: snapshot.moved.clone(),
            places: many.chain(single).chain(overrides).collect(),
            changed,
        }
    }
}

/// Lists, imports manual edits as overrides, and publishes the world.
pub(super) async fn publish(parts: &Arc<Parts>) -> Result<Listed, StoreError> {
    let mut snapshot = listing(parts).await?;
    if !parts.context.store.approved().is_empty() {
        snapshot = approval::spend(parts, snapshot).await;
    }
    let bird = parts.context.observer.bird(Instant::now()).await;
    measure_classes(parts).await;
    report_copy(parts);
    let mut world = parts.maker.make(&snapshot, &bird).await?;
    if !approval::remember(parts, &world).await {
        world = parts.maker.make(&snapshot, &bird).await?;
    }
    parts.context.pulse.built(parts.maker.builds());
    approval::spend_node(parts, &world).await;
    drain::write_down(parts, &snapshot, &world).await;
    watch_peers(parts, &snapshot, &world);
    let (policy, rejects) = (
        &world.router_documents.policy.spec,
        world.origins.rejects_unknown,
    );
    parts.sources.watch(policy, rejects);
    let rpki = &parts.sources.rpki;
    rpki.keep(&parts.context.store, &world.rpki).await;
    let mut changed = Changed::default();
    parts.publish.send_if_modified(|published| {
        if Arc::ptr_eq(published, &world) {
            return false;
        }
        changed = world.changed_since(published);
        *published = world;
        true
    });
    Ok(Listed::of(&snapshot, changed))
}

/// Lists the state directory, never during a sync: with half of its removals a sync would pass the
/// guard that holds all of them.
async fn listing(parts: &Parts) -> Result<Snapshot, StoreError> {
    let _writing = parts.feed.writing().await;
    let load = |store: &Store| {
        store.remember_secrets();
        store.load()
    };
    let snapshot = parts.context.disk(load).await?;
    if snapshot.edits.is_empty() && snapshot.revived.is_empty() {
        return Ok(snapshot);
    }
    parts.edits.import().await;
    parts.context.disk(Store::load).await
}

/// Waits a short time for the names of endpoints and RPKI servers, for a single pass.
///
/// # Errors
/// The state directory cannot be read.
pub(super) async fn resolved(parts: &Arc<Parts>) -> Result<(), StoreError> {
    if rpki_resolved(parts, &parts.context.world()).await {
        publish(parts).await?;
    }
    let world = parts.context.world();
    let endpoints: Vec<&Endpoint> = world.endpoints().map(|(_, endpoint)| endpoint).collect();
    let is_unknown = |endpoint: &&Endpoint| {
        let resolution = parts.context.resolver.current(endpoint);
        resolution.address.is_none() && resolution.error.is_none()
    };
    if !endpoints.iter().any(is_unknown) {
        return Ok(());
    }
    let waiting = async {
        while endpoints.iter().any(is_unknown) {
            parts.context.resolver.changed().await;
        }
    };
    let _ = tokio::time::timeout(NAMES_WAIT, waiting).await;
    // An address is used only by a world that has compared it.
    publish(parts).await.map(drop)
}

/// Waits a short time for the names of RPKI servers. Returns whether that may have changed the world.
pub(crate) async fn rpki_resolved(parts: &Parts, world: &World) -> bool {
    let resolved = parts
        .sources
        .rpki
        .resolved(&world.router_documents.policy.spec);
    tokio::time::timeout(NAMES_WAIT, resolved)
        .await
        .unwrap_or(true)
}

/// Takes the probes of the current sessions into account.
async fn measure_classes(parts: &Parts) {
    let (context, world) = (&parts.context, parts.context.world());
    let sessions = world.of_kind(Kind::BgpSession);
    let links = sessions.map(|session| (session.name.clone(), target(session)));
    let classes = &parts.sources.classes;
    classes
        .measure(links.collect(), &context.prober, &context.store)
        .await;
}

/// Sets the condition of the node for a copied state directory, and clears it once the directory is no longer a copy.
fn report_copy(parts: &Parts) {
    let about = ConditionType::StateDirectoryUnique;
    let conveniences = &parts.context.conveniences;
    match parts.sources.key.copied() {
        Some(why) => {
            conveniences.set(about, Convenience::fails("CopiedFromAnotherHost", why));
        }
        None if conveniences.problem(about).is_some() => {
            conveniences.set(about, Convenience::works("RecordsOfThisHost"));
        }
        None => {}
    }
}

/// Watches the endpoints to resolve and the peers to probe.
fn watch_peers(parts: &Parts, snapshot: &Snapshot, world: &World) {
    let named = endpoints(snapshot);
    let named = named.iter().map(|(_, _, endpoint)| endpoint);
    let control_plane = crate::sources::control_plane(&parts.live.get());
    parts.context.resolver.watch(named.chain(&control_plane));
    let targets = world.objects.values().filter_map(target);
    parts.context.prober.watch(targets.collect());
}
