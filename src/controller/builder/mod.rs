//! Builds the desired state: state directory → desired state, on every hint of a change.
//!
//! | file | task |
//! |---|---|
//! | `maker` | combines the inputs of a desired state |
//! | `approval` | lifetime of approvals, and the guard's record |
//! | `drain` | records a drain before it is applied |
//! | `trial` | tests an operator's templates |

mod approval;
mod drain;
mod maker;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use maker::DesiredMaker;
pub(crate) use trial::test_templates;

use crate::bird::Committer;
use crate::config::LiveConfig;
use crate::controller::{Context, Convenience, Edits, Hint, target};
use crate::desired::{Changed, Desired, Object};
use crate::document::{ConditionType, Kind};
use crate::history::Feed;
use crate::intervals::{
    ANSWERS_GATHER, BUILD_SOON, BUILD_TICK, BUILD_TROUBLED, BUILD_UNSETTLED, NAMES_WAIT,
    RECONCILE_TICK, WATCH_RESTART,
};
use crate::model::{Endpoint, Host, ObjectKey};
use crate::sources::Sources;
use crate::store::{self, Area, Place, Snapshot, Store, StoreError};
use crate::telemetry;
use crate::util::fs;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// The builder of the desired state, with what it needs.
pub struct Builder {
    /// The controller's state.
    pub context: Arc<Context>,
    pub live: Arc<LiveConfig>,
    pub(crate) sources: Arc<Sources>,
    /// Changes of documents, for the history.
    pub feed: Arc<Feed>,
    /// Importer of manual edits.
    pub edits: Arc<Edits>,
    /// Applies BIRD's configuration, and checks it.
    pub committer: Committer,
    /// Combines the inputs of a desired state.
    pub maker: Arc<DesiredMaker>,
    /// Publishes desired states.
    pub publish: watch::Sender<Arc<Desired>>,
}

/// Makes a desired state whenever something may have changed, until the agent stops.
pub(crate) async fn run(
    builder: Arc<Builder>,
    hints: mpsc::UnboundedSender<Hint>,
    stop: CancellationToken,
) {
    *builder.context.hints.lock() = Some(hints.clone());
    let mut builds = Builds::new(Arc::clone(&builder), hints);
    let first_lists = &builder.context.first_lists;
    loop {
        builds.make().await;
        let are_listed = !builds.failing && first_lists.are_listed();
        builds.tell().await;
        first_lists.told();
        if are_listed {
            first_lists.built();
        }
        if builds.wait(&stop).await.is_break() {
            break;
        }
    }
    *builder.context.hints.lock() = None;
}

/// State between two desired states.
struct Builds {
    builder: Arc<Builder>,
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
    /// Names whose resolution changed since the last desired state.
    resolved: BTreeSet<String>,
    /// The keys in which the last desired state differs from the one before.
    differs: Changed,
    /// The last listing.
    last: Option<Arc<Snapshot>>,
}

impl Builds {
    fn new(builder: Arc<Builder>, hints: mpsc::UnboundedSender<Hint>) -> Self {
        let watched = builder.context.store.watch();
        let (changed, known, listed) = Default::default();
        Self {
            builder,
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
            last: None,
        }
    }

    /// Makes and publishes a desired state; on failure the applied state stays.
    async fn make(&mut self) {
        let context = &self.builder.context;
        let recovered = context
            .disk(|store| Ok(store.has_recovered()))
            .await
            .unwrap_or_default();
        match publish(&self.builder).await {
            Ok(listed) => {
                self.note_moved(listed.snapshot.moved.clone());
                if self.moved.is_none() && listed.snapshot.settled {
                    self.builder.feed.catch_up().await;
                }
                self.differs = listed.changed;
                let is_last = |last| Arc::ptr_eq(last, &listed.snapshot);
                if self.anywhere || !self.last.as_ref().is_some_and(is_last) {
                    self.take_listing(&listed.snapshot).await;
                    self.last = Some(listed.snapshot);
                }
                if recovered || self.failing {
                    // Objects that failed in the meantime are retried without waiting for their
                    // backoff, and the folders may have changed.
                    retry(&self.builder, &self.hints);
                    self.watched = self.builder.context.store.watch();
                }
                self.failing = false;
            }
            // The store keeps the error, and `Edges` reports it.
            Err(_) => self.failing = true,
        }
    }

