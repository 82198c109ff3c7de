use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex as StdMutex, MutexGuard};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::tasks::Tasks;
use crate::bird::{Checker, Client as BirdClient, Committer, CommitterConfig};
use crate::config::{self, Config, ControlPlane, LiveConfig, TokenSource};
use crate::control_plane::{Client, ClientError, ClientOptions, Outbox, OutboxError};
use crate::controller::{
    AppliedChange, Builder, Context, Conveniences, DesiredMaker, Edits, FirewallKeeper, Missing,
    Observer, Records, RefusedItems, Reports, StatusCache, Statuses, StepLog, Sysctls,
    known_agents, put_back,
};
use crate::desired::Desired;
use crate::document::{DocumentError, Problems};
use crate::firewall::Nft;
use crate::history::{Feed, History, may_enter};
use crate::http::{Glass, HttpOptions, LocalApi, ServeError, Server};
use crate::intervals::{BIRD_COMMAND, FILES_QUIET};
use crate::kernel::{KernelOptions, LinuxKernel, keys};
use crate::observed::{Ownership, SharedOwnership};
use crate::ports::Kernel as _;
use crate::sources::probe::{IcmpPing, ProbeSettings, Prober};
use crate::sources::resolve::{Resolver, ResolverSettings, SystemLookup};
use crate::sources::{self, Classes, Host, KeyFile, RpkiServers, Sources, Templates, templates};
use crate::store::{OUTBOX, Store, StoreError};
use crate::sync::Syncer;
use crate::telemetry::chain;
use crate::util::fs;
use crate::util::task::blocking;
use crate::wire::Dialect;

/// A reason why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// The Control Plane's URL or token.
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The state directory is missing although links or files carry its marks.
    #[error(transparent)]
    StateDirectoryMissing(Box<Missing>),
    /// A task ended, so that the agent cannot continue.
    #[error("a task of the agent ended early; the log names it")]
    TaskEnded,
}

/// All parts of the agent.
pub struct Parts {
    /// The configuration at the start.
    pub config: Config,
    /// The configuration with the changes that SIGHUP loaded.
    pub live: Arc<LiveConfig>,
    /// The parts that the tasks share with the local API.
    pub shared: Arc<LocalApi>,
    /// Builds the desired state.
    pub builder: Arc<Builder>,
    /// The background tasks of these parts, until the agent takes them over.
    tasks: StdMutex<Tasks>,
    /// Applied steps and files that the history has not recorded yet, until its task takes them over.
    applied_changes: StdMutex<Option<mpsc::UnboundedReceiver<AppliedChange>>>,
}

