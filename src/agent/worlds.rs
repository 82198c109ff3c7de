use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::classes::{self, Classes};
use super::roa::Roas;
use super::templates::{Candidate, Templates};
use super::{Parts, journal};
use crate::bird::committer::Tree;
use crate::bird::{Checker, CommitError, Committer, Version};
use crate::config::Config;
use crate::controller::world::{Entry, Inputs, Intent, Measured, Refused, present};
use crate::controller::{Hint, Key, World, mesh_target, target};
use crate::document::{BgpSessionSpec, Kind};
use crate::effective::{Secrets, Session};
use crate::history::Author;
use crate::kernel::keys;
use crate::model::{Endpoint, Host, ObjectName, PrivateKey, PublicKey, Secret};
use crate::render::{Features, Renderer, RoaTable};
use crate::status::Acceptance;
use crate::store::{APPROVED, Absorbed, Area, COMPLETE, Edit, Place, Snapshot, Store, StoreError};
use crate::telemetry::chain;

/// How often the world is made anew without a hint: BIRD may have become another version, and measured
/// classes move.
const TICK: Duration = Duration::from_secs(30);

/// The same while the state directory cannot be read or written: nothing tells when that has passed.
const TROUBLED: Duration = Duration::from_secs(2);

/// The same while a file is being written.
const UNSETTLED: Duration = Duration::from_millis(100);

/// Makes worlds from the state directory.
pub struct WorldMaker {
    config: Config,
    store: Arc<Store>,
    private_key: PrivateKey,
    our_key: PublicKey,
    checker: Checker,
    committer: Committer,
    version: Mutex<Option<Version>>,
    refused: Mutex<Refused>,
    pub(super) templates: Templates,
    pub(super) classes: Classes,
    pub(super) roas: Roas,
    /// Edits by hand that could not be kept, and why: said once.
    unkept: Mutex<BTreeMap<Place, String>>,
}

/// What a world is made from beside the state directory.
struct Material {
    secrets: Secrets,
    features: Result<Features, String>,
    fragments: BTreeSet<String>,
    classes: BTreeMap<ObjectName, Measured>,
    roa: Option<Arc<RoaTable>>,
}

impl WorldMaker {
    /// A maker of worlds for this configuration.
    pub(super) fn new(
        config: Config,
        store: Arc<Store>,
        private_key: PrivateKey,
        templates: Templates,
        checker: Checker,
        committer: Committer,
    ) -> Self {
        let our_key = keys::public_key(&private_key);
        let classes = Classes::kept(&store);
        let (version, refused, roas, unkept) = Default::default();
        Self {
            config,
            store,
            private_key,
            our_key,
            checker,
            committer,
            version,
            refused,
            templates,
            classes,
            roas,
            unkept,
        }
    }

    /// Our WireGuard public key.
    pub fn our_key(&self) -> PublicKey {
        self.our_key
    }

