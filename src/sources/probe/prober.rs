use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::{Ping, Probe, ProbeError, ProbeSettings, Target};
use crate::intervals::PROBE_STAGGER;
use crate::util::backoff::Backoff;

/// Probes its targets in turn; the task of [`Prober::start`] ends when it is dropped.
#[derive(Debug)]
pub struct Prober {
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    targets: Mutex<BTreeMap<Target, Entry>>,
    wake: Notify,
    answered: Notify,
    /// Whether a target has answered that [`Prober::answered`] has not announced yet.
    news: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    last: Option<Probe>,
    error: Option<String>,
    due: Instant,
    running: bool,
    /// Number of consecutive probes without a reply.
    silences: u32,
    /// Whether the target has answered, or was silent more than once: a tunnel may come up after its first probe.
    is_probed: bool,
}

impl Prober {
    /// Starts the task on the current tokio runtime.
    pub fn start(ping: Arc<dyn Ping>, settings: ProbeSettings) -> Self {
        let (mut prober, work) = Self::new(ping, settings);
        prober.task = Some(tokio::spawn(work));
        prober
    }

    /// Returns the prober and its task, which the caller runs for as long as the prober is used.
    pub fn new(
        ping: Arc<dyn Ping>,
        settings: ProbeSettings,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            targets: Mutex::default(),
            wake: Notify::new(),
            answered: Notify::new(),
            news: AtomicBool::new(false),
        });
        let work = run(Arc::clone(&shared), ping, settings);
        (Self { shared, task: None }, work)
    }

    /// Probes exactly these targets from now on; the others are forgotten. A new one is probed at once, and
    /// many new ones one after the other.
    pub fn watch(&self, targets: BTreeSet<Target>) {
        let mut known = self.shared.targets.lock();
        known.retain(|target, _| targets.contains(target));
        let mut due = Instant::now();
        for target in targets {
            known.entry(target).or_insert_with(|| {
                let entry = Entry {
                    last: None,
                    error: None,
                    due,
                    running: false,
                    silences: 0,
                    is_probed: false,
                };
                due += PROBE_STAGGER;
                entry
            });
        }
        drop(known);
        self.shared.wake.notify_one();
    }

    /// Returns the last result of the target; `None` before the first. Never waits.
    pub fn current(&self, target: &Target) -> Option<Probe> {
        self.shared
            .targets
            .lock()
            .get(target)
            .and_then(|entry| entry.last)
    }

    /// Returns whether the target has answered, or was silent more than once.
    pub fn is_probed(&self, target: &Target) -> bool {
        let targets = self.shared.targets.lock();
        targets.get(target).is_some_and(|entry| entry.is_probed)
    }

    /// Returns whether the first probe of a target is still due or in progress.
    pub fn is_waiting(&self, target: &Target) -> bool {
        let targets = self.shared.targets.lock();
        targets.get(target).is_some_and(|entry| !entry.is_probed)
    }

    /// Waits until targets have answered for the first time, or again after they were silent, and all are
    /// probed: the classes of all links become known together. For one caller at a time; safe to cancel.
    pub async fn answered(&self) {
        self.shared.answered.notified().await;
    }

    /// Returns why the last probe of the target could not run, if it could not.
    pub fn error(&self, target: &Target) -> Option<String> {
        self.shared
            .targets
            .lock()
            .get(target)
            .and_then(|entry| entry.error.clone())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn run(shared: Arc<Shared>, ping: Arc<dyn Ping>, settings: ProbeSettings) {
    let permits = Arc::new(Semaphore::new(settings.concurrency.max(1)));
    let mut running = JoinSet::new();
    loop {
        for target in take_due(&shared) {
            let (ping, permits, settings) =
                (Arc::clone(&ping), Arc::clone(&permits), settings.clone());
            running.spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire_owned().await.ok();
                let outcome = ping.ping(&target, &settings).await;
                (target, outcome)
            });
        }
        let next = shared
            .targets
            .lock()
            .values()
            .filter(|entry| !entry.running)
            .map(|entry| entry.due)
            .min();
        tokio::select! {
            () = shared.wake.notified() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            Some(ended) = running.join_next() => {
                // A probe is never cancelled; its panic is this task's.
                let (target, outcome) = ended.unwrap_or_else(|error| resume_unwind(error.into_panic()));
                record(&shared, &target, outcome, settings.interval);
            }
        }
    }
}

fn take_due(shared: &Shared) -> Vec<Target> {
    let now = Instant::now();
    let mut targets = shared.targets.lock();
    let due = targets
        .iter_mut()
        .filter(|(_, entry)| !entry.running && entry.due <= now);
    due.map(|(target, entry)| {
        entry.running = true;
        target.clone()
    })
    .collect()
}

fn record(
    shared: &Shared,
    target: &Target,
    outcome: Result<Vec<Option<Duration>>, ProbeError>,
    interval: Duration,
) {
    let mut targets = shared.targets.lock();
    // A missing target is no longer watched.
    let Some(entry) = targets.get_mut(target) else {
        return;
    };
    entry.running = false;
    let before = entry.last;
    match outcome {
        Ok(echoes) => {
            (entry.last, entry.error) = (Some(Probe::new(&echoes, Timestamp::now())), None)
        }
        Err(error) => {
            tracing::debug!(%target, %error, "not probed");
            entry.error = Some(error.to_string());
        }
    }
    let answers = |probe: Option<Probe>| probe.is_some_and(|probe| probe.rtt_ms.is_some());
    if answers(entry.last) && !answers(before) {
        shared.news.store(true, Ordering::Relaxed);
    }
    let silent = entry.error.is_some() || !answers(entry.last);
    entry.silences = if silent {
        entry.silences.saturating_add(1)
    } else {
        0
    };
    entry.is_probed |= !silent || entry.silences > 1;
    entry.due = Instant::now() + pause(entry, before.is_none(), interval);
    if shared.news.load(Ordering::Relaxed) && targets.values().all(|entry| entry.is_probed) {
        shared.news.store(false, Ordering::Relaxed);
        shared.answered.notify_one();
    }
}

/// Returns the time to the next probe, with a tenth of jitter. After the first probe it is a random part of the
/// interval, so that targets that were added together do not stay together. A silent target is probed again
/// sooner: a tunnel during setup must not be reported dead for a whole interval. A target that stays silent is
/// probed less and less often, because a thousand dead ones would delay the first probe of a new one for minutes.
fn pause(entry: &Entry, first: bool, interval: Duration) -> Duration {
    let base = match entry.silences {
        0 => interval,
        times => Backoff::new(interval / 5, interval).wait(times - 1),
    };
    let range = if first { 0.0..1.0 } else { 0.9..1.1 };
    base.mul_f64(rand::rng().random_range(range))
}