impl Parts {
    /// Builds the parts for an agent that writes. Checks everything that can refuse the start
    /// before it writes anything.
    ///
    /// # Errors
    /// The reason why the agent does not start.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        check(&config)?;
        Missing::look(&config).await?;
        put_back(&config.state.directory).await;
        let directory = config.state.directory.clone();
        let schemas = config.state.schemas.clone();
        let store = blocking(move || open(&directory, schemas)).await?;
        Self::with_store(config, Arc::new(store)).await
    }

    /// Builds the parts around an open state directory; a plan opens it read-only.
    ///
    /// # Errors
    /// The reason why the agent does not start.
    pub async fn with_store(config: Config, store: Arc<Store>) -> Result<Self, BuildError> {
        let writes = store.is_writable();
        Self::assemble(config, store, writes).await
    }

    /// Builds the parts around a temporary state directory, for a plan before the first start.
    /// Writes nothing elsewhere.
    ///
    /// # Errors
    /// The reason why the agent would not start.
    pub async fn rehearse(config: Config, store: Arc<Store>) -> Result<Self, BuildError> {
        Self::assemble(config, store, false).await
    }

    /// `writes`: whether an agent starts, which may also write next to BIRD's files.
    async fn assemble(config: Config, store: Arc<Store>, writes: bool) -> Result<Self, BuildError> {
        take_branch(&store).await;
        let secrets = Arc::clone(&store);
        blocking(move || secrets.remember_secrets()).await;
        let mut workers = Workers::start(&config, &store, writes).await;
        let sources = Arc::new(workers.sources(&config, &store, writes).await?);
        let live = Arc::new(LiveConfig::new(config.clone()));
        let token = control_plane_token(&config);
        let (client, outbox) = control_plane(&config, &token, &store)?;
        let committer = workers.committer.clone();
        let refused = Arc::new(RefusedItems::default());
        let maker = workers.maker(&live, &store, &sources, &refused);
        let (publish, desired) = watch::channel(Arc::new(maker.empty()));
        let (applied_changes, changes_to_record) = mpsc::unbounded_channel();
        let kernel_counters = workers.kernel.counters();
        let reports = Arc::new(Reports::new(outbox.clone()));
        let (context, tasks) = workers.context(&store, desired, reports, applied_changes);
        let history = History::new(store.dir());
        let of = Arc::clone(&store);
        let history = history.accepting(move |path, content| may_enter(&of, path, content));
        let feed = Arc::new(Feed::new(store, Arc::new(history)));
        let edits = Arc::new(Edits::new(Arc::clone(&context), Arc::clone(&feed)));
        let builder = Builder {
            context: Arc::clone(&context),
            live: Arc::clone(&live),
            sources: Arc::clone(&sources),
            feed: Arc::clone(&feed),
            edits: Arc::clone(&edits),
            committer: committer.clone(),
            maker,
            publish,
        };
        let mut shared = LocalApi {
            glass: Glass::of(&config, committer.client(), &context).map(Arc::new),
            context,
            sources,
            committer,
            kernel_counters,
            feed,
            calls: Arc::default(),
            requests: Arc::default(),
            sync: None,
            name: config.node.name.clone(),
            started: Instant::now(),
            api_token: config.server.token_source(),
            token,
        };
        shared.sync = client.map(|client| {
            let syncer = syncer(&shared, &live, (client, outbox), (refused, edits));
            Arc::new(syncer)
        });
        Ok(Self {
            shared: Arc::new(shared),
            builder: Arc::new(builder),
            tasks: StdMutex::new(tasks),
            applied_changes: StdMutex::new(Some(changes_to_record)),
            live,
            config,
        })
    }

    /// The background tasks of these parts; the caller takes them over and watches them.
    pub(super) fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock()
    }

    /// The applied changes for the history. The first caller gets them.
    pub(super) fn take_applied_changes(&self) -> mpsc::UnboundedReceiver<AppliedChange> {
        let changes = self.applied_changes.lock().take();
        changes.unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    pub(super) fn api(&self) -> HttpOptions {
        HttpOptions {
            listen: self.config.server.listen.clone(),
            token: self.shared.api_token.clone(),
            state: self.shared.clone(),
            trusted_proxies: self.config.server.trusted_proxies.clone(),
        }
    }

    /// The client of BIRD's control socket.
    pub fn bird(&self) -> &BirdClient {
        self.shared.committer.client()
    }
}

fn syncer(
    shared: &LocalApi,
    live: &Arc<LiveConfig>,
    (client, outbox): (Arc<Client>, Option<Arc<Outbox>>),
    (refused, edits): (Arc<RefusedItems>, Arc<Edits>),
) -> Syncer {
    Syncer {
        client,
        calls: Arc::clone(&shared.calls),
        requests: Arc::clone(&shared.requests),
        outbox,
        config: Arc::clone(live),
        context: Arc::clone(&shared.context),
        refused,
        edits,
        feed: Arc::clone(&shared.feed),
        sources: Arc::clone(&shared.sources),
        remarks: Default::default(),
        started: shared.started,
    }
}

/// The clients of kernel and BIRD, and the parts with tasks of their own.
struct Workers {
    tasks: Tasks,
    ownership: SharedOwnership,
    kernel: Arc<LinuxKernel>,
    committer: Committer,
    resolver: Resolver,
    prober: Prober,
}