    /// Changes what is known of the Control Plane's words that do not decode. Returns whether it is news.
    pub fn refuse(&self, change: impl FnOnce(&mut Refused)) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let before = refused.clone();
        change(&mut refused);
        *refused != before
    }

    fn is_unkept(&self, place: &Place) -> Option<String> {
        self.unkept.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned()
    }

    /// A world of an empty state directory; the one before the first.
    pub fn empty(&self) -> World {
        let material = Material {
            secrets: Secrets::new(),
            features: Err("not looked at yet".to_owned()),
            fragments: BTreeSet::new(),
            classes: BTreeMap::new(),
            roa: None,
        };
        self.world(&Snapshot::default(), &material, &self.templates.in_use())
    }

    /// Makes the world of a listing. `running` is the version of the BIRD that answers; without one its
    /// program is asked.
    ///
    /// # Errors
    /// When a secret's file cannot be listed at all.
    pub async fn make(
        &self,
        snapshot: &Snapshot,
        running: Option<Version>,
        fragments: &BTreeSet<String>,
    ) -> Result<World, StoreError> {
        let material = Material {
            secrets: secrets(&self.store, snapshot),
            features: self.features(running).await,
            fragments: fragments.clone(),
            classes: self.classes.measured(),
            roa: self.roas.kept(&self.store),
        };
        if let Some(candidate) = self.templates.candidate() {
            self.try_out(snapshot, &material, candidate).await;
        }
        Ok(self.world(snapshot, &material, &self.templates.in_use()))
    }

    /// Uses new templates if everything renders with them and BIRD's parser takes it.
    async fn try_out(&self, snapshot: &Snapshot, material: &Material, candidate: Candidate) {
        let before = self.world(snapshot, material, &self.templates.in_use());
        let after = self.world(snapshot, material, &candidate.renderer);
        if let Some(why) = not_rendered(&before, &after) {
            return self.templates.reject(candidate, why);
        }
        let Ok(base) = &after.base else { return };
        let text = |(name, entry): (&ObjectName, &Entry<Session>)| match &entry.intent {
            Intent::Present(_, text) => Some((name.to_string(), text.clone())),
            _ => None,
        };
        let fragments = after.sessions.iter().filter_map(text).collect();
        match self.committer.check(Tree { base: base.clone(), fragments }).await {
            Ok(()) => self.templates.adopt(candidate),
            Err(CommitError::Tree(what)) => {
                self.templates
                    .reject(candidate, format!("BIRD refuses what the templates render to: {what}"));
            }
            // It could not be tried; the next world tries it again.
            Err(error) => self.templates.postpone(format!("they cannot be tried: {}", chain(&error))),
        }
    }

    fn world(&self, snapshot: &Snapshot, material: &Material, renderer: &Renderer) -> World {
        let features = material.features.as_ref().map(|features| *features).map_err(String::as_str);
        World::build(&Inputs {
            snapshot,
            config: &self.config,
            secrets: &material.secrets,
            private_key: &self.private_key,
            our_key: self.our_key,
            renderer: Ok(renderer),
            templates_refused: self.templates.problem(),
            features,
            roa: material.roa.as_deref(),
            origins: &|servers, rejects_unknown| self.roas.origins(servers, rejects_unknown),
            classes: &material.classes,
            fragments: &material.fragments,
            approved: &self.store.approved(),
            refused: &self.refused.lock().unwrap_or_else(PoisonError::into_inner),
            now: Timestamp::now(),
        })
    }

    /// What BIRD understands: by the daemon that answers, else by the last one that did, else by the
    /// installed program.
    async fn features(&self, running: Option<Version>) -> Result<Features, String> {
        let known = running.or(*self.version.lock().unwrap_or_else(PoisonError::into_inner));
        let version = match known {
            Some(version) => version,
            None => self.checker.version().await.map_err(|error| chain(&error))?,
        };
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        Ok(Features::of(u32::from(version.major), u32::from(version.minor)))
    }
}

/// Why new templates do not render what is wanted now.
fn not_rendered(before: &World, after: &World) -> Option<String> {
    if let Err(why) = &after.base {
        return Some(why.clone());
    }
    let lost = |(name, entry): (&ObjectName, &Entry<Session>)| {
        let was_there = matches!(before.sessions.get(name)?.intent, Intent::Present(..));
        match (&entry.intent, &entry.acceptance) {
            (Intent::Present(..), _) => None,
            (_, Acceptance::Waiting(why)) if was_there => Some(format!("session {name}: {why}")),
            _ => None,
        }
    };
    after.sessions.iter().find_map(lost)
}

/// The secrets that documents, overrides and what is in force name. One that cannot be read is missing
/// here, and the session that names it says so.
fn secrets(store: &Store, snapshot: &Snapshot) -> Secrets {
    let read = |file: String| match store.read_secret(&file) {
        Ok(Some(secret)) => Some((file, secret)),
        Ok(None) => None,
        Err(error) => {
            warn!(file, error = %chain(&error), "a secret cannot be read");
            None
        }
    };
    named_secrets(snapshot).into_iter().filter_map(read).collect::<BTreeMap<String, Secret<String>>>()
}

