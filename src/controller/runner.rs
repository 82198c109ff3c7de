use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::context::Context;
use super::queue::{Backoff, Outcome, Queue};
use super::reconcile::reconcile;
use super::runs::Runs;
use super::world::World;
use crate::intervals::RECONCILE_TICK;
use crate::model::ObjectKey;

/// Number of times that one pass retries an object that waits for another one: about ten seconds in total.
const WAITS: u8 = 6;

/// Runs keys, each when it is due, until the agent stops.
pub struct Runner {
    context: Arc<Context>,
    queue: Queue<ObjectKey>,
    running: Runs<ObjectKey>,
}

/// Returns every key of a world.
pub fn keys(world: &World) -> BTreeSet<ObjectKey> {
    let objects = world.objects.keys().cloned();
    objects
        .chain([ObjectKey::Router, ObjectKey::Firewall])
        .collect()
}

impl Runner {
    /// Returns a runner without any scheduled key.
    pub fn new(context: Arc<Context>) -> Self {
        let backoff = Backoff {
            beat: RECONCILE_TICK,
            ..Backoff::default()
        };
        Self {
            context,
            queue: Queue::new(backoff, Instant::now()),
            running: Runs::new(),
        }
    }

    /// Runs until the channel of hints is closed, and then until no key is running.
    pub async fn run(mut self, mut hints: mpsc::UnboundedReceiver<Hint>) {
        // The tick falls on the beats of the queue, so failed keys and all others share an observation.
        let mut tick = tokio::time::interval_at(self.queue.origin(), RECONCILE_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            self.start_due();
            let next = self.queue.next_due();
            let wait = next.unwrap_or_else(|| Instant::now() + RECONCILE_TICK);
            tokio::select! {
                hint = hints.recv() => match hint {
                    Some(hint) => self.take(hint),
                    None => break,
                },
                Some((key, outcome)) = self.running.ended() => {
                    self.context.pulse.end(&key);
                    self.queue.finish(&key, outcome, Instant::now(), rand::random());
                }
                at = tick.tick() => {
                    self.context.pulse.tick();
                    self.add_all(at);
                }
                () = sleep_until(wait), if next.is_some() => {}
            }
        }
        while self.running.ended().await.is_some() {}
        while self.context.bird_work.is_busy() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs every key until all are settled, or have failed, once.
    pub async fn run_once(mut self) {
        let (hints, mut hinted) = mpsc::unbounded_channel();
        self.context.hints.lock().replace(hints);
        self.context.observer.wait_for_bird();
        self.add_all(Instant::now());
        // The firewall follows the tunnels that the other keys create, and the node's record follows the firewall.
        self.queue.remove(&ObjectKey::Firewall);
        self.wave(&mut hinted).await;
        for last in [ObjectKey::Firewall, ObjectKey::Router] {
            self.queue.add(last, Instant::now());
            self.wave(&mut hinted).await;
        }
    }

    /// Runs until no key is due.
    async fn wave(&mut self, hinted: &mut mpsc::UnboundedReceiver<Hint>) {
        let mut seen = BTreeSet::new();
        let mut waited: BTreeMap<ObjectKey, u8> = BTreeMap::new();
        loop {
            while let Ok(hint) = hinted.try_recv() {
                // Every other key has already been added; this is for links that belong to no key.
                if let Hint::Key(key @ ObjectKey::Orphan(_)) = hint {
                    self.queue.add(key, Instant::now());
                }
            }
            self.start_due();
            let Some((key, outcome)) = self.running.ended().await else {
                // Keys that wait for another object are retried.
                let Some(due) = self.queue.next_due() else {
                    return;
                };
                sleep_until(due).await;
                continue;
            };
            // A key may ask for an immediate retry: when the node's addresses move to `lo`.
            let again = match outcome {
                Outcome::Settled(wait) => wait.is_zero() && seen.insert(key.clone()),
                Outcome::Waiting => {
                    let times = waited.entry(key.clone()).or_default();
                    *times += 1;
                    *times <= WAITS
                }
                Outcome::Failed | Outcome::Gone => false,
            };
            self.queue.finish(
                &key,
                if again { outcome } else { Outcome::Gone },
                Instant::now(),
                0.0,
            );
        }
    }

    fn start_due(&mut self) {
        while let Some((key, due)) = self.queue.next(Instant::now()) {
            let context = Arc::clone(&self.context);
            let of = key.clone();
            self.context.pulse.begin(&key);
            self.running
                .start(key, async move { reconcile(&context, &of, due).await });
        }
    }

    fn take(&mut self, hint: Hint) {
        match hint {
            Hint::Everything => self.add_all(Instant::now()),
            Hint::Key(key) => self.queue.add(key, Instant::now()),
        }
    }

    fn add_all(&mut self, now: Instant) {
        // A waiting key that is no longer in the world has a status to forget.
        for key in keys(&self.context.world())
            .into_iter()
            .chain(self.queue.waiting())
        {
            self.queue.refresh(key, now);
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.context.bird_work.abort();
    }
}

/// A hint about a possible change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The changed object is unknown; reconcile everything.
    Everything,
    /// This object.
    Key(ObjectKey),
}
