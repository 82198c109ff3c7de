//! Inspection of a router without its daemon: the desired state of its state directory, and the observed state.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::agent::Parts;
use crate::config::Config;
use crate::controller::builder::rpki_resolved;
use crate::controller::planning;
use crate::controller::{KeyObservation, KeyPlan, Missing, Sessions, observed, sessions};
use crate::desired::guard::Unrecorded;
use crate::desired::{Desired, Object, single};
use crate::document::{Kind, StatusBody};
use crate::firewall::FirewallError;
use crate::intervals::OFFLINE_NAMES;
use crate::kernel::source_towards;
use crate::model::{Endpoint, Host, ObjectKey, ObjectName};
use crate::observed::bird::{BirdState, MainFile, Tree};
use crate::observed::kernel::KernelView;
use crate::plan::firewall::FirewallView;
use crate::plan::{Plan, Refusal};
use crate::ports::CommitError;
use crate::store::{AppliedDocument, COMPLETE, Snapshot, Store};
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::task::blocking;

/// Opens the state directory for reading.
///
/// # Errors
/// When it does not exist, which is no error before the first start, or is not readable.
pub(crate) fn open(directory: &Path) -> anyhow::Result<Store> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => anyhow::bail!(
            "state directory {} does not exist. First start: run `moenet-agent run`. Otherwise \
             check the mount and state.directory",
            directory.display()
        ),
        listed => drop(
            listed.with_context(|| format!("read the state directory {}", directory.display()))?,
        ),
    }
    let store = Store::open_read_only(directory)?;
    store.remember_secrets();
    Ok(store)
}

/// Returns whether the state directory holds what a pass would act on.
fn is_used(snapshot: &Snapshot) -> bool {
    let mut documents = snapshot.documents();
    documents.any(|(place, _)| place.kind != Kind::Maintenance)
        || !snapshot.overrides.is_empty()
        || !snapshot.applied.is_empty()
}

/// Refuses a rehearsal of the first start beside a state directory that is in use: the agent would act on that.
fn refuse_used(directory: &Path) -> anyhow::Result<()> {
    if !fs::exists(directory) {
        return Ok(());
    }
    let snapshot = open(directory)?.load_settled(Timestamp::now())?;
    if is_used(&snapshot) {
        anyhow::bail!(
            "state directory {} holds documents, overrides or applied records already, so the plan of a first start \
             is not what would run. See `moenet-agent plan` for what would",
            directory.display()
        );
    }
    Ok(())
}

/// The observed and the wanted state of a router, at one moment. Created without any write.
pub(crate) struct Offline {
    pub(crate) parts: Parts,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) desired: Arc<Desired>,
    pub(crate) kernel: Arc<KernelView>,
    pub(crate) bird: Arc<BirdState>,
    /// The packet filter, or why it cannot be read.
    pub(crate) filter: Result<FirewallView, FirewallError>,
    /// Why BIRD's parser rejects the files together with the operator's main file.
    pub(crate) refused: Option<String>,
    /// The state directory of a plan before the first start.
    _rehearsal: Option<tempfile::TempDir>,
}

/// The wanted state of a router. Needs neither the kernel nor a running BIRD.
pub(crate) struct Wanted {
    pub(crate) parts: Parts,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) desired: Arc<Desired>,
    bird: Arc<BirdState>,
}

/// Lists the state directory as the agent does: a manual edit is an override, a deleted document comes back, and an approval
/// may state that nothing is missing.
async fn listed(parts: &Parts) -> anyhow::Result<Snapshot> {
    let context = &parts.shared.context;
    let listed = context.disk(|store| store.load_settled(Timestamp::now()));
    let mut snapshot = listed.await?;
    snapshot.complete |= context.store.approved().contains(COMPLETE);
    Ok(snapshot)
}

impl Wanted {
    /// Reads the state directory.
    pub(crate) async fn read(config: Config) -> anyhow::Result<Self> {
        Missing::look(&config).await?;
        let directory = config.state.directory.clone();
        let store = blocking(move || open(&directory)).await?;
        Self::of(Parts::with_store(config, Arc::new(store)).await?).await
    }

    async fn of(parts: Parts) -> anyhow::Result<Self> {
        let snapshot = Arc::new(listed(&parts).await?);
        parts.shared.context.observer.wait_for_bird();
        let bird = parts.shared.context.observer.bird(Instant::now()).await;
        let desired = parts.builder.maker.make(&snapshot, &bird).await;
        Ok(Self {
            parts,
            snapshot,
            desired,
            bird,
        })
    }