fn named_secrets(snapshot: &Snapshot) -> BTreeSet<String> {
    let of_spec =
        |spec: &BgpSessionSpec| [spec.tunnel.preshared_key_file.clone(), spec.bgp.password_file.clone()];
    let documents =
        snapshot.sessions.values().filter_map(|slot| slot.as_ref().ok()).map(|s| of_spec(&s.document.spec));
    let in_force = snapshot.applied.values().filter_map(|stored| {
        serde_json::from_value::<BgpSessionSpec>(stored.document.applied.spec.clone()?)
            .ok()
            .map(|spec| of_spec(&spec))
    });
    let overrides = snapshot.overrides.values().filter_map(|slot| slot.as_ref().ok()).map(|stored| {
        let set = &stored.document.spec.set;
        let at = |section: &str, field: &str| set.get(section)?.get(field)?.as_str().map(str::to_owned);
        [at("tunnel", "presharedKeyFile"), at("bgp", "passwordFile")]
    });
    documents.chain(in_force).chain(overrides).flatten().flatten().collect()
}

/// Makes a world whenever something may have changed, until the agent stops.
pub(super) async fn run(parts: Arc<Parts>, hints: mpsc::UnboundedSender<Hint>, stop: CancellationToken) {
    *parts.context.hints.lock().unwrap_or_else(PoisonError::into_inner) = Some(hints.clone());
    let mut watched = parts.context.store.watch();
    let mut settled = true;
    let mut failing = false;
    let mut changed: BTreeSet<Place> = BTreeSet::new();
    // Where documents and overrides are and were, for when nobody knows which of them changed.
    let (mut known, mut anywhere) = (BTreeSet::new(), false);
    loop {
        let recovered = parts.context.disk(|store| Ok(store.has_recovered())).await.unwrap_or_default();
        match publish(&parts).await {
            Ok(listed) => {
                settled = listed.settled;
                known.extend(listed.places.iter().cloned());
                if settled && std::mem::take(&mut anywhere) {
                    journal::edits_anywhere(&parts, &known).await;
                    known = listed.places;
                }
                if recovered || failing {
                    info!("the state directory can be read and written again");
                    // What failed meanwhile does not wait out its backoff, and the folders may be others.
                    retry(&parts, &hints);
                    watched = parts.context.store.watch();
                }
                failing = false;
            }
            // Told below, once.
            Err(_) => failing = true,
        }
        if let Some(error) = parts.context.store.news_of_trouble() {
            warn!(error, "the state directory cannot be read or written; what is in force stays");
        }
        // A file that is being written is a change when it is whole, and one change for the history.
        let places = if settled { std::mem::take(&mut changed) } else { BTreeSet::new() };
        journal::edits(&parts, &places).await;
        for key in places.iter().filter_map(key_of) {
            let _ = hints.send(Hint::Key(key));
        }
        let _ = hints.send(Hint::Everything);
        let troubled = parts.context.store.trouble().is_some();
        let wait = until_next(&parts.context.world()).min(if troubled { TROUBLED } else { TICK });
        let wait = if settled { wait } else { UNSETTLED };
        tokio::select! {
            () = stop.cancelled() => break,
            () = parts.context.reports.changed.notified() => {}
            () = parts.context.prober.answered() => {}
            names = parts.context.resolver.changed() => {
                for key in named(&parts.context.world(), &names) {
                    let _ = hints.send(Hint::Key(key));
                }
            }
            () = tokio::time::sleep(wait) => {}
            hint = watched.recv() => match hint {
                Some(hint) => {
                    let more = std::iter::from_fn(|| watched.try_recv().ok());
                    for hint in std::iter::once(hint).chain(more) {
                        match hint {
                            crate::store::Hint::Changed(place) => drop(changed.insert(place)),
                            crate::store::Hint::Everything => anywhere = true,
                        }
                    }
                }
                None => watched = parts.context.store.watch(),
            },
        }
    }
    *parts.context.hints.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Looks at every key as if its documents had changed.
fn retry(parts: &Parts, hints: &mpsc::UnboundedSender<Hint>) {
    for key in crate::controller::keys(&parts.context.world()) {
        let _ = hints.send(Hint::Key(key));
    }
}

/// Until something ends by itself, and no longer than a tick.
fn until_next(world: &World) -> Duration {
    let due = world.changes_at.map(|at| at.duration_since(Timestamp::now()));
    let due = due.and_then(|due| Duration::try_from(due).ok()).unwrap_or(TICK);
    due.clamp(Duration::from_millis(50), TICK)
}

fn key_of(place: &Place) -> Option<Key> {
    let name = place.name.clone();
    match (place.area, place.kind) {
        (Area::Documents | Area::Overrides, Kind::BgpSession) => Some(Key::Session(name)),
        (Area::Documents | Area::Overrides, Kind::MeshPeer) => Some(Key::Mesh(name)),
        (Area::Documents | Area::Overrides, Kind::IbgpPeer) => Some(Key::Ibgp(name)),
        (Area::Documents | Area::Overrides, _) => Some(Key::Router),
        _ => None,
    }
}

/// The objects whose endpoints have these names.
fn named(world: &World, names: &BTreeSet<String>) -> Vec<Key> {
    let has = |endpoint: Option<&Endpoint>| match endpoint.map(|endpoint| &endpoint.host) {
        Some(Host::Name(name)) => names.contains(name),
        _ => false,
    };
    let sessions = present(&world.sessions).filter(|session| has(session.tunnel.endpoint.as_ref()));
    let mesh = present(&world.mesh).filter(|tunnel| has(tunnel.endpoint.as_ref()));
    let mesh = mesh.map(|tunnel| Key::Mesh(tunnel.name.clone()));
    sessions.map(|session| Key::Session(session.name.clone())).chain(mesh).collect()
}

/// What a world was made from.
pub(super) struct Listed {
    /// Whether no file is being written: then all changes are in the world.
    settled: bool,
    /// Where documents and overrides are.
    places: BTreeSet<Place>,
}

impl Listed {
    fn of(snapshot: &Snapshot) -> Self {
        let document = |kind: Kind| move |name: &ObjectName| Place::document(kind, name);
        let many = snapshot.sessions.keys().map(document(Kind::BgpSession));
        let many = many.chain(snapshot.mesh.keys().map(document(Kind::MeshPeer)));
        let many = many.chain(snapshot.ibgp.keys().map(document(Kind::IbgpPeer)));
        let single = [Kind::Node, Kind::RoutingPolicy, Kind::Maintenance];
        let single = single.map(|kind| Place::single(Area::Documents, kind));
        let overrides =
            snapshot.overrides.keys().map(|(kind, name)| Place::new(Area::Overrides, *kind, name));
        Self { settled: snapshot.settled, places: many.chain(single).chain(overrides).collect() }
    }
}

/// Lists, keeps edits by hand as overrides, and publishes the world.
pub(super) async fn publish(parts: &Arc<Parts>) -> Result<Listed, StoreError> {
    let mut snapshot = listing(parts).await?;
    if !parts.context.store.approved().is_empty() {
        snapshot = approval(parts, snapshot).await?;
    }
    let bird = parts.context.observer.bird(tokio::time::Instant::now()).await;
    let fragments = bird.live.tree.fragments.keys().cloned().collect();
    classes::measure(parts).await;
    let world = parts.maker.make(&snapshot, bird.running, &fragments).await?;
    watch_peers(parts, &world);
    parts.publish.send_replace(Arc::new(world));
    Ok(Listed::of(&snapshot))
}

/// Everything in the state directory, never in the middle of a sync: half of its removals would pass the guard
/// that holds all of them.
async fn listing(parts: &Parts) -> Result<Snapshot, StoreError> {
    let _writing = parts.syncing.lock().await;
    let snapshot = parts.context.disk(Store::load).await?;
    if snapshot.edits.is_empty() {
        return Ok(snapshot);
    }
    settle(parts).await;
    parts.context.disk(Store::load).await
}

/// An approval is for the removals that were held when it was given, once: it ends for an object that is
/// wanted again, and altogether when nothing that it is for is left.
async fn approval(parts: &Arc<Parts>, snapshot: Snapshot) -> Result<Snapshot, StoreError> {
    let mut approved = parts.context.store.approved();
    journal::approved(parts, &approved);
    let mut snapshot = snapshot;
    if approved.contains(COMPLETE) {
        parts.context.disk(Store::confirm).await?;
        snapshot = parts.context.disk(Store::load).await?;
    }
    let wanted: BTreeSet<String> = documents(&snapshot).collect();
    let left: BTreeSet<_> = approved.difference(&wanted).filter(|line| *line != COMPLETE).cloned().collect();
    let applied = snapshot.applied.keys().map(|(kind, name)| format!("{}/{name}", kind.folder()));
    let links = parts.context.observer.kernel(tokio::time::Instant::now()).await;
    let marked = links.iter().flat_map(|view| view.uids()).map(|uid| Key::Orphan(uid).to_string());
    let waiting = applied.chain(marked).any(|object| left.contains(&object));
    // A kernel that cannot be listed proves nothing.
    let left = if waiting || links.is_err() { left } else { BTreeSet::new() };
    if left != approved {
        parts.context.disk(move |store| Store::approve(store.dir(), &left)).await?;
        approved.remove(COMPLETE);
        let body = approved.into_iter().collect();
        journal::record_file(parts, Author::Agent, "The approval is spent", body, APPROVED);
    }
    Ok(snapshot)
}

/// Every object that there is a document of, as `sessions/wg_1`.
fn documents(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let named = |kind: Kind| move |name: &ObjectName| format!("{}/{name}", kind.folder());
    let sessions = snapshot.sessions.keys().map(named(Kind::BgpSession));
    let mesh = snapshot.mesh.keys().map(named(Kind::MeshPeer));
    sessions.chain(mesh).chain(snapshot.ibgp.keys().map(named(Kind::IbgpPeer)))
}

/// Edits by hand become overrides, and deleted documents come back. Before every listing that is gone by,
/// so that the sync cannot write over an edit; the caller holds `syncing`, so that each is kept once.
pub(super) async fn settle(parts: &Parts) {
    // A directory that cannot be read is told by whoever goes by its listing.
    let Ok(Snapshot { edits, .. }) = parts.context.disk(Store::load).await else { return };
    let unkept = absorb(parts, edits).await;
    *parts.maker.unkept.lock().unwrap_or_else(PoisonError::into_inner) = unkept;
}

/// Returns what could not be kept, and why.
async fn absorb(parts: &Parts, edits: Vec<Edit>) -> BTreeMap<Place, String> {
    let mut unkept = BTreeMap::new();
    for edit in edits {
        let place = edit.place.clone();
        let owner = edit.change.owner();
        let done = parts.context.disk(move |store| store.absorb(&edit, Timestamp::now())).await;
        match done {
            Ok(Absorbed::Overridden(_)) => {
                info!(object = %place.relative().display(), "edited in place: the change is kept as an override");
                owner.into_iter().for_each(|owner| journal::absorbed(parts, &place, owner));
            }
            Ok(Absorbed::Restored) => {
                info!(object = %place.relative().display(), "the Control Plane's document was put back");
            }
            Err(error) => {
                let why = chain(&error);
                if parts.maker.is_unkept(&place).as_ref() != Some(&why) {
                    warn!(object = %place.relative().display(), error = why, "an edit cannot be kept");
                }
                unkept.insert(place, why);
            }
        }
    }
    unkept
}

/// Waits a little for the names of endpoints, for a pass that has no later one.
pub(super) async fn resolved(parts: &Arc<Parts>) {
    let world = parts.context.world();
    let unknown = || {
        let mut endpoints = present(&world.sessions).filter_map(|session| session.tunnel.endpoint.as_ref());
        endpoints.any(|endpoint| {
            let resolution = parts.context.resolver.current(endpoint);
            resolution.address.is_none() && resolution.error.is_none()
        })
    };
    let waiting = async {
        while unknown() {
            parts.context.resolver.changed().await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(3), waiting).await;
}

/// Endpoints to resolve and peers to probe: those of the sessions that are to be there.
fn watch_peers(parts: &Parts, world: &World) {
    let sessions = present(&world.sessions).filter_map(|session| session.tunnel.endpoint.as_ref());
    let mesh = present(&world.mesh).filter_map(|tunnel| tunnel.endpoint.as_ref());
    parts.context.resolver.watch(sessions.chain(mesh));
    let present = world.sessions.values().filter(|entry| matches!(entry.intent, Intent::Present(..)));
    let mesh = world.mesh.values().filter_map(mesh_target);
    parts.context.prober.watch(present.filter_map(target).chain(mesh).collect());
}
