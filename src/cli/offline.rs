//! Looking at a router without its daemon: the world of its state directory, and what is really there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::agent::Parts;
use crate::config::Config;
use crate::controller::planning::{self, View};
use crate::controller::world::present;
use crate::controller::{BirdState, Key, KeyPlan, World, keys};
use crate::document::Kind;
use crate::model::ObjectName;
use crate::plan::kernel_view::KernelView;
use crate::store::{AppliedDocument, Snapshot, Store};

/// How long names of endpoints may take to resolve.
const RESOLVE: Duration = Duration::from_secs(3);

/// A router as it is and as it is to be, at one moment. Made without a single write.
pub(crate) struct Offline {
    pub(crate) parts: Parts,
    pub(crate) snapshot: Snapshot,
    pub(crate) world: World,
    pub(crate) kernel: Arc<KernelView>,
    pub(crate) bird: Arc<BirdState>,
}

/// A router as it is to be. Needs neither the kernel nor a running BIRD.
pub(crate) struct Wanted {
    pub(crate) parts: Parts,
    pub(crate) snapshot: Snapshot,
    pub(crate) world: World,
    bird: Arc<BirdState>,
}

impl Wanted {
    /// Reads the state directory.
    pub(crate) async fn read(config: Config) -> anyhow::Result<Self> {
        let directory = config.state.directory.clone();
        let store = tokio::task::spawn_blocking(move || Store::open_read_only(&directory)).await??;
        Self::of(Parts::with_store(config, Arc::new(store)).await?).await
    }

    async fn of(parts: Parts) -> anyhow::Result<Self> {
        let snapshot = parts.context.disk(Store::load).await?;
        let bird = parts.context.observer.bird(Instant::now()).await;
        let fragments: BTreeSet<_> = bird.live.tree.fragments.keys().cloned().collect();
        let world = parts.maker.make(&snapshot, bird.running, &fragments).await?;
        Ok(Self { parts, snapshot, world, bird })
    }
}

impl Offline {
    /// Looks at everything.
    pub(crate) async fn look(config: Config) -> anyhow::Result<Self> {
        Self::beside(Wanted::read(config).await?).await
    }

    pub(crate) async fn of(parts: Parts) -> anyhow::Result<Self> {
        Self::beside(Wanted::of(parts).await?).await
    }

    /// What is really there, beside what is wanted.
    async fn beside(wanted: Wanted) -> anyhow::Result<Self> {
        let Wanted { parts, snapshot, world, bird } = wanted;
        let kernel = parts.context.observer.kernel(Instant::now()).await?;
        resolve(&parts, &world).await;
        Ok(Self { parts, snapshot, world, kernel, bird })
    }

    /// Every key, and what the controller would do for it now.
    pub(crate) fn plans(&self) -> Vec<(Key, KeyPlan)> {
        keys(&self.world).into_iter().map(|key| (key.clone(), self.plan(&key))).collect()
    }

    /// What the controller would do for a key now: nothing for an object that is paused.
    pub(crate) fn plan(&self, key: &Key) -> KeyPlan {
        let world = &self.world;
        let paused = match key {
            Key::Session(name) => world.sessions.get(name).and_then(|entry| entry.paused.as_ref()),
            Key::Mesh(name) => world.mesh.get(name).and_then(|entry| entry.paused.as_ref()),
            _ => None,
        };
        if paused.is_some() { Ok(crate::plan::Plan::default()) } else { self.plan_unpaused(key) }
    }

    /// What the controller would do for a key if it were not paused.
    pub(crate) fn plan_unpaused(&self, key: &Key) -> KeyPlan {
        let world = &self.world;
        match key {
            Key::Router | Key::Policy => planning::router(world, &self.view(None, None)),
            Key::Session(name) => match world.sessions.get(name) {
                Some(entry) => {
                    let endpoint = planning::endpoint(entry);
                    let resolved = endpoint.and_then(|e| self.parts.context.resolver.current(e).address);
                    planning::session(
                        world,
                        name,
                        entry,
                        &self.view(self.applied(Kind::BgpSession, name), resolved),
                    )
                }
                None => Ok(crate::plan::Plan::default()),
            },
            Key::Mesh(name) => match world.mesh.get(name) {
                Some(entry) => {
                    let view = self.view(self.applied(Kind::MeshPeer, name), self.mesh_address(name));
                    planning::mesh(world, entry, self.parts.context.keepalive, &view)
                }
                None => Ok(crate::plan::Plan::default()),
            },
            Key::Ibgp(_) => Ok(crate::plan::Plan::default()),
            Key::Orphan(uid) => planning::orphan(uid, &self.view(None, None)),
        }
    }

    fn mesh_address(&self, name: &ObjectName) -> Option<std::net::SocketAddr> {
        let tunnel = present(&self.world.mesh).find(|tunnel| tunnel.name == *name)?;
        self.parts.context.resolver.current(tunnel.endpoint.as_ref()?).address
    }

    /// What is in force for an object.
    pub(crate) fn applied(&self, kind: Kind, name: &ObjectName) -> Option<&AppliedDocument> {
        self.snapshot.applied.get(&(kind, name.clone())).map(|stored| &stored.document)
    }

    fn view<'a>(
        &'a self,
        applied: Option<&'a AppliedDocument>,
        resolved: Option<std::net::SocketAddr>,
    ) -> View<'a> {
        View { kernel: &self.kernel, bird: &self.bird, applied, resolved, now: Timestamp::now() }
    }
}

/// Waits for names to resolve, as long as a person waits; a name that does not leaves its tunnel without
/// an endpoint, as it would in the daemon.
async fn resolve(parts: &Parts, world: &World) {
    let sessions = present(&world.sessions).filter_map(|session| session.tunnel.endpoint.as_ref());
    let mesh = present(&world.mesh).filter_map(|tunnel| tunnel.endpoint.as_ref());
    let endpoints: Vec<_> = sessions.chain(mesh).collect();
    parts.context.resolver.watch(endpoints.iter().copied());
    let known = || {
        endpoints.iter().all(|endpoint| {
            let resolution = parts.context.resolver.current(endpoint);
            resolution.address.is_some() || resolution.error.is_some()
        })
    };
    let waiting = async {
        while !known() {
            parts.context.resolver.changed().await;
        }
    };
    let _ = tokio::time::timeout(RESOLVE, waiting).await;
}
