//! A kernel and a BIRD in memory, which count what is asked of them, take their time, fail, and stop for
//! good in the middle, as a machine does when the agent is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use moenet_agent::firewall::{Firewall, FirewallError};
use moenet_agent::model::{InterfaceName, Uid};
use moenet_agent::observed::bird::outline::protocols_in;
use moenet_agent::observed::bird::{
    Bgp, BgpState, BirdName, BirdState, Diagnostic, LiveTree, Protocol, ProtocolState, Silence,
    Texts, Tree, Version,
};
use moenet_agent::observed::kernel::{KernelView, Link, Unread};
use moenet_agent::plan::action::{KernelAction, NewLink};
use moenet_agent::plan::firewall::{FirewallAction, FirewallView};
use moenet_agent::ports::{
    BaseError, Bird, BirdError, CommitError, Committed, Fragment, FragmentError, Kernel,
    KernelError,
};
use moenet_agent::sources::probe::{Ping, ProbeError, ProbeSettings, Target};
use moenet_agent::sources::resolve::Lookup;
use tokio::time::{Instant, sleep};

use crate::plan::kernel::ModelKernel;

/// When the agent dies: at this step, counted from 0 over kernel and BIRD, before or after its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) step: usize,
    pub(crate) done: bool,
}

/// The steps taken so far, and the one at which the agent dies. From then on nothing answers.
#[derive(Debug, Default)]
pub(crate) struct Fate(Mutex<(usize, Option<Death>)>);

impl Fate {
    pub(crate) fn die_at(&self, death: Option<Death>) {
        *self.0.lock().unwrap() = (0, death);
    }

    pub(crate) fn steps(&self) -> usize {
        self.0.lock().unwrap().0
    }

