//! A machine with a state directory, a kernel and a BIRD, and agents that run on it one after the other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moenet_agent::config::{self, Config};
use moenet_agent::controller::{
    AppliedChange, Context, Enabled, FirewallKeeper, GuardMemory, Hint, Observer, Permits, Records,
    Reports, Restarts, Runner, StatusCache, Statuses, StepLog,
};
use moenet_agent::desired::{Desired, Inputs, Material, SessionCache, guard};
use moenet_agent::document::{BgpSessionSpec, Document, Kind, NodeSpec, Spec, StatusBody};
use moenet_agent::model::{InterfaceName, ObjectKey, ObjectName};
use moenet_agent::observed::SharedOwnership;
use moenet_agent::observed::bird::Texts;
use moenet_agent::observed::kernel::Link;
use moenet_agent::render::{Features, Renderer};
use moenet_agent::sources::probe::{ProbeSettings, Prober};
use moenet_agent::sources::resolve::{Resolver, ResolverSettings};
use moenet_agent::store::{Snapshot, Store};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::fakes::{FakeBird, FakeKernel, Fate, Nobody};
use crate::support::{key, router_key};

/// What survives the agent.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    pub(crate) kernel: Arc<FakeKernel>,
    pub(crate) bird: Arc<FakeBird>,
    pub(crate) fate: Arc<Fate>,
}

/// All that the agent brings into force: links, and the files for BIRD.
pub(crate) type InEffect = (BTreeMap<InterfaceName, Link>, Texts);

impl Machine {
    pub(crate) fn new(sessions: u8) -> Self {
        let fate = Arc::new(Fate::default());
        let kernel = Arc::new(FakeKernel {
            fate: Arc::clone(&fate),
            ..FakeKernel::default()
        });
        let bird = Arc::new(FakeBird {
            fate: Arc::clone(&fate),
            ..FakeBird::default()
        });
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
            kernel,
            bird,
            fate,
        };
        let store = machine.store();
        store.confirm().unwrap();
        let node = json!({"id": 1, "asn": 4_242_420_998u32});
        write::<NodeSpec>(&store, "node", "uid-node", node);
        for number in 1..=sessions {
            write::<BgpSessionSpec>(
                &store,
                &name(number),
                &uid(number),
                session(number, "Enabled"),
            );
        }
        machine
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.state()).unwrap()
    }

    pub(crate) fn in_effect(&self) -> InEffect {
        (
            self.kernel.links(),
            self.bird.tree.lock().unwrap().fragments.clone(),
        )
    }

    /// Starts an agent; nothing runs yet.
    pub(crate) fn boot(&self) -> Agent {
        let store = Arc::new(self.store());
        let config = format!(
            "{{node: {{name: jp1}}, state: {{directory: {}}}, maintenance: {{disableAfter: 15m}}}}",
            self.state().display()
        );
        let config = Arc::new(config::parse(&config).unwrap());
        let renderer = Arc::new(Renderer::new(&BTreeMap::new()).unwrap());
        let store_too = Arc::clone(&store);
        let maker = Maker {
            config,
            renderer,
            guard: GuardMemory::open(&store, jiff::Timestamp::now()),
            store: store_too,
            sessions: SessionCache::default(),
            clock: Mutex::default(),
            changing: Mutex::default(),
        };
        let (publish, desired) = watch::channel(Arc::new(maker.desired()));
        let (applied_changes, sent_changes) = mpsc::unbounded_channel();
        let context = Context {
            begun: tokio::time::Instant::now(),
            store,
            kernel: self.kernel.clone(),
            observer: Observer::new(self.kernel.clone(), self.bird.clone()),
            committer: self.bird.clone(),
            firewall: FirewallKeeper::new(Arc::new(Nobody), SharedOwnership::default()),
            resolver: Resolver::start(Arc::new(Nobody), ResolverSettings::default()),
            prober: Prober::start(Arc::new(Nobody), ProbeSettings::default()),
            desired,
            reports: Arc::new(Reports::new(None)),
            applied_changes,
            statuses: StatusCache::default(),
            first_lists: Default::default(),
            pulse: moenet_agent::controller::Pulse::default(),
            announced: moenet_agent::controller::Announced::default(),
            restarts: Restarts::default(),
            enabled: Enabled::default(),
            permits: Permits::default(),
            hints: parking_lot::Mutex::default(),
            records: Records::default(),
            status_writes: Statuses::default(),
            step_log: StepLog::default(),
            conveniences: Default::default(),
            unrecorded: Default::default(),
            sysctls: Default::default(),
        };
        Agent {
            context: Arc::new(context),
            maker,
            publish,
            sent_changes,
            running: None,
        }
    }
}

pub(crate) fn name(number: u8) -> String {
    format!("wg_{number}")
}

pub(crate) fn uid(number: u8) -> String {
    format!("uid-{number}")
}

pub(crate) fn interface(number: u8) -> InterfaceName {
    name(number).parse().unwrap()
}

pub(crate) fn session_key(number: u8) -> ObjectKey {
    Kind::BgpSession.key(&name(number).parse().unwrap())
}

