//! Undoes an adoption: kernel, nftables, the files with the record, and at last units.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;

use super::{AdoptionError, Undone, before, record, state, units};
use crate::adopt::{
    Before, Now, Phase, Record, Restoration, Scope, forgetting, gone, of_undo, reverse,
    reverse_host,
};
use crate::agent::build;
use crate::bird::Client as BirdClient;
use crate::config::Config;
use crate::controller::planning;
use crate::document::Kind;
use crate::firewall::{Firewall as _, FirewallError, Nft};
use crate::kernel::LinuxKernel;
use crate::model::InterfaceName;
use crate::observed::Ownership;
use crate::observed::kernel::{KernelView, SavedRoute};
use crate::plan::Action;
use crate::plan::action::KernelAction;
use crate::plan::firewall::FirewallView;
use crate::ports::{Kernel as _, KernelError};
use crate::store::{Place, Store};
use crate::telemetry::chain;
use crate::util::task::blocking;

/// The undo of the recorded adoption of an open state directory. May be repeated until it succeeds.
pub(super) struct Undo {
    store: Arc<Store>,
    record: Record,
    scope: Scope,
    ownership: Arc<Ownership>,
    kernel: LinuxKernel,
}

impl Undo {
    /// Reads the record.
    ///
    /// # Errors
    /// It cannot be read, or is another machine's.
    pub(super) async fn open(config: &Config, store: &Arc<Store>) -> Result<Self, AdoptionError> {
        let opened = Arc::clone(store);
        let (record, scope) = blocking(move || recorded(&opened)).await?;
        let ownership = build::ownership(store).await;
        let known = ownership.get();
        Ok(Self {
            store: Arc::clone(store),
            record,
            scope,
            ownership: known,
            kernel: LinuxKernel::new(build::kernel_options(config, ownership)),
        })
    }

    pub(super) fn phase(&self) -> Phase {
        self.record.phase
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// What could not be undone; the record stays.
    pub(super) async fn run(self, config: &Config) -> Result<Undone, AdoptionError> {
        let mut undone = Undone::default();
        self.kernel_part(&mut undone).await?;
        if self.scope == Scope::Everything && table(&Nft::default(), &self.ownership).await? {
            let done = "removed the agent's table in nftables";
            undone.done.push(done.to_owned());
        }
        let Self {
            store,
            record,
            scope,
            ..
        } = self;
        let directory = config.bird.directory.clone();
        let (record, mut undone) = blocking(move || {
            let roots = before::bird_roots(&directory)?;
            match scope {
                Scope::Everything => state::everything(&store, &record, &roots, &mut undone)?,
                Scope::Adopted => state::adopted(&store, &record, &roots, &mut undone)?,
            }
            Ok::<_, AdoptionError>((record, undone))
        })
        .await?;
        // The last step: a systemd that hangs must not keep files as the agent left them.
        enable(&record, &mut undone).await;
        Ok(undone)
    }

    /// Returns the changes that interrupt a tunnel or reset a session.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub(super) async fn interruptions(
        &self,
        config: &Config,
    ) -> Result<Vec<String>, AdoptionError> {
        let (view, routes) = self.now().await?;
        // Without BIRD no session can be reset.
        let client = BirdClient::new(&config.bird.control_socket);
        let (protocols, unknown) = match client.protocols().await {
            Ok(protocols) => (protocols, None),
            Err(error) if error.is_not_running() => (Arc::default(), None),
            Err(error) => {
                let why = chain(&error);
                let unknown = format!("it is unknown which BGP sessions reset: {why}");
                (Arc::default(), Some(unknown))
            }
        };
        let seen = Now {
            kernel: &view,
            routes: &routes,
        };
        let before = Before {
            kernel: &view,
            protocols: &protocols,
        };
        let harm = of_undo(&reverse(&self.record, seen, self.scope), before);
        let host = self.host(&view).map(|action| {
            format!("{action}, which drops packets whose way back is another interface")
        });
        Ok(harm.into_iter().chain(host).chain(unknown).collect())
    }

    /// Reads the kernel, with the routes through the recorded links.
    async fn now(&self) -> Result<(KernelView, Routes), AdoptionError> {
        let view = self.kernel.observe().await?;
        let mut routes = Routes::new();
        for interface in self.record.links.keys() {
            let of = self.kernel.operators_routes(interface).await?;
            routes.insert(interface.clone(), of);
        }
        Ok((view, routes))
    }

    /// Returns the change of the sysctls of all links together.
    fn host(&self, view: &KernelView) -> Option<KernelAction> {
        let is_all = self.scope == Scope::Everything;
        is_all.then(|| reverse_host(&self.record, view))?
    }