    /// Returns whether the state directory, but for the applied records, is still as in a listing.
    pub(crate) async fn is_still(&self, before: &Snapshot) -> anyhow::Result<bool> {
        let mut now = listed(&self.parts).await?;
        now.applied.clone_from(&before.applied);
        Ok(now == *before)
    }

    /// Returns why BIRD's parser rejects wanted files together with the operator's main file; `None` if it accepts them, and if the main file is the agent's or does not include the agent's files.
    ///
    /// # Errors
    /// When it cannot be checked.
    pub(crate) async fn refused(&self, desired: &Desired) -> anyhow::Result<Option<String>> {
        let main = &self.bird.live.main;
        let Ok(base) = &desired.base else {
            return Ok(None);
        };
        if main.is_agents() || !main.included {
            return Ok(None);
        }
        let tree = Tree {
            base: base.clone(),
            fragments: desired.texts(),
            ..Tree::default()
        };
        match self.parts.shared.committer.check(tree).await {
            Ok(()) => Ok(None),
            Err(CommitError::Tree(what)) => Ok(Some(format!("BIRD configuration failed: {what}"))),
            Err(error) => Err(error).context("check BIRD's configuration"),
        }
    }

    /// Returns BIRD's main file.
    pub(crate) fn main_file(&self) -> &MainFile {
        &self.bird.live.main
    }

    /// Returns why the shared files of all sessions cannot be loaded into BIRD until an operator acts.
    pub(crate) fn blocked(&self) -> Option<String> {
        planning::router_error(&self.desired, &self.bird).map(|problem| problem.to_string())
    }

    /// Returns whether nothing was ever synced here, so that only the Control Plane knows the result of a first start.
    fn is_untouched(&self) -> bool {
        !is_used(&self.snapshot) && self.parts.config.control_plane.is_some()
    }

    /// Returns the same after resolving names for a few seconds at most: addresses may clash with theirs.
    pub(crate) async fn resolved(mut self) -> anyhow::Result<Self> {
        let servers = rpki_resolved(&self.parts.builder, &self.desired).await;
        let names = resolve(&self.parts, &self.desired).await;
        if servers || names {
            self.desired = self.again().await;
        }
        Ok(self)
    }

    /// Rebuilds the desired state of the snapshot with the current facts.
    pub(crate) async fn again(&self) -> Arc<Desired> {
        let maker = &self.parts.builder.maker;
        maker.make(&self.snapshot, &self.bird).await
    }
}

impl Offline {
    /// Observes everything.
    pub(crate) async fn look(config: Config) -> anyhow::Result<Self> {
        Self::beside(Wanted::read(config).await?).await
    }

    /// Observes everything for a plan, which works before a router's first start too: its documents are fetched into a
    /// temporary directory.
    pub(crate) async fn before_start(config: Config) -> anyhow::Result<Self> {
        if fs::exists(&config.state.directory) {
            let wanted = Wanted::read(config.clone()).await?;
            if !wanted.is_untouched() {
                return Self::beside(wanted).await;
            }
        }
        rehearsed(config).await
    }

    pub(crate) async fn of(parts: Parts) -> anyhow::Result<Self> {
        Self::beside(Wanted::of(parts).await?).await
    }

    /// Adds the observed state to the wanted one.
    async fn beside(wanted: Wanted) -> anyhow::Result<Self> {
        let wanted = wanted.resolved().await?;
        let refused = wanted.refused(&wanted.desired).await?;
        let Wanted {
            parts,
            snapshot,
            desired,
            bird,
        } = wanted;
        let kernel = parts.shared.context.observer.kernel(Instant::now()).await?;
        let filter = parts.shared.context.firewall.look(desired.firewall).await;
        Ok(Self {
            parts,
            snapshot,
            desired,
            kernel,
            bird,
            filter,
            refused,
            _rehearsal: None,
        })
    }

    /// Returns why it is unknown which configuration BIRD runs, and so whether it has drifted.
    pub(crate) fn unknown(&self) -> Option<String> {
        let why = self.bird.silent.as_ref()?;
        Some(format!(
            "BIRD does not answer, so its drift is unknown: {why}. Restart BIRD if it hangs, and run `moenet-agent plan` again"
        ))
    }

