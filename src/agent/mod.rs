//! Wiring: build everything, run, drain.
//!
//! | file | task |
//! |---|---|
//! | `build` | makes the parts from the configuration |
//! | `tasks` | starts and watches the long-lived tasks |
//! | `signals`, `reload` | SIGTERM and SIGHUP; reloads of the configuration and its files |
//! | `lost` | waits for the state directory |
//! | `service_manager` | readiness, counts and the watchdog, for systemd |

pub(crate) mod build;
mod lost;
mod read_socket;
mod reload;
mod service_manager;
mod signals;
mod tasks;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use build::{BuildError, Parts};
pub(crate) use build::{control_plane_client, start_problems};
pub(crate) use read_socket::{ReadPart, ReadRequest};
pub use signals::Signals;

use service_manager::ServiceManager;
use tasks::{Ended, Tasks};

use crate::config::Config;
use crate::controller::{
    Missing, Runner, announce, announce_pass, builder, record_changes, record_pass, watch_firewall,
    watch_kernel,
};
use crate::history::Recording;
use crate::http;
use crate::intervals::{
    ONCE_QUIET_POLL, START_FIRST_BUILD, START_FIRST_LISTS, STOP_BIRD_ANSWER, STOP_BIRD_POLL,
    STOP_DRAIN, STOP_QUICK,
};
use crate::model::ObjectKey;
use crate::sources::{RoaTask, limits};
use crate::status::{Fact, Topic};
use crate::util::task::{blocking, check_blocking_work};
use crate::util::version::{COMMIT, VERSION};

/// Number of such checks: 6 s.
const SETTLE_TRIES: u32 = 60;
/// The tasks that act on the router; they end before the task "applied-changes" does.
const WORKING: [&str; 11] = [
    "builds",
    "kernel-events",
    "firewall-events",
    "roa",
    "limits",
    "templates",
    "announcer",
    "key",
    "token-files",
    "controller",
    "control-plane",
];

/// Runs the agent until a signal stops it.
///
/// # Errors
/// The reason why the agent does not start: the state directory, or a configuration that no retry
/// makes valid. The Control Plane, DNS, BIRD, a missing key and the local API's address never
/// prevent a start. Later: the end of a task.
pub async fn run(config: Config, mut signals: Signals) -> Result<(), BuildError> {
    let manager = Arc::new(ServiceManager::default());
    if let Err(missing) = Missing::look(&config).await {
        let stop = CancellationToken::new();
        let status = format!("waiting for the state directory: {missing}");
        let back = tokio::select! {
            back = lost::wait(&config, missing, &stop) => back,
            () = manager.waits(status) => false,
            () = signals.stopped() => false,
        };
        if !back {
            return Ok(());
        }
    }
    let parts = Arc::new(Parts::build(config).await?);
    info!(router = %parts.config.node.name, version = VERSION, commit = COMMIT, "starting");
    check_blocking_work();
    begin_key(&parts).await;
    let recording = begin_history(&parts).await;
    let mut tasks = std::mem::take(&mut *parts.tasks());
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());

    tasks.spawn(
        "signals",
        reload::signals(
            (Arc::clone(&parts), Arc::clone(&manager)),
            signals,
            stop.clone(),
        ),
    );
    let reports = Arc::clone(&manager).run(Arc::clone(&parts.shared.context), stop.clone());
    tasks.spawn("service-manager", reports);
    tasks.spawn(
        "applied-changes",
        record_changes(
            Arc::clone(&parts.shared.context),
            parts.take_applied_changes(),
            recording,
            stopped.clone(),
        ),
    );
    converge(&parts, &mut tasks, &stop).await;
    serve(&parts, &mut tasks, &stop);

    let early = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        ended = tasks.ended() => Some(ended),
    };
    manager.stopping().await;
    end(&parts, &mut tasks, (&stop, &stopped), early).await
}

