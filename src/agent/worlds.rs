use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Parts, journal};
use crate::bird::{Checker, Version};
use crate::config::Config;
use crate::controller::world::{Inputs, Intent, Measured, Refused, present};
use crate::controller::{Hint, Key, World, mesh_target, target};
use crate::document::{BgpSessionSpec, Kind};
use crate::effective::Secrets;
use crate::kernel::keys;
use crate::model::{Endpoint, Host, ObjectName, PrivateKey, PublicKey, Secret};
use crate::render::{Features, Hysteresis, Renderer, RoaTable, loss_class};
use crate::store::{Absorbed, Area, Change, Edit, Place, Snapshot, Store, StoreError, watch};
use crate::telemetry::chain;

/// How often the world is made anew without a hint: BIRD may have become another version, and measured
/// classes move.
const TICK: Duration = Duration::from_secs(30);

/// The cached table of ROAs, below the state directory.
const ROA_CACHE: &str = "roa.conf";

/// Makes worlds from the state directory.
pub struct WorldMaker {
    config: Config,
    store: Arc<Store>,
    private_key: PrivateKey,
    our_key: PublicKey,
    renderer: Renderer,
    checker: Checker,
    version: Mutex<Option<Version>>,
    classes: Mutex<BTreeMap<ObjectName, (Hysteresis, Measured)>>,
    refused: Mutex<Refused>,
}