    /// Takes the places of a new listing.
    async fn take_listing(&mut self, snapshot: &Snapshot) {
        let places = places(snapshot);
        self.settled = snapshot.settled;
        self.known.extend(places.iter().cloned());
        if self.settled && self.moved.is_none() && std::mem::take(&mut self.anywhere) {
            self.builder.feed.edits_anywhere(&self.known).await;
            self.known.clone_from(&places);
        }
        self.listed = places;
    }

    /// Records whether Git has moved the tree.
    fn note_moved(&mut self, moved: Option<String>) {
        // Changes during the move and the return are compared with the history after the return.
        self.anywhere |= moved.is_some();
        if self.moved.is_some() && moved.is_none() {
            self.builder.feed.retry();
        }
        self.moved = moved;
    }

    /// Reports the changes to the queue, which must not wait, and to the history, which records steps only later.
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
        let (away, places) = self.split_away(places).await;
        self.changed.extend(away);
        let mut keys = self.edited(&places).await;
        let resolved = std::mem::take(&mut self.resolved);
        keys.extend(named(&self.builder.context.desired(), &resolved));
        match std::mem::take(&mut self.differs) {
            Changed::Everything => drop(self.hints.send(Hint::Everything)),
            Changed::Keys(differing) => keys.extend(differing),
        }
        if !keys.is_empty() {
            let _ = self.hints.send(Hint::Keys(keys));
        }
        self.builder.feed.edits(&places).await;
    }

    /// Splits places into those that were listed and have no file now, and the others.
    async fn split_away(&self, places: BTreeSet<Place>) -> (BTreeSet<Place>, BTreeSet<Place>) {
        if places.is_empty() {
            return Default::default();
        }
        let store = Arc::clone(&self.builder.context.store);
        let is_away = move |place: &Place| fs::symlink_metadata(store.path(place)).is_err();
        let listed = self.listed.clone();
        let split = move |place: &Place| listed.contains(place) && is_away(place);
        blocking(move || places.into_iter().partition(split)).await
    }

    /// Returns the objects whose files another program wrote. Those whose files the agent wrote differ in the desired state.
    async fn edited(&self, places: &BTreeSet<Place>) -> BTreeSet<ObjectKey> {
        if places.is_empty() {
            return BTreeSet::new();
        }
        let (store, places) = (Arc::clone(&self.builder.context.store), places.clone());
        let edited = move || {
            let of_others = places.iter().filter(|place| !store.is_own(place));
            of_others.filter_map(key_of).sorted_set()
        };
        blocking(edited).await
    }

    /// Waits until a desired state may have changed. Breaks when the agent stops.
    async fn wait(&mut self, stop: &CancellationToken) -> ControlFlow<()> {
        let context = Arc::clone(&self.builder.context);
        let tick = if self.moved.is_some() || context.store.trouble().is_some() {
            BUILD_TROUBLED
        } else {
            BUILD_TICK
        };
        let wait = if self.settled {
            until_next(&context.desired()).min(tick)
        } else {
            BUILD_UNSETTLED
        };
        let mut due = Instant::now() + wait;
        loop {
            tokio::select! {
                () = stop.cancelled() => return ControlFlow::Break(()),
                () = context.reports.changed.notified() => break,
                () = self.builder.sources.changed() => break,
                () = context.prober.answered() => due = due.min(Instant::now() + ANSWERS_GATHER),
                names = context.resolver.changed() => {
                    // An address may clash with a peer's, so the next desired state comes before the next pass.
                    self.resolved.extend(names);
                    break;
                }
                () = tokio::time::sleep_until(due) => break,
                hint = self.watched.recv() => {
                    match hint {
                        Some(hint) => if !self.take(hint).await {
                            continue;
                        },
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

    /// Takes this hint of the watch, and all queued ones. Returns whether the desired state may change: it has what the sync
    /// wrote before the last listing.
    async fn take(&mut self, hint: store::Hint) -> bool {
        let (mut places, mut next) = (BTreeSet::new(), Some(hint));
        while let Some(hint) = next {
            match hint {
                store::Hint::Changed(place) => drop(places.insert(place)),
                store::Hint::Everything => self.anywhere = true,
            }
            next = self.watched.try_recv().ok();
        }
        if let Some(last) = self.last.clone() {
            let store = Arc::clone(&self.builder.context.store);
            let is_known = move |place: &Place| store.is_listed(place, &last);
            places = blocking(move || {
                places.retain(|place| !is_known(place));
                places
            })
            .await;
        }
        let is_any = self.anywhere || !places.is_empty();
        self.changed.extend(places);
        is_any
    }
}

/// Reconciles every key as if its documents had changed.
fn retry(builder: &Builder, hints: &mpsc::UnboundedSender<Hint>) {
    let keys = builder.context.desired().keys();
    let _ = hints.send(Hint::Keys(keys.into_iter().sorted_set()));
}

/// Time until something expires by itself, at most one tick.
fn until_next(desired: &Desired) -> Duration {
    let due = desired
        .changes_at
        .map(|at| at.duration_since(Timestamp::now()));
    let due = due
        .and_then(|due| Duration::try_from(due).ok())
        .unwrap_or(BUILD_TICK);
    due.clamp(BUILD_SOON, BUILD_TICK)
}

fn key_of(place: &Place) -> Option<ObjectKey> {
    match place.area {
        // The node's key reconciles the policy too.
        Area::Documents | Area::Overrides => Some(match place.kind.key(&place.name) {
            ObjectKey::Policy => ObjectKey::Router,
            key => key,
        }),
        _ => None,
    }
}

/// The objects whose endpoints have these names.
fn named(desired: &Desired, names: &BTreeSet<String>) -> Vec<ObjectKey> {
    let has = |endpoint: &Endpoint| match &endpoint.host {
        Host::Name(name) => names.contains(name),
        Host::Address(_) => false,
    };
    let endpoints = desired.endpoints().filter(|(_, endpoint)| has(endpoint));
    endpoints.map(|(object, _)| object.key()).collect()
}

/// The listing that a desired state was made from.
pub(crate) struct Listed {
    pub(crate) snapshot: Arc<Snapshot>,
    /// The keys in which the desired state differs from the one before.
    changed: Changed,
}

/// Returns the places of documents and overrides.
fn places(snapshot: &Snapshot) -> BTreeSet<Place> {
    let documents = snapshot.documents().map(|(place, _)| place);
    let overrides = snapshot
        .overrides
        .keys()
        .map(|(kind, name)| Place::new(Area::Overrides, *kind, name));
    documents.chain(overrides).sorted_set()
}

/// Returns the AS number of each session's peer, by object.
fn asns(desired: &Desired) -> BTreeMap<String, u32> {
    let asn = |object: &Object| Some((object.key().to_string(), object.asn()?));
    desired
        .of_kind(Kind::BgpSession)
        .filter_map(asn)
        .sorted_map()
}

/// Lists, imports manual edits as overrides, and publishes the desired state.
pub(crate) async fn publish(builder: &Builder) -> Result<Listed, StoreError> {
    let snapshot = new_listing(builder).await?;
    // A look of the last tick is new enough, since each load is followed by one.
    let now = Instant::now();
    let not_before = now.checked_sub(RECONCILE_TICK).unwrap_or(now);
    let bird = builder.context.observer.bird(not_before).await;
    measure_classes(builder).await;
    report_copy(builder);
    let mut desired = builder.maker.make(&snapshot, &bird).await;
    if !approval::remember(builder, &desired).await {
        desired = builder.maker.make(&snapshot, &bird).await;
    }
    builder.context.pulse.built(builder.maker.builds());
    approval::spend_node(builder, &desired).await;
    drain::write_down(builder, &snapshot, &desired).await;
    let rpki = &builder.sources.rpki;
    rpki.keep(&builder.context.store, &desired.rpki).await;
    let published = Arc::clone(&builder.publish.borrow());
    if Arc::ptr_eq(&published, &desired) {
        let changed = Changed::default();
        return Ok(Listed { snapshot, changed });
    }
    watch_peers(builder, &desired);
    let (policy, rejects) = (
        &desired.router_documents.policy.spec,
        desired.origins.rejects_unknown,
    );
    builder.sources.watch(policy, rejects);
    let changed = desired.changed_since(&published);
    telemetry::set_asns(asns(&desired));
    builder.publish.send_replace(desired);
    Ok(Listed { snapshot, changed })
}

/// Lists the state directory, and ends approvals.
async fn new_listing(builder: &Builder) -> Result<Arc<Snapshot>, StoreError> {
    let snapshot = listing(builder).await?;
    let approved = approval::given(builder).await;
    Ok(match approved.is_empty() {
        true => snapshot,
        false => approval::spend(builder, snapshot, approved).await,
    })
}

/// Lists the state directory, never during a sync: with half of its removals a sync would pass the
/// guard that holds all of them.
async fn listing(builder: &Builder) -> Result<Arc<Snapshot>, StoreError> {
    let _writing = builder.feed.writing().await;
    builder.context.first_lists.listing();
    let load = |store: &Store| {
        store.remember_secrets();
        store.load()
    };
    let snapshot = builder.context.disk(load).await?;
    if snapshot.edits.is_empty() && snapshot.revived.is_empty() {
        return Ok(snapshot);
    }
    builder.edits.import().await;
    builder.context.disk(Store::load).await
}

/// Waits a short time for the names of endpoints and RPKI servers, for a single pass.
///
/// # Errors
/// The state directory cannot be read.
pub(crate) async fn resolved(builder: &Builder) -> Result<(), StoreError> {
    if rpki_resolved(builder, &builder.context.desired()).await {
        publish(builder).await?;
    }
    let desired = builder.context.desired();
    let endpoints: Vec<&Endpoint> = desired.endpoints().map(|(_, endpoint)| endpoint).collect();
    let is_unknown = |endpoint: &&Endpoint| {
        let resolution = builder.context.resolver.current(endpoint);
        resolution.address.is_none() && resolution.error.is_none()
    };
    if !endpoints.iter().any(is_unknown) {
        return Ok(());
    }
    let waiting = async {
        while endpoints.iter().any(is_unknown) {
            builder.context.resolver.changed().await;
        }
    };
    let _ = tokio::time::timeout(NAMES_WAIT, waiting).await;
    // An address is used only by a desired state that has compared it.
    publish(builder).await.map(drop)
}

/// Waits a short time for the names of RPKI servers. Returns whether that may have changed the desired state.
pub(crate) async fn rpki_resolved(builder: &Builder, desired: &Desired) -> bool {
    let resolved = builder
        .sources
        .rpki
        .resolved(&desired.router_documents.policy.spec);
    tokio::time::timeout(NAMES_WAIT, resolved)
        .await
        .unwrap_or(true)
}

/// Takes the probes of the current sessions into account.
async fn measure_classes(builder: &Builder) {
    let (context, desired) = (&builder.context, builder.context.desired());
    let sessions = desired.of_kind(Kind::BgpSession);
    let links = sessions.map(|session| (session.name.clone(), target(session)));
    let classes = &builder.sources.classes;
    classes
        .measure(links.sorted_map(), &context.prober, &context.store)
        .await;
}

/// Sets the condition of the node for a copied state directory, and clears it once the directory is no longer a copy.
fn report_copy(builder: &Builder) {
    let about = ConditionType::StateDirectoryUnique;
    let conveniences = &builder.context.conveniences;
    match builder.sources.key.copied() {
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
fn watch_peers(builder: &Builder, desired: &Desired) {
    let control_plane = crate::sources::control_plane(&builder.live.get());
    let named = desired.lookups.iter().chain(&control_plane);
    builder.context.resolver.watch(named);
    let targets = desired.objects.values().filter_map(target);
    builder.context.prober.watch(targets.sorted_set());
}