    /// Restores the kernel's state. Marks go last: what carries one is restored again by the next undo.
    async fn kernel_part(&self, undone: &mut Undone) -> Result<(), AdoptionError> {
        let (view, routes) = self.now().await?;
        undone.kept.extend(gone(&self.record, &view));
        let seen = Now {
            kernel: &view,
            routes: &routes,
        };
        let links = reverse(&self.record, seen, self.scope);
        let kept = links.iter().flat_map(|link| &link.kept);
        undone.kept.extend(kept.cloned());
        // The kernel removes addresses that depend on another, and routes. An undo that fails after that must know later that
        // no operator removed them.
        let again = forgetting(&self.record, seen);
        if let Err(error) = record::save(&self.store, &again).await {
            // A full disk must not keep tunnels down: only a repeated undo needs the record.
            warn!(error = %chain(&error), "record of the adoption not written; undoing nevertheless");
        }
        // A route may need another one to its gateway, which comes later: the second round tries it again.
        settings(&self.kernel, &links, undone).await?;
        let (view, routes) = self.now().await?;
        let seen = Now {
            kernel: &view,
            routes: &routes,
        };
        let links = reverse(&again, seen, self.scope);
        let lost = settings(&self.kernel, &links, undone).await?;
        undone.kept.extend(lost);
        let (view, routes) = self.now().await?;
        if let Some(action) = self.host(&view) {
            apply(&self.kernel, "all links", &[action], undone).await?;
        }
        let seen = Now {
            kernel: &view,
            routes: &routes,
        };
        for link in reverse(&again, seen, self.scope) {
            let interface = link.interface.as_str();
            apply(&self.kernel, interface, link.last.as_slice(), undone).await?;
        }
        Ok(())
    }
}

/// Enables units that the adoption disabled, and names those that someone else has disabled since. Nothing else waits for
/// systemd.
async fn enable(record: &Record, undone: &mut Undone) {
    let mut disabled = BTreeSet::new();
    for unit in record.enabled.difference(&record.units) {
        match units::enabled(unit).await {
            Ok(true) => {}
            Ok(false) => {
                disabled.insert(unit.clone());
            }
            // The next call would wait as long.
            Err(error) => {
                let why = chain(&error);
                let kept = format!("it is unknown which units were disabled since: {why}");
                undone.kept.push(kept);
                break;
            }
        }
    }
    if !disabled.is_empty() {
        undone.kept.push(format!(
            "units were enabled before the adoption and are disabled now; `{}` enables them",
            units::command(&disabled, true)
        ));
    }
    if record.units.is_empty() {
        return;
    }
    match units::switch(&record.units, true).await {
        Ok(command) => undone.done.push(format!("ran `{command}`")),
        Err(error) => {
            let error = chain(&error);
            warn!(error, "units not enabled again");
            let kept = format!("units are disabled: {error}; run it yourself");
            undone.kept.push(kept);
        }
    }
}

/// Returns the record, and whether the adoption made all that the state directory has.
fn recorded(store: &Store) -> Result<(Record, Scope), AdoptionError> {
    let record = record::read(store.dir())?.ok_or_else(|| AdoptionError::NoRecord {
        path: store.dir().to_owned(),
    })?;
    record::check_machine(store.dir(), &record)?;
    if record.phase == Phase::Applying {
        return Ok((record, Scope::Everything));
    }
    let snapshot = store.load()?;
    let is_adopted =
        |place: &Place| place.kind == Kind::BgpSession && record.documents.contains(&place.name);
    let alone = snapshot.documents().all(|(place, _)| is_adopted(&place));
    let scope = match alone && snapshot.overrides.is_empty() {
        true => Scope::Everything,
        false => Scope::Adopted,
    };
    Ok((record, scope))
}

type Routes = BTreeMap<InterfaceName, BTreeSet<SavedRoute>>;

/// Returns the routes that the kernel refuses: one that cannot be restored must not keep all others as they are.
async fn settings(
    kernel: &LinuxKernel,
    links: &[Restoration],
    undone: &mut Undone,
) -> Result<Vec<String>, AdoptionError> {
    let mut lost = Vec::new();
    for link in links {
        let interface = &link.interface;
        apply(kernel, interface.as_str(), &link.settings, undone).await?;
        for route in &link.routes {
            match kernel.restore_route(interface, route).await {
                Ok(()) => undone
                    .done
                    .push(format!("restore a route through {interface}")),
                Err(error) => lost.push(format!("not done: {}", chain(&error))),
            }
        }
    }
    Ok(lost)
}

async fn apply(
    kernel: &LinuxKernel,
    interface: &str,
    actions: &[KernelAction],
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let actions: Vec<_> = actions.iter().collect();
    let results = kernel.apply(&actions).await;
    let done: Result<(), KernelError> = results.into_iter().collect();
    undone.done.extend(actions.iter().map(ToString::to_string));
    done.map_err(|source| AdoptionError::Restore {
        interface: interface.to_owned(),
        source,
    })
}

/// Removes the agent's table in nftables, and returns whether there was one. Without `nft` it has no table.
async fn table(nft: &Nft, ownership: &Ownership) -> Result<bool, AdoptionError> {
    let view = match nft.observe().await {
        Err(FirewallError::Missing { .. } | FirewallError::Refused { .. }) => {
            Ok(FirewallView::default())
        }
        view => view,
    }?;
    let step = planning::firewall(None, &view, ownership);
    let step = step.map_err(|refusal| AdoptionError::Table(refusal.to_string()))?;
    if let Some(Action::Firewall(action)) = step.map(|step| step.action) {
        nft.apply(&action).await?;
        return Ok(true);
    }
    Ok(false)
}