impl Workers {
    async fn start(config: &Config, store: &Arc<Store>, writes: bool) -> Self {
        let ownership = ownership(store).await;
        let kernel = LinuxKernel::new(kernel_options(config, ownership.clone()));
        let mut tasks = Tasks::default();
        let (committer, work) = Committer::new(
            CommitterConfig {
                stage_elsewhere: !writes,
                ownership: ownership.clone(),
                ..committer_config(config)
            },
            BirdClient::new(&config.bird.control_socket),
        );
        tasks.spawn("committer", work);
        let (resolver, work) = Resolver::new(
            Arc::new(SystemLookup::default()),
            ResolverSettings::default(),
        );
        tasks.spawn("resolver", work);
        // The first list of sessions is compared with the Control Plane's addresses.
        resolver.watch(sources::control_plane(config).iter());
        let (prober, work) = Prober::new(Arc::new(IcmpPing), probe_settings(config));
        tasks.spawn("prober", work);
        Self {
            tasks,
            ownership,
            kernel: Arc::new(kernel),
            committer,
            resolver,
            prober,
        }
    }

    fn maker(
        &self,
        live: &Arc<LiveConfig>,
        store: &Arc<Store>,
        sources: &Arc<Sources>,
        refused: &Arc<RefusedItems>,
    ) -> Arc<DesiredMaker> {
        let counters = Arc::clone(self.committer.counters());
        let checker = Checker::new(&live.get().bird.binary, BIRD_COMMAND, counters);
        Arc::new(DesiredMaker::new(
            Arc::clone(live),
            Arc::clone(store),
            Arc::clone(sources),
            checker,
            (self.ownership.clone(), Arc::clone(refused)),
        ))
    }

    async fn sources(
        &mut self,
        config: &Config,
        store: &Arc<Store>,
        writes: bool,
    ) -> Result<Sources, BuildError> {
        let key = open_key(config, store, &self.kernel, writes).await;
        key.find_copy().await;
        let (rpki, work) = RpkiServers::kept(store);
        self.tasks.spawn("resolver of RPKI servers", work);
        let templates = Templates::open(config.bird.templates.as_deref(), store, writes);
        Ok(Sources {
            key: Arc::new(key),
            templates: Arc::new(templates),
            classes: Classes::kept(store),
            roas: Arc::default(),
            rpki: Arc::new(rpki),
            host: Host::new(Arc::clone(&self.kernel), self.resolver.known()),
        })
    }

    fn context(
        self,
        store: &Arc<Store>,
        desired: watch::Receiver<Arc<Desired>>,
        reports: Arc<Reports>,
        applied_changes: mpsc::UnboundedSender<AppliedChange>,
    ) -> (Arc<Context>, Tasks) {
        let committer = Arc::new(self.committer);
        let context = Context {
            begun: tokio::time::Instant::now(),
            observer: Observer::new(self.kernel.clone(), committer.clone()),
            kernel: self.kernel,
            firewall: FirewallKeeper::new(Arc::new(Nft::default()), self.ownership),
            resolver: self.resolver,
            prober: self.prober,
            desired,
            reports,
            applied_changes,
            records: Records::default(),
            status_writes: Statuses::default(),
            step_log: StepLog::default(),
            conveniences: Conveniences::default(),
            unrecorded: Default::default(),
            sysctls: Sysctls::default(),
            statuses: StatusCache::default(),
            first_lists: crate::controller::FirstLists::default(),
            pulse: crate::controller::Pulse::default(),
            announced: crate::controller::Announced::default(),
            restarts: crate::controller::Restarts::default(),
            enabled: crate::controller::Enabled::default(),
            permits: crate::controller::Permits::default(),
            hints: StdMutex::new(None),
            committer,
            store: Arc::clone(store),
        };
        (Arc::new(context), self.tasks)
    }
}

/// Opens the state directory, and notes it for other agents.
pub(crate) fn open(directory: &Path, schemas: PathBuf) -> Result<Store, StoreError> {
    let store = Store::open(directory)?.with_patience(FILES_QUIET);
    if let Some(known) = store.identity() {
        known_agents::note(&known.identity, store.dir());
    }
    Ok(match fs::is_dir(&schemas) {
        true => store.with_schemas(schemas),
        false => store,
    })
}

