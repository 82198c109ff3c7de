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
    targets: Mutex<Targets>,
    wake: Notify,
    answered: Notify,
    /// Whether a target has answered that [`Prober::answered`] has not announced yet.
    news: AtomicBool,
}

#[derive(Debug, Default)]
struct Targets {
    known: BTreeMap<Target, Entry>,
    /// The targets that are not being probed, by the time of their next probe.
    due: BTreeSet<(Instant, Target)>,
}

#[derive(Debug)]
struct Entry {
    last: Option<Probe>,
    error: Option<String>,
    /// Time of the next probe; `None` during a probe.
    due: Option<Instant>,
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
        self.shared.targets.lock().watch(targets);
        self.shared.wake.notify_one();
    }

    /// Returns the last result of the target; `None` before the first. Never waits.
    pub fn current(&self, target: &Target) -> Option<Probe> {
        let targets = self.shared.targets.lock();
        targets.known.get(target)?.last
    }

    /// Returns whether the target has answered, or was silent more than once.
    pub fn is_probed(&self, target: &Target) -> bool {
        let targets = self.shared.targets.lock();
        let entry = targets.known.get(target);
        entry.is_some_and(|entry| entry.is_probed)
    }

    /// Returns whether the first probe of a target is still due or in progress.
    pub fn is_waiting(&self, target: &Target) -> bool {
        let targets = self.shared.targets.lock();
        let entry = targets.known.get(target);
        entry.is_some_and(|entry| !entry.is_probed)
    }

    /// Waits until targets have answered for the first time, or again after they were silent, and all are
    /// probed: the classes of all links become known together. For one caller at a time; safe to cancel.
    pub async fn answered(&self) {
        self.shared.answered.notified().await;
    }

    /// Returns why the last probe of the target could not run, if it could not.
    pub fn error(&self, target: &Target) -> Option<String> {
        let targets = self.shared.targets.lock();
        targets.known.get(target)?.error.clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Targets {
    /// Replaces the targets; those that were there keep their results.
    fn watch(&mut self, targets: BTreeSet<Target>) {
        self.known.retain(|target, _| targets.contains(target));
        self.due.retain(|(_, target)| targets.contains(target));
        let mut due = Instant::now();
        for target in targets {
            if self.known.contains_key(&target) {
                continue;
            }
            let entry = Entry {
                last: None,
                error: None,
                due: Some(due),
                silences: 0,
                is_probed: false,
            };
            self.due.insert((due, target.clone()));
            self.known.insert(target, entry);
            due += PROBE_STAGGER;
        }
    }

    /// Takes a target whose probe is due.
    fn take_due(&mut self) -> Option<Target> {
        if self.next()? > Instant::now() {
            return None;
        }
        let (_, target) = self.due.pop_first()?;
        self.known.get_mut(&target)?.due = None;
        Some(target)
    }

    /// Returns the time of the next probe.
    fn next(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}

async fn run(shared: Arc<Shared>, ping: Arc<dyn Ping>, settings: ProbeSettings) {
    let permits = Arc::new(Semaphore::new(settings.concurrency.max(1)));
    let mut running = JoinSet::new();
    loop {
        while let Some(target) = take_due(&shared) {
            let (ping, permits, settings) =
                (Arc::clone(&ping), Arc::clone(&permits), settings.clone());
            running.spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire_owned().await.ok();
                let outcome = ping.ping(&target, &settings).await;
                (target, outcome)
            });
        }
        let next = shared.targets.lock().next();
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

fn take_due(shared: &Shared) -> Option<Target> {
    shared.targets.lock().take_due()
}

fn record(
    shared: &Shared,
    target: &Target,
    outcome: Result<Vec<Option<Duration>>, ProbeError>,
    interval: Duration,
) {
    let mut targets = shared.targets.lock();
    let Targets { known, due } = &mut *targets;
    // A missing target is no longer watched.
    let Some(entry) = known.get_mut(target) else {
        return;
    };
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
    let next = Instant::now() + pause(entry, before.is_none(), interval);
    // It may have been forgotten and watched again during the probe.
    if let Some(other) = entry.due.replace(next) {
        due.remove(&(other, target.clone()));
    }
    due.insert((next, target.clone()));
    if shared.news.load(Ordering::Relaxed) && known.values().all(|entry| entry.is_probed) {
        shared.news.store(false, Ordering::Relaxed);
        shared.answered.notify_one();
    }
}

/// Returns the time to the next probe, with a tenth of jitter. After the first probe it is a random part of the
/// interval, so that targets that were added together do not stay together. A silent target is probed again
/// sooner: a tunnel during setup must not be reported dead for a whole interval, but needs a moment. A target that stays
/// silent is probed less and less often, because a thousand dead ones would delay the first probe of a new one for minutes.
fn pause(entry: &Entry, first: bool, interval: Duration) -> Duration {
    let base = match entry.silences {
        0 => interval,
        times => Backoff::new(interval / 5, interval).wait(times - 1),
    };
    let range = match (first, entry.silences) {
        (true, 0) => 0.0..1.0,
        (true, _) => 0.1..1.0,
        (false, _) => 0.9..1.1,
    };
    base.mul_f64(rand::rng().random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnel_in_setup_has_a_moment_before_its_second_probe() {
        let silent = Entry {
            last: None,
            error: Some("no such device".to_owned()),
            due: None,
            silences: 1,
            is_probed: false,
        };
        for _ in 0..1000 {
            let pause = pause(&silent, true, Duration::from_secs(300));
            assert!((6..=60).contains(&pause.as_secs()), "{pause:?}");
        }
    }
}
