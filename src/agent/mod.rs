//! Wiring: build everything, run, drain.
//!
//! | file | task |
//! |---|---|
//! | `build` | makes the parts from the configuration |
//! | `worlds` | state directory → world, whenever a hint says that it may have changed |
//! | `poll` | Control Plane → documents |
//! | `calls` | repeats each call to the Control Plane, and remembers how it goes |
//! | `syncs` | the syncs that `/sync` asks for |
//! | `announcer` | facts → edges → log |
//! | `status` | the health of the agent, for `/status` |
//! | `reporting` | heartbeats, reports and the outbox → Control Plane |
//! | `journal` | what came into force → history |
//! | `tasks` | starts and watches the long-lived tasks |
//! | `signals`, `reload` | SIGTERM and SIGHUP; what changes in the configuration and its files |
//! | `local_api` | listens for the local API |
//! | `api` | answers the local API |
//! | `confirmation` | waits until BIRD runs what the API was asked for |
//! | `metrics` | counts for Prometheus |
//! | `key` | the router's WireGuard key: read, created once, watched |
//! | `overrides` | the overrides that are in force, for the API and the metrics |
//! | `copied` | a state directory that is a copy of another host's |
//! | `lost` | a start without the state directory |
//! | `known_agents` | the agents of this host |
//! | `limits` | what a limit held back is fetched once it may come |
//! | `roa` | BIRD's tables of ROAs → the last good table on disk |
//! | `rpki` | names of RPKI servers → addresses |
//! | `classes` | probes → classes of links that do not flap |
//! | `templates` | an operator's templates, tried before they are used |
//! | `writers` | who writes which file, and what may stand in the history |

mod announcer;
mod api;
mod build;
mod calls;
mod classes;
mod confirmation;
mod copied;
mod journal;
mod key;
mod known_agents;
mod limits;
mod local_api;
mod lost;
mod metrics;
mod overrides;
mod poll;
mod reach;
mod reload;
mod reporting;
mod roa;
mod rpki;
mod signals;
mod status;
mod syncs;
mod tasks;
mod templates;
mod worlds;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use build::start_problems;
pub use build::{BuildError, Parts};
pub use calls::{CallHealth, Calls};
pub(crate) use lost::Missing;
pub(crate) use reach::control_plane as control_plane_endpoint;
pub use signals::Signals;
pub use worlds::WorldMaker;
pub(crate) use worlds::rpki_resolved;

use tasks::{Ended, Tasks};

use crate::config::Config;
use crate::controller::{Hint, Key, Runner};
use crate::kernel;
use crate::plan::firewall::TABLE_NAME;

/// How long the start waits for the state directory to be read.
const FIRST_WORLD: Duration = Duration::from_secs(5);
/// How often at most a change of our table in nftables is looked at.
const FIREWALL_QUIET: Duration = Duration::from_millis(500);
/// How often, and how many times, one pass without the daemon looks whether the state directory is quiet: 6 s.
const SETTLE_EVERY: Duration = Duration::from_millis(100);
const SETTLE_TRIES: u32 = 60;
/// How long a stop waits for steps in progress.
const DRAIN: Duration = Duration::from_secs(20);
/// The same when a task ended early.
const QUICK: Duration = Duration::from_secs(1);
/// The tasks that act on the router, which end before the journal does.
const WORKING: [&str; 11] = [
    "worlds",
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

/// How long a stop waits for one answer of BIRD.
const SILENCE: Duration = Duration::from_millis(1500);

/// Runs the agent until a signal stops it.
///
/// # Errors
/// What keeps it from starting: the state directory, a configuration that no retry makes valid. Neither the Control
/// Plane nor DNS nor BIRD does, nor a missing key or the local API's address. Later, the end of a task.
pub async fn run(config: Config, mut signals: Signals) -> Result<(), BuildError> {
    if let Err(missing) = Missing::look(&config).await {
        let stop = CancellationToken::new();
        let back = tokio::select! {
            back = lost::wait(&config, missing, &stop) => back,
            () = signals.stopped() => false,
        };
        if !back {
            return Ok(());
        }
    }
    let parts = Arc::new(Parts::build(config).await?);
    let api = local_api::options(&parts);
    info!(router = %parts.config.node.name, version = build::VERSION, commit = build::COMMIT, "starting");
    begin_key(&parts).await;
    let recording = journal::begin(&parts).await;
    let mut tasks = std::mem::take(&mut *parts.tasks());
    let (stop, stopped) = (CancellationToken::new(), CancellationToken::new());
    let with = || (Arc::clone(&parts), stop.clone());

    tasks.spawn(
        "signals",
        reload::signals(Arc::clone(&parts), signals, stop.clone()),
    );
    tasks.spawn(
        "journal",
        journal::run(Arc::clone(&parts), recording, stopped.clone()),
    );
    converge(&parts, &mut tasks, &stop).await;
    tasks.spawn(
        "local-api",
        after_first_world(
            &parts,
            local_api::run(Arc::clone(&parts), api, stop.clone()),
        ),
    );
    let (with_parts, until) = with();
    tasks.spawn("token-files", reload::files(with_parts, until));
    if let Some(client) = parts.client.clone() {
        tasks.spawn(
            "control-plane",
            poll::run(Arc::clone(&parts), client, stop.clone()),
        );
    }

    let early = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        ended = tasks.ended() => Some(ended),
    };
    end(&parts, &mut tasks, (&stop, &stopped), early).await
}

/// The first write of a start: whatever can refuse one has been checked.
async fn begin_key(parts: &Arc<Parts>) {
    let key = Arc::clone(&parts.maker.key);
    reload::blocking(move || key.begin()).await;
    copied::report(parts);
}