/// Uses the listing of the history's branch if Git moved the work tree. If the history cannot be
/// read there is no listing, so the agent changes nothing.
async fn take_branch(store: &Arc<Store>) {
    let moved = Arc::clone(store);
    if blocking(move || moved.moved()).await.is_none() {
        return;
    }
    match History::new(store.dir()).branch().await {
        Ok(files) => {
            let taken = Arc::clone(store);
            let taken = blocking(move || taken.take_branch(&files)).await;
            if let Err(error) = taken {
                warn!(error = %chain(&error), "the history's branch cannot be read");
            }
        }
        Err(error) => warn!(error = %chain(&error), "the history's branch cannot be read"),
    }
}

/// Reads the key. If no key is readable, the kernel's links show whether this router has had one.
async fn open_key(
    config: &Config,
    store: &Arc<Store>,
    kernel: &LinuxKernel,
    starts: bool,
) -> KeyFile {
    let path = config.wireguard.private_key_path.clone();
    let file = path.clone();
    let is_there = blocking(move || matches!(keys::load(&file), Ok(Some(_)))).await;
    let view = match is_there {
        true => None,
        false => kernel.observe().await.ok(),
    };
    let store = Arc::clone(store);
    blocking(move || KeyFile::open(path, store, view.as_ref(), starts)).await
}

/// Returns the marks that belong to this agent. Applied records that cannot be read now are read
/// with the first listing.
pub(crate) async fn ownership(store: &Arc<Store>) -> SharedOwnership {
    let known = store.identity();
    let ownership =
        SharedOwnership::new(known.map_or_else(Ownership::default, |known| Ownership {
            succeeds: known.succeeds,
            ..Ownership::of(known.identity)
        }));
    let listed = Arc::clone(store);
    if let Ok(snapshot) = blocking(move || listed.load()).await {
        ownership.set_applied(
            snapshot.applied_links(),
            snapshot.applied_firewall(),
            snapshot.applied_in_bird(),
        );
    }
    ownership
}

pub(crate) fn kernel_options(config: &Config, ownership: SharedOwnership) -> KernelOptions {
    KernelOptions {
        backend: config.wireguard.backend,
        ownership,
        ..KernelOptions::default()
    }
}

fn committer_config(config: &Config) -> CommitterConfig {
    CommitterConfig {
        directory: config.bird.directory.clone(),
        control_socket: config.bird.control_socket.clone(),
        bird_binary: config.bird.binary.clone(),
        manage_main_config: config.bird.manage_main_config,
        confirm_timeout: config.bird.confirm_timeout.get(),
        ..CommitterConfig::default()
    }
}

fn probe_settings(config: &Config) -> ProbeSettings {
    ProbeSettings {
        interval: config.probe.interval.get(),
        count: config.probe.count,
        timeout: config.probe.timeout.get(),
        ..ProbeSettings::default()
    }
}

/// Refuses a start before anything is written.
pub(crate) fn check(config: &Config) -> Result<(), BuildError> {
    Ok(Problems::refuse(refusals(config))?)
}

/// Lists every reason in the configuration for which the agent refuses to start, and
/// why it would refuse the operator's templates.
pub(crate) fn start_problems(config: &Config) -> Vec<DocumentError> {
    let templates = config.bird.templates.as_deref();
    let templates = templates.and_then(templates::problem);
    let templates = templates.map(|why| DocumentError {
        field: "bird.templates".to_owned(),
        ..DocumentError::whole(why)
    });
    templates.into_iter().chain(refusals(config)).collect()
}

fn control_plane_token(config: &Config) -> TokenSource {
    let control_plane = config.control_plane.as_ref();
    let token = control_plane.map(ControlPlane::token_source);
    token.unwrap_or_default()
}

fn refusals(config: &Config) -> Vec<DocumentError> {
    let api = Server::check(&config.server.listen, &config.server.token_source()).err();
    let options = client_options(config, &control_plane_token(config));
    let client = options.and_then(|options| Client::new(options).err());
    let api = api.map(|error| (error.key(), chain(&error)));
    let client = client.map(|error| (error.key(), chain(&error)));
    let all = api.into_iter().chain(client);
    all.map(|(key, why)| config.source.error(key, &why))
        .collect()
}

