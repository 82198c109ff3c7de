//! Progress of the runner: when a run last ended, and which runs do not end.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts};
use tokio::time::Instant;

use crate::model::ObjectKey;

/// Progress of the runner, for `/status` and the metrics.
#[derive(Debug)]
pub struct Pulse {
    state: Mutex<State>,
    durations: Option<Histogram>,
}

/// Upper bounds of the durations that are counted together, in seconds: from a reconcile without steps to one that waits
/// for a load of BIRD.
const BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Returns a histogram of durations; `None` would mean that name or bounds are not valid.
fn durations() -> Option<Histogram> {
    let name = "moenet_agent_reconcile_duration_seconds";
    let help = "Time from the start of the pass to the end of the reconcile of one object";
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(BOUNDS.into())).ok()
}

#[derive(Debug)]
struct State {
    /// Time at which a run ended, or the runner had nothing to do.
    last: Instant,
    /// Whether a run has ended.
    has_run: bool,
    running: BTreeMap<ObjectKey, Instant>,
    passes: u64,
    plans: u64,
    builds: u64,
    repairs: u64,
}

impl Default for Pulse {
    fn default() -> Self {
        let state = State {
            last: Instant::now(),
            has_run: false,
            running: BTreeMap::new(),
            passes: 0,
            plans: 0,
            builds: 0,
            repairs: 0,
        };
        Self {
            state: Mutex::new(state),
            durations: durations(),
        }
    }
}

impl Pulse {
    /// Records the start of a pass, with a run of each of its keys.
    pub(super) fn begin(&self, keys: &[ObjectKey]) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.passes += 1;
        state.plans += keys.len() as u64;
        state
            .running
            .extend(keys.iter().map(|key| (key.clone(), now)));
    }

    /// Returns the number of passes, and of plans made in them.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.passes, state.plans)
    }

    /// Records the end of a run.
    pub(super) fn end(&self, key: &ObjectKey) {
        let mut state = self.state.lock();
        state.last = Instant::now();
        let begun = state.running.remove(key);
        if let (Some(begun), Some(durations)) = (begun, &self.durations) {
            durations.observe(state.last.duration_since(begun).as_secs_f64());
        }
        state.has_run = true;
    }

    /// Returns how long the runs took.
    pub fn durations(&self) -> Option<&Histogram> {
        self.durations.as_ref()
    }

    /// Returns whether a run has ended since the start.
    pub fn has_run(&self) -> bool {
        self.state.lock().has_run
    }

    /// Records how often the desired state was built.
    pub fn built(&self, builds: u64) {
        self.state.lock().builds = builds;
    }

    /// Returns how often the desired state was built.
    pub fn builds(&self) -> u64 {
        self.state.lock().builds
    }

    /// Records a reconcile that repaired a drift.
    pub(super) fn repaired(&self) {
        self.state.lock().repairs += 1;
    }

    /// Returns the number of reconciles that repaired a drift.
    pub fn repairs(&self) -> u64 {
        self.state.lock().repairs
    }

    /// Records a tick: a runner without runs has finished its pass.
    pub(crate) fn tick(&self) {
        let mut state = self.state.lock();
        if state.running.is_empty() {
            state.last = Instant::now();
        }
    }

    /// Returns the time at which a run ended or the runner had nothing to do.
    pub fn progress(&self) -> Instant {
        self.state.lock().last
    }

    /// Returns the time since a run ended or the runner had nothing to do.
    pub fn silence(&self) -> Duration {
        self.state.lock().last.elapsed()
    }

    /// Returns the keys whose run has taken longer than this.
    pub fn stuck(&self, longer_than: Duration) -> Vec<ObjectKey> {
        let state = self.state.lock();
        let stuck = state
            .running
            .iter()
            .filter(|(_, since)| since.elapsed() > longer_than);
        stuck.map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn endless_run_is_stuck_and_stops_the_pulse() {
        let pulse = Pulse::default();
        pulse.begin(&[ObjectKey::Router]);
        tokio::time::advance(Duration::from_secs(61)).await;
        pulse.tick();
        assert_eq!(pulse.silence(), Duration::from_secs(61));
        assert_eq!(pulse.stuck(Duration::from_secs(60)), [ObjectKey::Router]);

        pulse.begin(&[ObjectKey::Firewall]);
        pulse.end(&ObjectKey::Firewall);
        assert_eq!(pulse.durations().unwrap().get_sample_count(), 1);
        assert_eq!(pulse.silence(), Duration::ZERO, "other keys make progress");
        pulse.end(&ObjectKey::Router);
        assert!(pulse.stuck(Duration::ZERO).is_empty());
        tokio::time::advance(Duration::from_secs(61)).await;
        pulse.tick();
        assert_eq!(pulse.silence(), Duration::ZERO, "nothing to do is progress");
    }
}