    /// Returns why the node cannot be configured as wanted.
    pub(crate) fn node_error(&self) -> Option<String> {
        let blocked = planning::router_error(&self.desired, &self.bird);
        blocked
            .map(|problem| problem.to_string())
            .or_else(|| self.node_failure())
    }

    /// Returns why the node cannot be configured as wanted, whether or not BIRD loads the agent's files.
    pub(crate) fn node_failure(&self) -> Option<String> {
        let refused = self.refused.clone();
        refused
            .or_else(|| self.desired.router.as_ref().err().map(|error| chain(error)))
            .or_else(|| self.desired.base.as_ref().err().map(|error| chain(error)))
    }

    /// Returns every key with the controller's current plan.
    pub(crate) fn plans(&self) -> Vec<(ObjectKey, KeyPlan)> {
        let orphans = self.orphans().go.into_iter().map(ObjectKey::Orphan);
        let all = self.desired.keys().into_iter().chain(orphans);
        let mut plans: Vec<_> = all.map(|key| (key.clone(), self.plan(&key))).collect();
        let firewall = self.firewall(&plans);
        plans.retain(|(key, _)| *key != ObjectKey::Firewall);
        plans.push((ObjectKey::Firewall, firewall));
        plans
    }

    /// Returns the plan for the agent's table in nftables, once the steps of the others are done.
    fn firewall(&self, plans: &[(ObjectKey, KeyPlan)]) -> KeyPlan {
        let steps = plans
            .iter()
            .filter_map(|(_, plan)| plan.as_ref().ok())
            .flat_map(|plan| &plan.steps);
        let ownership = self.parts.shared.context.firewall.ownership();
        let wanted = self
            .desired
            .firewall
            .then(|| planning::ruleset(&self.desired, &self.kernel).after(steps, &self.kernel))
            .map(|ruleset| ruleset.marked(&ownership));
        let unreadable = |error: &FirewallError| Refusal {
            field: "firewall.enabled",
            reason: chain(error),
        };
        let view = self.filter.as_ref().map_err(unreadable)?;
        let step = planning::firewall(wanted.as_ref(), view, &ownership)?;
        Ok(Plan {
            steps: step.into_iter().collect(),
            waits: None,
        })
    }

    /// Returns the agent's links without a record.
    pub(crate) fn orphans(&self) -> Unrecorded {
        planning::orphans(&self.desired, &self.kernel)
    }

    /// Returns the controller's current plan for a key; for a paused one, the plan without the pause.
    pub(crate) fn plan(&self, key: &ObjectKey) -> KeyPlan {
        let desired = &self.desired;
        match key {
            ObjectKey::Router | ObjectKey::Policy => {
                planning::router(desired, &self.view_of_node())
            }
            ObjectKey::Named(..) => match desired.objects.get(key) {
                Some(object) => planning::object(desired, object, &self.view_of(object)),
                None => Ok(Plan::default()),
            },
            ObjectKey::Orphan(uid) => planning::orphan(uid, &self.view(None, None)),
            // It follows the plans of all others.
            ObjectKey::Firewall => Ok(Plan::default()),
        }
    }

    /// Returns the controller's current plan for what all sessions share, without the node's own addresses.
    pub(crate) fn shared(&self) -> Plan {
        planning::shared(&self.desired, &self.view_of_node())
    }

    fn view_of_node(&self) -> KeyObservation {
        self.view(self.applied(Kind::Node, &single(Kind::Node)), None)
    }

    /// Returns the status that the controller would write, from this observation.
    pub(crate) fn status(&self, object: &Object, before: &StatusBody) -> StatusBody {
        let key = object.key();
        observed(
            &self.desired,
            &key,
            self.view_of(object),
            self.plan(&key),
            before,
        )
    }

    fn view_of(&self, object: &Object) -> KeyObservation {
        self.view(self.applied(object.kind, &object.name), object.endpoint())
    }

    /// Returns the BGP sessions of an object as BIRD runs them.
    pub(crate) fn sessions(&self, object: &Object) -> Sessions {
        let applied = self.applied(object.kind, &object.name);
        sessions(&self.desired, object, &self.bird, applied)
    }

    /// Returns the applied record of an object.
    pub(crate) fn applied(&self, kind: Kind, name: &ObjectName) -> Option<&AppliedDocument> {
        self.snapshot
            .applied
            .get(&(kind, name.clone()))
            .map(|stored| &*stored.document)
    }