    /// Does one step, or never returns.
    async fn step<T: Send>(&self, effect: impl FnOnce() -> T + Send) -> T {
        let (step, death) = {
            let mut fate = self.0.lock().unwrap();
            fate.0 += 1;
            (fate.0 - 1, fate.1)
        };
        match death {
            Some(death) if step > death.step || (step == death.step && !death.done) => {
                std::future::pending().await
            }
            Some(death) if step == death.step => {
                effect();
                std::future::pending().await
            }
            _ => {
                let value = effect();
                // Time stands still while somebody works; a look after this is to be later than one before.
                sleep(Duration::from_millis(1)).await;
                value
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct FakeKernel {
    pub(crate) model: Mutex<ModelKernel>,
    pub(crate) fate: Arc<Fate>,
    /// How long each change takes.
    pub(crate) takes: Mutex<Duration>,
    /// Changes of these links are refused.
    pub(crate) refuses: Mutex<BTreeSet<InterfaceName>>,
    /// Changes of these links never end.
    pub(crate) hangs: Mutex<BTreeSet<InterfaceName>>,
    /// Every change that was asked for, and when.
    pub(crate) asked: Mutex<Vec<(Instant, InterfaceName)>>,
    pub(crate) looks: Mutex<usize>,
    /// Observations of WireGuard alone.
    pub(crate) wireguard_looks: Mutex<usize>,
    /// Observations of single links.
    pub(crate) glances: Mutex<usize>,
    /// The time of every peer's handshake.
    pub(crate) answered: OnceLock<jiff::Timestamp>,
    /// The kernel has no dummy devices.
    pub(crate) lacks_dummies: Mutex<bool>,
    /// The WireGuard configuration of these links cannot be read.
    pub(crate) unread: Mutex<BTreeSet<InterfaceName>>,
    /// Links whose userspace WireGuard runs and has not created them yet.
    pub(crate) starting: Mutex<BTreeSet<InterfaceName>>,
    /// Changes in progress, by link, and the most there were at once: of one link, and of all.
    pub(crate) busy: Mutex<(BTreeMap<InterfaceName, usize>, usize, usize)>,
}

impl FakeKernel {
    /// The links, without the numbers that the kernel gives them.
    pub(crate) fn links(&self) -> BTreeMap<InterfaceName, Link> {
        let mut links = self.model.lock().unwrap().links.clone();
        links.values_mut().for_each(|link| link.index = 0);
        links
    }

    /// The most changes at once: of one link, and of all.
    pub(crate) fn most_at_once(&self) -> (usize, usize) {
        let busy = self.busy.lock().unwrap();
        (busy.1, busy.2)
    }

    fn begin(&self, name: &InterfaceName) {
        let mut busy = self.busy.lock().unwrap();
        *busy.0.entry(name.clone()).or_default() += 1;
        let (one, all) = (busy.0[name], busy.0.values().sum());
        (busy.1, busy.2) = (busy.1.max(one), busy.2.max(all));
    }

    fn change(&self, name: &InterfaceName, action: &KernelAction) -> Result<(), String> {
        let mut model = self.model.lock().unwrap();
        // Whose step this is: the model stops the test when it touches what is somebody else's.
        model.uid = owner(action).or_else(|| model.links.get(name)?.mark.object().cloned());
        // A UDP port has one socket.
        if let KernelAction::ConfigureWireGuard { patch, .. } = action {
            let others = model.links.iter().filter(|(other, _)| *other != name);
            let mut taken = others.filter_map(|(_, link)| link.wireguard.as_ref()?.listen_port);
            if taken.any(|port| Some(port) == patch.listen_port) {
                return Err("Address already in use".to_owned());
            }
        }
        model.apply(action)
    }
}

fn owner(action: &KernelAction) -> Option<Uid> {
    match action {
        KernelAction::SetMark { uid, .. }
        | KernelAction::RenameLink { uid, .. }
        | KernelAction::DeleteLink { uid, .. } => Some(uid.clone()),
        _ => None,
    }
}

#[async_trait]
impl Kernel for FakeKernel {
    async fn observe(&self) -> Result<KernelView, KernelError> {
        *self.looks.lock().unwrap() += 1;
        let mut view = self.model.lock().unwrap().observe();
        // Every peer has answered.
        let answered = *self.answered.get_or_init(jiff::Timestamp::now);
        let names: Vec<_> = view.links.keys().cloned().collect();
        for name in names {
            let link = view.links.get_mut(&name).unwrap();
            let peers = link
                .wireguard
                .iter_mut()
                .flat_map(|it| it.peers.values_mut());
            peers.for_each(|peer| peer.last_handshake = Some(answered));
        }
        for name in self.unread.lock().unwrap().iter() {
            let link = view.links.get_mut(name).unwrap();
            (link.wireguard, link.unread) = (None, Some(Unread::new("its process hangs")));
        }
        Ok(view)
    }

    async fn observe_wireguard(&self, mut view: KernelView) -> KernelView {
        let now = self.model.lock().unwrap().observe();
        *self.wireguard_looks.lock().unwrap() += 1;
        for (name, link) in now.links.iter() {
            let Some(seen) = view.links.get_mut(name) else {
                continue;
            };
            let handshake = |link: &Link| {
                let peers = link.wireguard.as_ref()?.peers.values();
                peers.filter_map(|peer| peer.last_handshake).max()
            };
            let before = handshake(seen);
            (seen.wireguard, seen.unread) = (link.wireguard.clone(), None);
            let peers = seen.wireguard.iter_mut();
            let peers = peers.flat_map(|it| it.peers.values_mut());
            peers.for_each(|peer| peer.last_handshake = before);
        }
        view
    }

    async fn observe_links(
        &self,
        names: &BTreeSet<InterfaceName>,
    ) -> Result<BTreeMap<InterfaceName, Option<Link>>, KernelError> {
        let looks = *self.looks.lock().unwrap();
        let mut view = self.observe().await?;
        *self.looks.lock().unwrap() = looks;
        *self.glances.lock().unwrap() += 1;
        let found = |name: &InterfaceName| (name.clone(), view.links.remove(name));
        Ok(names.iter().map(found).collect())
    }

    async fn is_starting(&self, interface: &InterfaceName) -> bool {
        self.starting.lock().unwrap().contains(interface)
    }

    async fn apply(&self, actions: &[&KernelAction]) -> Vec<Result<(), KernelError>> {
        let mut results = Vec::new();
        for action in actions {
            let result = self.apply_one(action).await;
            let ends = result.is_err() && !matches!(action, KernelAction::SetSysctl { .. });
            results.push(result);
            if ends {
                break;
            }
        }
        results
    }
}

impl FakeKernel {
    async fn apply_one(&self, action: &KernelAction) -> Result<(), KernelError> {
        if let KernelAction::SetSysctl {
            interface: None,
            key,
            value,
        } = action
        {
            self.model.lock().unwrap().all.insert(*key, *value);
        }
        // A sysctl of all links changes no link.
        let Some(name) = action.interface().cloned() else {
            return Ok(());
        };
        self.asked
            .lock()
            .unwrap()
            .push((Instant::now(), name.clone()));
        if self.hangs.lock().unwrap().contains(&name) {
            std::future::pending::<()>().await;
        }
        self.begin(&name);
        let takes = *self.takes.lock().unwrap();
        sleep(takes).await;
        *self.busy.lock().unwrap().0.get_mut(&name).unwrap() -= 1;
        let refused = |reason: String| KernelError::Request {
            operation: action.to_string(),
            reason,
        };
        let is_dummy = matches!(
            action,
            KernelAction::CreateLink {
                kind: NewLink::Dummy,
                ..
            }
        );
        if is_dummy && *self.lacks_dummies.lock().unwrap() {
            return Err(KernelError::Unsupported {
                operation: action.to_string(),
                missing: "no dummy devices".to_owned(),
            });
        }
        if self.refuses.lock().unwrap().contains(&name) {
            return Err(refused("Operation not permitted".to_owned()));
        }
        self.fate
            .step(|| self.change(&name, action))
            .await
            .map_err(refused)
    }
}

#[derive(Default)]
pub(crate) struct FakeBird {
    pub(crate) tree: Mutex<Tree>,
    pub(crate) fate: Arc<Fate>,
    /// Sessions whose text is refused.
    pub(crate) refuses: Mutex<BTreeSet<String>>,
    pub(crate) sets: Mutex<usize>,
    /// Number of changes that were asked for.
    pub(crate) asked: Mutex<usize>,
    /// That number each time that all had been asked for.
    pub(crate) asked_all: Mutex<Vec<usize>>,
    pub(crate) looks: Mutex<usize>,
    /// How often it read its files, and until when what is set goes with the next time.
    pub(crate) reloads: Mutex<(usize, Option<Instant>)>,
    /// It does not run.
    pub(crate) down: Mutex<bool>,
    /// It accepts connections and never answers.
    pub(crate) hangs: Mutex<bool>,
    /// Whether its files cannot be read.
    pub(crate) unreadable: Mutex<bool>,
    /// How long each commit takes in addition.
    pub(crate) delay: Mutex<Duration>,
    /// Protocols that a command disabled.
    pub(crate) disabled: Mutex<BTreeSet<String>>,
    /// Protocols whose neighbour never answers.
    pub(crate) connecting: Mutex<BTreeSet<String>>,
    /// Every protocol that was enabled, in order.
    pub(crate) enables: Mutex<Vec<String>>,
}

/// The time that the committer gathers changes.
const GATHER: Duration = Duration::from_millis(200);

impl FakeBird {
    /// Gathers what is set, as the committer does: all within one gather time is one reload.
    async fn gather(&self) {
        *self.asked.lock().unwrap() += 1;
        if *self.hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        let delay = *self.delay.lock().unwrap();
        sleep(delay).await;
        *self.sets.lock().unwrap() += 1;
        let end = {
            let mut reloads = self.reloads.lock().unwrap();
            let now = Instant::now();
            match reloads.1.filter(|end| now < *end) {
                Some(end) => end,
                None => {
                    *reloads = (reloads.0 + 1, Some(now + GATHER));
                    now + GATHER
                }
            }
        };
        tokio::time::sleep_until(end).await;
    }

    fn committed(&self) -> Committed {
        let generation = self.tree.lock().unwrap().generation();
        Committed {
            loaded: true,
            changed: true,
            warnings: Vec::new(),
            generation,
        }
    }
}

#[async_trait]
impl Bird for FakeBird {
    async fn look(&self) -> BirdState {
        *self.looks.lock().unwrap() += 1;
        if *self.hangs.lock().unwrap() {
            // The deadline of a command.
            sleep(Duration::from_secs(10)).await;
        }
        let silent = self
            .hangs
            .lock()
            .unwrap()
            .then(|| "BIRD did not answer".to_owned());
        let tree = self.tree.lock().unwrap().clone();
        let running = !*self.down.lock().unwrap() && silent.is_none();
        let texts = tree.fragments.values().chain(tree.base.values());
        let names: BTreeSet<_> = texts.flat_map(|text| protocols_in(text)).collect();
        let is_in = |all: &Mutex<BTreeSet<String>>, name: &str| all.lock().unwrap().contains(name);
        let protocol = |name: String| match name {
            name if is_in(&self.disabled, &name) => disabled(name),
            name if is_in(&self.connecting, &name) => connecting(name),
            name => established(name),
        };
        let protocols = names.into_iter().map(protocol);
        let unreadable = *self.unreadable.lock().unwrap();
        let tree = Some(tree).filter(|_| !unreadable).unwrap_or_default();
        BirdState {
            running: running.then_some(Version::new(2, 17, 6)),
            down: (!running).then(|| "BIRD is not running".to_owned()),
            protocols: protocols.filter(|_| running).collect(),
            live: Arc::new(LiveTree {
                generation: Some(tree.generation()),
                tree,
                ..LiveTree::default()
            }),
            installed: running.then_some(Version::new(2, 17, 6)),
            files_error: unreadable.then(|| "input/output error".to_owned()),
            loaded: running,
            silent: silent.map(Silence::Failed),
            ..BirdState::default()
        }
    }

    async fn set_fragment(
        &self,
        name: &str,
        fragment: Option<Fragment>,
    ) -> Result<Committed, FragmentError> {
        self.gather().await;
        if self.refuses.lock().unwrap().contains(name) {
            let what = Diagnostic {
                message: "syntax error".to_owned(),
                ..Diagnostic::default()
            };
            return Err(FragmentError::Refused {
                name: name.to_owned(),
                what,
            });
        }
        let change = || {
            let fragments = &mut self.tree.lock().unwrap().fragments;
            match fragment {
                Some(fragment) => drop(fragments.insert(name.to_owned(), fragment.text)),
                None => drop(fragments.remove(name)),
            }
        };
        self.fate.step(change).await;
        Ok(self.committed())
    }

    async fn set_base(&self, files: Texts) -> Result<Committed, BaseError> {
        self.gather().await;
        self.fate
            .step(|| self.tree.lock().unwrap().base = files)
            .await;
        Ok(self.committed())
    }

    fn all_requested(&self) {
        let asked = *self.asked.lock().unwrap();
        self.asked_all.lock().unwrap().push(asked);
    }

    async fn converge(&self) -> Result<Committed, Arc<CommitError>> {
        Ok(self.committed())
    }

    async fn restart(&self, _name: BirdName) -> Result<(), BirdError> {
        Ok(())
    }

    async fn enable(&self, name: BirdName) -> Result<bool, BirdError> {
        self.enables.lock().unwrap().push(name.to_string());
        Ok(self.disabled.lock().unwrap().remove(name.as_str()))
    }
}

fn established(name: String) -> Protocol {
    Protocol {
        name,
        proto: "BGP".to_owned(),
        table: None,
        state: ProtocolState::Up,
        since: None,
        info: String::new(),
        description: None,
        message: None,
        bgp: Some(Bgp {
            state: BgpState::Established,
            ..Bgp::default()
        }),
        rpki: None,
        channels: Vec::new(),
    }
}

fn connecting(name: String) -> Protocol {
    let bgp = Bgp {
        state: BgpState::Connect,
        ..Bgp::default()
    };
    Protocol {
        state: ProtocolState::Start,
        bgp: Some(bgp),
        ..established(name)
    }
}

fn disabled(name: String) -> Protocol {
    Protocol {
        state: ProtocolState::Down,
        bgp: Some(Bgp::default()),
        ..established(name)
    }
}

/// No name resolves, and no peer answers.
pub(crate) struct Nobody;

#[async_trait]
impl Lookup for Nobody {
    async fn lookup(&self, _name: &str) -> std::io::Result<Vec<IpAddr>> {
        Err(std::io::Error::other("Name or service not known"))
    }
}

#[async_trait]
impl Ping for Nobody {
    async fn ping(
        &self,
        _target: &Target,
        settings: &ProbeSettings,
    ) -> Result<Vec<Option<Duration>>, ProbeError> {
        sleep(settings.timeout).await;
        Ok(vec![None; usize::from(settings.count)])
    }
}

#[async_trait]
impl Firewall for Nobody {
    async fn observe(&self) -> Result<FirewallView, FirewallError> {
        Err(FirewallError::Missing {
            operation: "look at the firewall",
            program: "nft".into(),
        })
    }

    async fn apply(&self, action: &FirewallAction) -> Result<(), FirewallError> {
        panic!("the firewall is not enabled, and was told to {action:?}")
    }

    fn writes(&self) -> u64 {
        0
    }
}