/// The list of pending reports, below the state directory; in `.git`, which no tool that cleans the tree touches.
const PENDING_REPORTS: &str = ".git/moenet-outbox";

type ControlPlaneParts = (Option<Arc<Client>>, Option<Arc<Outbox>>);

fn control_plane(
    config: &Config,
    token: &TokenSource,
    store: &Store,
) -> Result<ControlPlaneParts, BuildError> {
    let Some(options) = client_options(config, token).filter(|_| store.is_writable()) else {
        return Ok((None, None));
    };
    let client = Client::new(options)?;
    let folder = store.dir().join(OUTBOX);
    let (outbox, lost) = Outbox::open_listed(&folder, store.dir().join(PENDING_REPORTS))?;
    if !lost.is_empty() {
        warn!(
            folder = %folder.display(),
            sessions = lost.join(", "),
            "files of pending reports were removed while the agent was stopped; these reports are not delivered, and a \
             session is reported again when the Control Plane lists another status"
        );
    }
    Ok((Some(Arc::new(client)), Some(Arc::new(outbox))))
}

/// Returns a client of the Control Plane that tries once; `None` without a configured Control Plane.
///
/// # Errors
/// As [`Client::new`].
pub(crate) fn control_plane_client(config: &Config) -> Result<Option<Client>, ClientError> {
    let options = client_options(config, &control_plane_token(config));
    let once = options.map(|options| ClientOptions {
        max_retries: 0,
        ..options
    });
    once.map(Client::new).transpose()
}

/// Options of the Control Plane client; `None` without a configured Control Plane.
fn client_options(config: &Config, token: &TokenSource) -> Option<ClientOptions> {
    let from = config.control_plane.as_ref()?;
    Some(ClientOptions {
        url: from.url.clone(),
        router: config.node.name.clone(),
        token: token.clone(),
        dialect: match from.dialect {
            config::Dialect::Reference => Dialect::Reference,
        },
        request_timeout: from.request_timeout.get(),
        max_retries: from.max_retries,
        retry_initial_delay: Duration::from_millis(from.retry_initial_delay),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::builder;
    use crate::document::{Document, Kind, RoutingPolicySpec, RpkiServer};
    use crate::store::{Area, Place};

    #[tokio::test]
    async fn lookup_with_the_same_address_builds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let mut policy = RoutingPolicySpec::default();
        policy.rpki.servers = vec![RpkiServer {
            host: "localhost".parse().unwrap(),
            port: "8282".parse().unwrap(),
        }];
        let name = Place::single(Area::Documents, Kind::RoutingPolicy).name;
        let document = Document::new(name, None, 1, policy.clone());
        store.write_document(&document).unwrap();
        let config = config::parse("node: {name: jp1, id: 1, asn: 64512}\n").unwrap();
        let parts = Parts::rehearse(config, store).await.unwrap();
        let (builder, rpki) = (&parts.builder, &parts.shared.sources.rpki);
        let (mut lookups, mut builds) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            // A name that is watched again is looked up again.
            rpki.resolved(&RoutingPolicySpec::default()).await;
            rpki.resolved(&policy).await;
            lookups.push(rpki.known());
            builder::publish(builder).await.unwrap();
            builds.push(builder.maker.builds());
        }
        assert_ne!(lookups[0], lookups[1], "the lookups have times");
        assert_eq!(builds, [1, 1]);
        rpki.resolved(&RoutingPolicySpec::default()).await;
        builder::publish(builder).await.unwrap();
        assert_eq!(builder.maker.builds(), 2, "without the address");
    }

    #[tokio::test]
    async fn same_listing_builds_nothing_though_an_object_waits() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let config = config::parse("node: {name: jp1, id: 1, asn: 64512}\n").unwrap();
        let parts = Parts::rehearse(config, store).await.unwrap();
        let mut listed = Vec::new();
        for _ in 0..2 {
            let made = builder::publish(&parts.builder).await.unwrap();
            listed.push(made.snapshot);
        }
        assert!(!Arc::ptr_eq(&listed[0], &listed[1]));
        assert_eq!(parts.builder.maker.builds(), 1);
    }
}
