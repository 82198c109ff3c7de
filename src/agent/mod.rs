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
mod lost;
mod metrics;
mod overrides;
mod poll;
mod reach;
mod reporting;
mod roa;
mod rpki;
mod status;
mod syncs;
mod templates;
mod worlds;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use build::{BuildError, Parts};
pub use calls::{CallHealth, Calls};
pub(crate) use lost::Missing;
pub use worlds::WorldMaker;
pub(crate) use worlds::rpki_resolved;

use crate::config::Config;
use crate::controller::{Hint, Key, Runner};
use crate::http::{HttpOptions, Server};
use crate::kernel;
use crate::plan::firewall::TABLE_NAME;

/// How long the start waits for the state directory to be read.
const FIRST_WORLD: Duration = Duration::from_secs(5);
/// How often at most a change of our table in nftables is looked at.
const QUIET: Duration = Duration::from_millis(500);
/// How long a stop waits for steps in progress.
const DRAIN: Duration = Duration::from_secs(20);

/// How long a stop waits for one answer of BIRD.
const SILENCE: Duration = Duration::from_millis(1500);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What keeps it from starting: the state directory, the local API's address. Neither the Control Plane nor
/// DNS nor BIRD does, nor a missing key.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), BuildError> {
    if let Err(missing) = Missing::look(&config).await
        && !lost::wait(&config, missing, &stop).await
    {
        return Ok(());
    }
    let parts = Arc::new(Parts::build(config).await?);
    let server = bind(&parts).await?;
    info!(router = %parts.config.node.name, version = build::VERSION, commit = build::COMMIT, "starting");

    begin_key(&parts).await;
    let recording = journal::begin(&parts).await;
    let (hints, hinted) = mpsc::unbounded_channel();
    let worlds = tokio::spawn(worlds::run(Arc::clone(&parts), hints.clone(), stop.clone()));
    let events = tokio::spawn(watch_kernel(
        Arc::clone(&parts),
        hints.clone(),
        stop.clone(),
    ));
    let filter = tokio::spawn(watch_firewall(
        Arc::clone(&parts),
        hints.clone(),
        stop.clone(),
    ));
    let journal = tokio::spawn(journal::run(Arc::clone(&parts), recording, stop.clone()));
    let roas = tokio::spawn(roa::run(Arc::clone(&parts), stop.clone()));
    let limits = tokio::spawn(limits::run(Arc::clone(&parts), stop.clone()));
    let templates = tokio::spawn(templates::watch(Arc::clone(&parts), stop.clone()));
    let announcer = tokio::spawn(announcer::run(Arc::clone(&parts), stop.clone()));
    let key = tokio::spawn(key::watch(Arc::clone(&parts), stop.clone()));
    let polls = parts
        .client
        .clone()
        .map(|client| tokio::spawn(poll::run(Arc::clone(&parts), client, stop.clone())));
    *parts.hints.lock().await = Some(hints.clone());
    drop(hints);

    // The first world is there before the first look and the first answer: nothing is judged by half of
    // what is wanted. A state directory that cannot be read holds up neither for long; its world is
    // empty and incomplete, by which nothing is removed.
    let mut ready = parts.context.world.clone();
    let _ = tokio::time::timeout(FIRST_WORLD, ready.changed()).await;
    let http = tokio::spawn(server.run(stop.clone().cancelled_owned()));
    let runner = tokio::spawn(Runner::new(Arc::clone(&parts.context)).run(hinted));
    stop.cancelled().await;
    info!("stopping; tunnels and BGP sessions stay as they are");
    parts.hints.lock().await.take();
    let tasks = [
        worlds, events, filter, roas, limits, templates, announcer, key, runner,
    ];
    drain(&parts, tasks.into_iter().chain(polls).collect()).await;
    drain(&parts, vec![journal]).await;
    drain(&parts, vec![http]).await;
    Ok(())
}

/// The first write of a start: whatever can refuse one has been checked.
async fn begin_key(parts: &Arc<Parts>) {
    let key = Arc::clone(&parts.maker.key);
    let _ = tokio::task::spawn_blocking(move || key.begin()).await;
}

async fn bind(parts: &Arc<Parts>) -> Result<Server, BuildError> {
    let options = HttpOptions {
        listen: parts.config.server.listen.clone(),
        token: parts.config.server.token.clone(),
        state: Arc::new(api::Api::new(Arc::clone(parts))),
    };
    Server::bind(&options).await.map_err(BuildError::from)
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
            return;
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
        return;
    }
    let mut events = match kernel::nftables_events(TABLE_NAME) {
        Ok(events) => events,
        Err(error) => {
            warn!(%error, "the events of nftables cannot be heard; changes are found by looking every few seconds");
            return;
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
        tokio::time::sleep(QUIET).await;
    }
}

async fn drain(parts: &Parts, tasks: Vec<JoinHandle<()>>) {
    let all = futures::future::join_all(tasks);
    tokio::select! {
        _ = all => {}
        () = silence(parts) => warn!("BIRD does not answer; stopping without it, and the next start goes on"),
        () = tokio::time::sleep(DRAIN) => {
            warn!("a task did not end in time; what it began is finished at the next start");
        }
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

/// Converges every object once, without polls, events or the local API. Returns what failed, and why.
///
/// # Errors
/// When the state directory cannot be read.
pub async fn apply_once(parts: &Arc<Parts>) -> Result<Vec<(Key, String)>, BuildError> {
    begin_key(parts).await;
    let recording = journal::begin(parts).await;
    parts.context.taken.keep();
    worlds::publish(parts).await?;
    worlds::resolved(parts).await?;
    Runner::new(Arc::clone(&parts.context)).run_once().await;
    journal::end_pass(parts, recording).await;
    let statuses = parts.context.board.all();
    Ok(statuses
        .into_iter()
        .filter_map(|(key, status)| Some((key, status.last_error?)))
        .collect())
}