impl WorldMaker {
    /// A maker of worlds for this configuration.
    pub fn new(
        config: Config,
        store: Arc<Store>,
        private_key: PrivateKey,
        renderer: Renderer,
        checker: Checker,
    ) -> Self {
        let our_key = keys::public_key(&private_key);
        let (version, classes, refused) = Default::default();
        Self { config, store, private_key, our_key, renderer, checker, version, classes, refused }
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

    /// A world of an empty state directory; the one before the first.
    pub fn empty(&self) -> World {
        let snapshot = Snapshot::default();
        self.world(
            &snapshot,
            &Secrets::new(),
            Err("not looked at yet"),
            &BTreeSet::new(),
            &BTreeMap::new(),
            None,
        )
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
        let features = self.features(running).await;
        let features = features.as_ref().map(|features| *features).map_err(String::as_str);
        let secrets = secrets(&self.store, snapshot);
        let roa = roa_table(&self.store);
        let classes =
            self.lock_classes().iter().map(|(name, (_, measured))| (name.clone(), *measured)).collect();
        Ok(self.world(snapshot, &secrets, features, fragments, &classes, roa.as_ref()))
    }

    fn world(
        &self,
        snapshot: &Snapshot,
        secrets: &Secrets,
        features: Result<Features, &str>,
        fragments: &BTreeSet<String>,
        classes: &BTreeMap<ObjectName, Measured>,
        roa: Option<&RoaTable>,
    ) -> World {
        World::build(&Inputs {
            snapshot,
            config: &self.config,
            secrets,
            private_key: &self.private_key,
            our_key: self.our_key,
            renderer: Ok(&self.renderer),
            features,
            roa,
            classes,
            fragments,
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

    /// Takes what probes measured; a class changes only when [`Hysteresis`] lets it.
    pub fn measure(&self, name: &ObjectName, rtt_ms: Option<f64>, loss: f64, now: Timestamp) {
        let mut classes = self.lock_classes();
        let (hysteresis, measured) = classes.entry(name.clone()).or_default();
        *measured = Measured { latency: hysteresis.update(now, rtt_ms), loss: loss_class(loss) };
    }

    fn lock_classes(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectName, (Hysteresis, Measured)>> {
        self.classes.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

fn roa_table(store: &Store) -> Option<RoaTable> {
    let text = std::fs::read_to_string(store.dir().join(ROA_CACHE)).ok()?;
    Some(RoaTable::parse(&text).0).filter(|table| !table.is_empty())
}

/// Makes a world whenever something may have changed, until the agent stops.
pub(super) async fn run(parts: Arc<Parts>, hints: mpsc::UnboundedSender<Hint>, stop: CancellationToken) {
    *parts.context.hints.lock().unwrap_or_else(PoisonError::into_inner) = Some(hints.clone());
    let mut watched = watch(parts.context.store.dir());
    let mut failing = false;
    let mut changed: BTreeSet<Place> = BTreeSet::new();
    loop {
        match publish(&parts).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                warn!(error = %chain(&error), "the state directory cannot be read; what is in force stays");
                failing = true;
            }
            Err(_) => {}
        }
        let places = std::mem::take(&mut changed);
        journal::edits(&parts, &places).await;
        for key in places.iter().filter_map(key_of) {
            let _ = hints.send(Hint::Key(key));
        }
        let _ = hints.send(Hint::Everything);
        let wait = until_next(&parts.context.world());
        tokio::select! {
            () = stop.cancelled() => break,
            () = parts.context.reports.changed.notified() => {}
            names = parts.context.resolver.changed() => {
                for key in named(&parts.context.world(), &names) {
                    let _ = hints.send(Hint::Key(key));
                }
            }
            () = tokio::time::sleep(wait) => {}
            hint = watched.recv() => match hint {
                Some(hint) => {
                    changed.extend(place_of(hint));
                    while let Ok(hint) = watched.try_recv() {
                        changed.extend(place_of(hint));
                    }
                }
                None => watched = watch(parts.context.store.dir()),
            },
        }
    }
    *parts.context.hints.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Until something ends by itself, and no longer than a tick.
fn until_next(world: &World) -> Duration {
    let due = world.changes_at.map(|at| at.duration_since(Timestamp::now()));
    let due = due.and_then(|due| Duration::try_from(due).ok()).unwrap_or(TICK);
    due.clamp(Duration::from_millis(50), TICK)
}

fn place_of(hint: crate::store::Hint) -> Option<Place> {
    match hint {
        crate::store::Hint::Changed(place) => Some(place),
        crate::store::Hint::Everything => None,
    }
}

fn key_of(place: &Place) -> Option<Key> {
    let name = place.name.clone();
    match (place.area, place.kind) {
        (Area::Documents | Area::Overrides, Kind::BgpSession) => Some(Key::Session(name)),
        (Area::Documents | Area::Overrides, Kind::MeshPeer) => Some(Key::Mesh(name)),
        (Area::Documents | Area::Overrides, Kind::IbgpPeer) => Some(Key::Ibgp(name)),
        (Area::Documents, _) => Some(Key::Router),
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

/// Lists, keeps edits by hand as overrides, and publishes the world.
pub(super) async fn publish(parts: &Arc<Parts>) -> Result<(), StoreError> {
    let mut snapshot = parts.context.disk(Store::load).await?;
    if !snapshot.edits.is_empty() && absorb(parts, std::mem::take(&mut snapshot.edits)).await {
        snapshot = parts.context.disk(Store::load).await?;
    }
    clear_approval(parts, &snapshot).await;
    let bird = parts.context.observer.bird(tokio::time::Instant::now()).await;
    let fragments = bird.live.tree.fragments.keys().cloned().collect();
    measure(parts);
    let world = parts.maker.make(&snapshot, bird.running, &fragments).await?;
    watch_peers(parts, &world);
    parts.publish.send_replace(Arc::new(world));
    Ok(())
}

/// An approval is for the removals that were held when it was given; it ends when they are done.
async fn clear_approval(parts: &Arc<Parts>, snapshot: &Snapshot) {
    let approved = parts.context.store.approved();
    let waits = |name: &ObjectName| snapshot.applied.keys().any(|(_, held)| held == name);
    if !approved.is_empty() && !approved.iter().any(waits) {
        let cleared = parts.context.disk(|store| Store::approve(store.dir(), &BTreeSet::new())).await;
        if let Err(error) = cleared {
            warn!(error = %chain(&error), "an approval that is used up could not be removed");
        }
    }
}

/// An edit in place is an override, and a deleted document comes back.
async fn absorb(parts: &Arc<Parts>, edits: Vec<Edit>) -> bool {
    let mut any = false;
    for edit in edits {
        let place = edit.place.clone();
        let owner = match &edit.change {
            Change::Edited { owner, .. } => Some(*owner),
            Change::Deleted => None,
        };
        let done = parts.context.disk(move |store| store.absorb(&edit, Timestamp::now())).await;
        match done {
            Ok(Absorbed::Overridden(_)) => {
                info!(object = %place.relative().display(), "edited in place: the change is kept as an override");
                journal::absorbed(parts, &place, owner).await;
                any = true;
            }
            Ok(Absorbed::Restored) => {
                info!(object = %place.relative().display(), "the Control Plane's document was put back");
                any = true;
            }
            Err(error) => {
                warn!(object = %place.relative().display(), error = %chain(&error), "an edit cannot be kept")
            }
        }
    }
    any
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

fn measure(parts: &Parts) {
    let world = parts.context.world();
    for (name, entry) in &world.sessions {
        let probe = target(entry).and_then(|target| parts.context.prober.current(&target));
        if let Some(probe) = probe {
            parts.maker.measure(name, probe.rtt_ms, f64::from(probe.loss), probe.at);
        }
    }
}