/// Starts the tasks that talk to operators and the Control Plane.
fn serve(parts: &Arc<Parts>, tasks: &mut Tasks, stop: &CancellationToken) {
    let api = http::listen(Arc::clone(&parts.shared.context), parts.api(), stop.clone());
    tasks.spawn("local-api", after_first_build(parts, api));
    tasks.spawn(
        "read-socket",
        read_socket::serve(parts.config.clone(), stop.clone()),
    );
    let files = reload::files(Arc::clone(parts), stop.clone());
    tasks.spawn("token-files", files);
    if let Some(sync) = parts.shared.sync.clone() {
        tasks.spawn("control-plane", sync.run(stop.clone()));
    }
}

/// The first write of a start: everything that can refuse the start has been checked.
async fn begin_key(parts: &Arc<Parts>) {
    let key = Arc::clone(&parts.shared.sources.key);
    blocking(move || key.begin()).await;
}

/// Starts to record causes in the history.
async fn begin_history(parts: &Parts) -> Recording {
    let (recording, work) = parts.shared.feed.begin().await;
    parts.tasks().spawn("history", work);
    recording
}

/// Starts the tasks that converge the router to the state directory.
async fn converge(parts: &Arc<Parts>, tasks: &mut Tasks, stop: &CancellationToken) {
    let (hints, hinted) = mpsc::unbounded_channel();
    tasks.spawn(
        "builds",
        builder::run(Arc::clone(&parts.builder), hints.clone(), stop.clone()),
    );
    let kernel = watch_kernel(
        Arc::clone(&parts.shared.context),
        hints.clone(),
        stop.clone(),
    );
    tasks.spawn("kernel-events", kernel);
    let is_enabled = parts.config.firewall.enabled;
    tasks.spawn(
        "firewall-events",
        watch_firewall(is_enabled, hints, stop.clone()),
    );
    watch_sources(parts, tasks, stop);
    let facts = more_facts(parts);
    let announcer = announce(Arc::clone(&parts.shared.context), facts, stop.clone());
    tasks.spawn("announcer", announcer);
    let runner = Runner::new(Arc::clone(&parts.shared.context)).run(hinted);
    let store = Arc::clone(&parts.shared.context.store);
    let is_new = move || !store.has_documents() && !store.has_applied();
    let is_new = blocking(is_new).await;
    let runner = after_first_lists(parts, is_new, stop.clone(), runner);
    tasks.spawn("controller", after_first_build(parts, runner));
}

/// Returns the facts for the log that the controller does not know: the calls to the Control Plane.
fn more_facts(parts: &Parts) -> impl Fn() -> Vec<(Topic, Fact)> + Send + 'static {
    let (calls, sync) = (Arc::clone(&parts.shared.calls), parts.shared.sync.clone());
    move || {
        let breakers = sync.iter().flat_map(|sync| sync.breakers());
        calls.facts().into_iter().chain(breakers).collect()
    }
}

/// Starts the tasks of the inputs that change on their own.
fn watch_sources(parts: &Arc<Parts>, tasks: &mut Tasks, stop: &CancellationToken) {
    let (sources, context) = (&parts.shared.sources, &parts.shared.context);
    let roas = RoaTask {
        rpki: Arc::clone(&sources.rpki),
        store: Arc::clone(&context.store),
        client: parts.bird().clone(),
        looks: context.observer.looks(),
    };
    tasks.spawn("roa", Arc::clone(&sources.roas).run(roas, stop.clone()));
    tasks.spawn(
        "limits",
        limits::run(parts.bird().clone(), context.observer.looks(), stop.clone()),
    );
    let testing = Arc::clone(&parts.builder);
    let test = move |renderer| builder::test_templates(Arc::clone(&testing), renderer);
    let templates = Arc::clone(&sources.templates);
    tasks.spawn(
        "templates",
        templates.run(Arc::clone(&context.store), test, stop.clone()),
    );
    tasks.spawn("key", Arc::clone(&sources.key).run(stop.clone()));
}

/// Delays work until the first desired state exists, so that nothing is observed, answered or judged from a
/// part of the desired state. An unreadable state directory delays it only for a short time; its
/// desired state is empty and incomplete, so the agent removes nothing.
fn after_first_build<F: Future<Output = ()>>(
    parts: &Arc<Parts>,
    work: F,
) -> impl Future<Output = ()> + use<F> {
    let mut ready = parts.shared.context.desired.clone();
    async move {
        let _ = tokio::time::timeout(START_FIRST_BUILD, ready.changed()).await;
        work.await;
    }
}