    fn view(
        &self,
        applied: Option<&AppliedDocument>,
        endpoint: Option<&Endpoint>,
    ) -> KeyObservation {
        let resolver = &self.parts.shared.context.resolver;
        let known = endpoint.map(|endpoint| resolver.current(endpoint));
        let (resolved, name_error) = known.map_or((None, None), |it| (it.address, it.error));
        KeyObservation {
            kernel: Arc::clone(&self.kernel),
            bird: Arc::clone(&self.bird),
            applied: applied.cloned(),
            resolved,
            name_error,
            source: resolved.and_then(|address| source_towards(address.ip())),
            now: Timestamp::now(),
        }
    }
}

/// Returns a router before its first start, with the Control Plane's documents.
async fn rehearsed(config: Config) -> anyhow::Result<Offline> {
    Rehearsal::begin(config).await?.offline().await
}

/// A router before its first start, in a temporary state directory, until it is observed.
pub(crate) struct Rehearsal {
    pub(crate) parts: Parts,
    directory: tempfile::TempDir,
}

impl Rehearsal {
    /// Creates the temporary directory, with the Control Plane's documents if there is one.
    pub(crate) async fn begin(mut config: Config) -> anyhow::Result<Self> {
        Missing::look(&config).await?;
        let state = config.state.directory.clone();
        blocking(move || refuse_used(&state)).await?;
        let unknown = "what a first start would do is unknown";
        let directory = fs::temporary_dir().context("create a temporary directory")?;
        config.state.directory = directory.path().join("state");
        let temporary = config.state.directory.clone();
        let store = blocking(move || Store::open(&temporary)).await?;
        let store = store.with_secrets_in_memory();
        let parts = Arc::new(Parts::rehearse(config, Arc::new(store)).await?);
        crate::agent::fetch_once(&parts)
            .await
            .with_context(|| format!("{unknown}: the Control Plane did not answer"))?;
        let parts = Arc::into_inner(parts).context("the plan was interrupted")?;
        Ok(Self { parts, directory })
    }

    /// Observes everything.
    pub(crate) async fn offline(self) -> anyhow::Result<Offline> {
        let mut offline = Offline::of(self.parts).await?;
        offline._rehearsal = Some(self.directory);
        Ok(offline)
    }
}

/// Waits a short time for names to resolve; an unresolved name leaves its tunnel without
/// an endpoint, as in the daemon. Returns whether there were names.
async fn resolve(parts: &Parts, desired: &Desired) -> bool {
    let tunnels = desired.endpoints().map(|(_, endpoint)| endpoint);
    let control_plane = crate::sources::control_plane(&parts.config);
    let endpoints = tunnels.chain(&control_plane);
    let names: Vec<_> = endpoints
        .filter(|endpoint| endpoint.address().is_none())
        .collect();
    parts.shared.context.resolver.watch(names.iter().copied());
    let known = || {
        names.iter().all(|endpoint| {
            let resolution = parts.shared.context.resolver.current(endpoint);
            resolution.address.is_some() || resolution.error.is_some()
        })
    };
    let waiting = async {
        while !known() {
            parts.shared.context.resolver.changed().await;
        }
    };
    let _ = tokio::time::timeout(OFFLINE_NAMES, waiting).await;
    !names.is_empty()
}

/// Returns the endpoints whose names do not resolve, each with its object and the reason.
pub(crate) fn unresolved(parts: &Parts, desired: &Desired) -> Vec<String> {
    let resolver = &parts.shared.context.resolver;
    let named = desired
        .endpoints()
        .filter(|(_, endpoint)| matches!(endpoint.host, Host::Name(_)));
    let unresolved = named.filter_map(|(object, endpoint)| {
        let known = resolver.current(endpoint);
        if known.address.is_some() {
            return None;
        }
        let why = known.error.as_deref().unwrap_or("not resolved in time");
        let object = object.path();
        Some(format!("the endpoint {endpoint} of {object}: {why}"))
    });
    unresolved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_directory_in_use_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(refuse_used(&state).is_ok(), "it does not exist yet");
        drop(Store::open(&state).unwrap());
        assert!(refuse_used(&state).is_ok(), "it is empty");
        let document = "apiVersion: moenet.dev/v1\nkind: BgpSession\nmetadata: {name: a}\nspec: {asn: 4242420000}\n";
        std::fs::create_dir_all(state.join("sessions")).unwrap();
        std::fs::write(state.join("sessions/a.yaml"), document).unwrap();
        let error = refuse_used(&state).unwrap_err().to_string();
        assert!(error.contains("applied records already"), "{error}");
    }
}