/// The specification of a peering.
pub(crate) fn session(number: u8, admin_state: &str) -> serde_json::Value {
    json!({
        "adminState": admin_state, "asn": 4_242_421_000 + u32::from(number),
        "tunnel": {
            "type": "wireguard", "interface": name(number), "listenPort": 21_000 + u32::from(number),
            "publicKey": key(number).to_string(), "endpoint": format!("192.0.2.{number}:51820")
        },
        "address": {"peerLinkLocal": format!("fe80::{number}")}
    })
}

/// Writes a document of the sync's.
pub(crate) fn write<S: Spec>(store: &Store, name: &str, uid: &str, spec: serde_json::Value) {
    let name: ObjectName = name.parse().unwrap();
    let spec = serde_json::from_value(spec).unwrap();
    store
        .write_document(&Document::<S>::new(
            name,
            Some(uid.parse().unwrap()),
            1,
            spec,
        ))
        .unwrap();
}

/// Makes desired states from the state directory.
struct Maker {
    config: Arc<Config>,
    renderer: Arc<Renderer>,
    store: Arc<Store>,
    guard: GuardMemory,
    sessions: SessionCache,
    /// How far its clock is off.
    clock: Mutex<jiff::SignedDuration>,
    /// Whether files of the state directory are being written.
    changing: Mutex<bool>,
}

impl Maker {
    /// As the agent does it: what the guard counts is written down before the desired state takes effect.
    fn desired(&self) -> Desired {
        let desired = self.guard.recall(|guard| self.build(guard));
        if self.guard.remember(&self.store, &desired.ledger) {
            return desired;
        }
        self.guard.recall(|guard| self.build(guard))
    }

    fn build(&self, guard: &guard::Input<'_>) -> Desired {
        let mut snapshot = Snapshot::clone(&self.store.load().unwrap());
        snapshot.settled &= !*self.changing.lock().unwrap();
        let (config, renderer) = (Arc::clone(&self.config), Arc::clone(&self.renderer));
        let material = Material {
            features: Ok(Features::of(2, 17)),
            approved: self.store.approved(),
            ..Material::new(config, router_key(), renderer)
        };
        Desired::build(&Inputs {
            snapshot: &snapshot,
            material: &material,
            guard: *guard,
            sessions: &self.sessions,
            now: jiff::Timestamp::now() + *self.clock.lock().unwrap(),
        })
    }
}

/// An agent's controller.
pub(crate) struct Agent {
    pub(crate) context: Arc<Context>,
    maker: Maker,
    publish: watch::Sender<Arc<Desired>>,
    sent_changes: mpsc::UnboundedReceiver<AppliedChange>,
    running: Option<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn store(&self) -> &Store {
        &self.context.store
    }

    /// Sets the clock, from now on so much off the real one.
    pub(crate) fn set_clock(&self, off: jiff::SignedDuration) {
        *self.maker.clock.lock().unwrap() = off;
        self.relist();
    }

    /// Sets whether files of the state directory are being written.
    pub(crate) fn set_changing(&self, changing: bool) {
        *self.maker.changing.lock().unwrap() = changing;
    }

    /// Lists the state directory again, as after any event.
    pub(crate) fn relist(&self) {
        self.publish.send_replace(Arc::new(self.maker.desired()));
    }

    /// One pass over everything.
    pub(crate) async fn pass(&self) {
        self.relist();
        Runner::new(Arc::clone(&self.context)).run_once().await;
    }

    /// Runs in the background until [`Agent::kill`].
    pub(crate) fn run(&mut self) -> mpsc::UnboundedSender<Hint> {
        let (hints, inbox) = mpsc::unbounded_channel();
        *self.context.hints.lock() = Some(hints.clone());
        self.running = Some(tokio::spawn(
            Runner::new(Arc::clone(&self.context)).run(inbox),
        ));
        hints
    }

    /// Ends as at SIGTERM: what has begun is done first.
    pub(crate) async fn stop(&mut self, hints: mpsc::UnboundedSender<Hint>) {
        drop(hints);
        *self.context.hints.lock() = None;
        if let Some(running) = self.running.take() {
            running.await.unwrap();
        }
    }

    /// Ends the agent where it is, and gives its lock back.
    pub(crate) async fn kill(mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        drop(self);
        // What runs beside it ends when it is next asked.
        sleep(Duration::from_millis(10)).await;
    }

    pub(crate) fn status(&self, number: u8) -> StatusBody {
        let status = self.context.statuses.get(&session_key(number));
        Arc::unwrap_or_clone(status.unwrap_or_default())
    }

    /// What came into force since the last time this was asked.
    pub(crate) fn sent_changes(&mut self) -> Vec<AppliedChange> {
        std::iter::from_fn(|| self.sent_changes.try_recv().ok()).collect()
    }

    pub(crate) fn applied(&self) -> usize {
        let snapshot = self.store().load().unwrap();
        snapshot
            .applied
            .keys()
            .filter(|(kind, _)| *kind == Kind::BgpSession)
            .count()
    }
}