/// Delays the first pass until it has all keys, and on a router without documents until the first lists of the Control Plane
/// have come, or failed.
fn after_first_lists<F: Future<Output = ()>>(
    parts: &Arc<Parts>,
    is_new: bool,
    stop: CancellationToken,
    work: F,
) -> impl Future<Output = ()> + use<F> {
    let sync = parts.shared.sync.clone().filter(|_| is_new);
    let context = Arc::clone(&parts.shared.context);
    async move {
        let keys = context.first_lists.wait_for_keys();
        tokio::select! {
            _ = tokio::time::timeout(START_FIRST_BUILD, keys) => {}
            () = stop.cancelled() => {}
        }
        if let Some(sync) = sync {
            let lists = sync.context.first_lists.wait();
            tokio::select! {
                _ = tokio::time::timeout(START_FIRST_LISTS, lists) => {}
                () = stop.cancelled() => {}
            }
        }
        work.await;
    }
}

/// Stops every task: in order, or quickly when one ended early.
async fn end(
    parts: &Parts,
    tasks: &mut Tasks,
    (stop, stopped): (&CancellationToken, &CancellationToken),
    early: Option<Ended>,
) -> Result<(), BuildError> {
    let limit = match &early {
        Some(ended) => {
            ended.log();
            STOP_QUICK
        }
        None => {
            info!("stopping; tunnels and BGP sessions stay as they are");
            STOP_DRAIN
        }
    };
    stop.cancel();
    tokio::select! {
        () = tasks.drain(&WORKING, limit) => {}
        () = silence(parts) => warn!("BIRD does not answer; stopping without its confirmation, \
                                      the next start continues"),
    }
    stopped.cancel();
    tasks.drain(&["applied-changes", "local-api"], limit).await;
    early.map_or(Ok(()), |_| Err(BuildError::TaskEnded))
}

/// Ends when BIRD has left a command unanswered for too long to wait for it.
async fn silence(parts: &Parts) {
    while parts
        .bird()
        .unanswered_for()
        .is_none_or(|time| time < STOP_BIRD_ANSWER)
    {
        tokio::time::sleep(STOP_BIRD_POLL).await;
    }
}

/// Fetches everything from the Control Plane once, into the state directory of these parts. Does
/// nothing without a configured Control Plane.
///
/// # Errors
/// The call that failed.
pub async fn fetch_once(parts: &Arc<Parts>) -> Result<(), crate::control_plane::CallError> {
    match &parts.shared.sync {
        Some(sync) => sync.once().await,
        None => Ok(()),
    }
}

/// Publishes the content of the state directory once none of its files is being written: a single
/// pass has no later listing.
async fn publish_settled(parts: &Arc<Parts>) -> Result<(), BuildError> {
    for _ in 0..SETTLE_TRIES {
        let listed = builder::publish(&parts.builder).await?;
        if listed.snapshot.settled {
            break;
        }
        tokio::time::sleep(ONCE_QUIET_POLL).await;
    }
    Ok(())
}

/// Converges every object once, without polls, events or the local API. Returns the failed objects with their causes.
///
/// # Errors
/// The state directory cannot be read.
pub async fn apply_once(parts: &Arc<Parts>) -> Result<Vec<(ObjectKey, String)>, BuildError> {
    begin_key(parts).await;
    let recording = begin_history(parts).await;
    run_pass(parts).await?;
    record_pass(parts.take_applied_changes(), recording).await;
    announce_pass(&parts.shared.context, more_facts(parts)());
    let statuses = parts.shared.context.statuses.all();
    Ok(statuses
        .into_iter()
        .filter_map(|(key, status)| Some((key, status.last_error.clone()?)))
        .collect())
}

/// Runs one pass over every object.
pub(crate) async fn run_pass(parts: &Arc<Parts>) -> Result<(), BuildError> {
    parts.shared.context.step_log.keep();
    publish_settled(parts).await?;
    builder::resolved(&parts.builder).await?;
    Runner::new(Arc::clone(&parts.shared.context))
        .run_once()
        .await;
    Ok(())
}