/// Starts the tasks that make the router what the state directory says.
async fn converge(parts: &Arc<Parts>, tasks: &mut Tasks, stop: &CancellationToken) {
    let with = || (Arc::clone(parts), stop.clone());
    let (hints, hinted) = mpsc::unbounded_channel();
    *parts.hints.lock().await = Some(hints.clone());
    let (p, s) = with();
    tasks.spawn("worlds", worlds::run(p, hints.clone(), s));
    let (p, s) = with();
    tasks.spawn("kernel-events", watch_kernel(p, hints.clone(), s));
    let (p, s) = with();
    tasks.spawn("firewall-events", watch_firewall(p, hints, s));
    let (p, s) = with();
    tasks.spawn("roa", roa::run(p, s));
    let (p, s) = with();
    tasks.spawn("limits", limits::run(p, s));
    let (p, s) = with();
    tasks.spawn("templates", templates::watch(p, s));
    let (p, s) = with();
    tasks.spawn("announcer", announcer::run(p, s));
    let (p, s) = with();
    tasks.spawn("key", key::watch(p, s));
    let runner = Runner::new(Arc::clone(&parts.context)).run(hinted);
    tasks.spawn("controller", after_first_world(parts, runner));
}

/// The first world is there before the first look and the first answer: nothing is judged by half of what is
/// wanted. A state directory that cannot be read holds up neither for long; its world is empty and incomplete, by
/// which nothing is removed.
fn after_first_world<F: Future<Output = ()>>(
    parts: &Arc<Parts>,
    work: F,
) -> impl Future<Output = ()> + use<F> {
    let mut ready = parts.context.world.clone();
    async move {
        let _ = tokio::time::timeout(FIRST_WORLD, ready.changed()).await;
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
            QUICK
        }
        None => {
            info!("stopping; tunnels and BGP sessions stay as they are");
            DRAIN
        }
    };
    stop.cancel();
    parts.hints.lock().await.take();
    tokio::select! {
        () = tasks.drain(&WORKING, limit) => {}
        () = silence(parts) => warn!("BIRD does not answer; stopping without it, and the next start goes on"),
    }
    stopped.cancel();
    tasks.drain(&["journal", "local-api"], limit).await;
    early.map_or(Ok(()), |_| Err(BuildError::TaskEnded))
}

/// Netlink events name a link; whoever has or wants it is looked at.
async fn watch_kernel(
    parts: Arc<Parts>,
    hints: mpsc::UnboundedSender<Hint>,
    stop: CancellationToken,
) {
    let mut events = match kernel::events() {
        Ok(events) => events,
        Err(error) => {
            warn!(%error, "the kernel's events cannot be heard; changes are found by looking every few seconds");
            return stop.cancelled().await;
        }
    };
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return,
        };
        let Some(event) = event else { return };
        let hint = match &event.interface {
            None => Some(Hint::Everything),
            Some(name) => parts.context.world().key_of(name).map(Hint::Key),
        };
        if let Some(hint) = hint {
            if let Hint::Key(key) = &hint {
                parts.context.announced.note(key.clone(), "kernel event");
            }
            let _ = hints.send(hint);
        }
    }
}

/// What changes our table in nftables is answered at once; without the kernel's events, at the next tick.
async fn watch_firewall(
    parts: Arc<Parts>,
    hints: mpsc::UnboundedSender<Hint>,
    stop: CancellationToken,
) {
    if !parts.config.firewall.enabled {
        return stop.cancelled().await;
    }
    let mut events = match kernel::nftables_events(TABLE_NAME) {
        Ok(events) => events,
        Err(error) => {
            warn!(%error, "the events of nftables cannot be heard; changes are found by looking every few seconds");
            return stop.cancelled().await;
        }
    };
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => return,
        };
        if event.is_none() || hints.send(Hint::Key(Key::Firewall)).is_err() {
            return;
        }
        tokio::time::sleep(FIREWALL_QUIET).await;
    }
}

/// Ends when BIRD has left a command unanswered for too long to wait for it.
async fn silence(parts: &Parts) {
    while parts
        .bird()
        .unanswered_for()
        .is_none_or(|time| time < SILENCE)
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Hints that one key may have changed.
pub(crate) async fn hint(parts: &Parts, key: Key) {
    if let Some(hints) = &*parts.hints.lock().await {
        let _ = hints.send(Hint::Key(key));
    }
}

/// Fetches everything from the Control Plane once, into the state directory of these parts. Does nothing where no
/// Control Plane is configured.
///
/// # Errors
/// The call that failed.
pub async fn fetch_once(parts: &Arc<Parts>) -> Result<(), crate::control_plane::CallError> {
    match &parts.client {
        Some(client) => poll::once(parts, client).await,
        None => Ok(()),
    }
}

/// Publishes what the state directory holds once none of its files is being written: the one pass has no later
/// listing.
async fn publish_settled(parts: &Arc<Parts>) -> Result<(), BuildError> {
    for _ in 0..SETTLE_TRIES {
        if worlds::publish(parts).await?.settled {
            break;
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    Ok(())
}

/// Converges every object once, without polls, events or the local API. Returns what failed, and why.
///
/// # Errors
/// When the state directory cannot be read.
pub async fn apply_once(parts: &Arc<Parts>) -> Result<Vec<(Key, String)>, BuildError> {
    begin_key(parts).await;
    let recording = journal::begin(parts).await;
    parts.context.taken.keep();
    publish_settled(parts).await?;
    worlds::resolved(parts).await?;
    Runner::new(Arc::clone(&parts.context)).run_once().await;
    journal::end_pass(parts, recording).await;
    announcer::announce_pass(parts);
    let statuses = parts.context.board.all();
    Ok(statuses
        .into_iter()
        .filter_map(|(key, status)| Some((key, status.last_error?)))
        .collect())
}
