use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// When a key is looked at next. One slot a key: however often it is added, it runs once; while it runs,
/// a further addition makes it run once more afterwards; runs of one key never overlap.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Instant>,
    running: BTreeSet<K>,
    failures: BTreeMap<K, u32>,
    backoff: Backoff,
}

/// How long a failing key waits: twice as long each time, within bounds, and each key alone.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(300) }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted; look again after this time, since not all drift is announced.
    Settled(Duration),
    /// Failed; try again after a backoff.
    Failed,
    /// The object is gone.
    Gone,
}

impl<K: Ord + Clone> Queue<K> {
    /// An empty queue.
    pub fn new(backoff: Backoff) -> Self {
        Self { due: BTreeMap::new(), running: BTreeSet::new(), failures: BTreeMap::new(), backoff }
    }

    /// Says that a key may have changed. What changed may be the cure, so a failing key does not wait
    /// out its backoff.
    pub fn add(&mut self, key: K, now: Instant) {
        let due = self.due.entry(key).or_insert(now);
        *due = (*due).min(now);
    }

    /// Says that it is time to look at a key again. Unlike [`Queue::add`], this is no news, so a failing
    /// key waits out its backoff.
    pub fn refresh(&mut self, key: K, now: Instant) {
        if !self.failures.contains_key(&key) {
            self.add(key, now);
        }
    }

    /// Every key that waits for its time.
    pub fn waiting(&self) -> Vec<K> {
        self.due.keys().cloned().collect()
    }

    /// Takes a key out that is not to be looked at now.
    pub fn remove(&mut self, key: &K) {
        self.due.remove(key);
    }

    /// A key that is due and not running, and since when it is; it counts as running from now on.
    pub fn next(&mut self, now: Instant) -> Option<(K, Instant)> {
        let ready = |(key, due): &(&K, &Instant)| **due <= now && !self.running.contains(*key);
        let (key, due) = self.due.iter().filter(ready).min_by_key(|(_, due)| **due)?;
        let (key, due) = (key.clone(), *due);
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some((key, due))
    }

    /// Says how the run of a key ended. `random` in 0..1 spreads the waits (at least half of each).
    pub fn finish(&mut self, key: &K, outcome: Outcome, now: Instant, random: f64) {
        self.running.remove(key);
        let wait = match outcome {
            Outcome::Gone => {
                self.failures.remove(key);
                return;
            }
            Outcome::Settled(wait) => {
                self.failures.remove(key);
                wait
            }
            Outcome::Failed => self.fail(key),
        };
        let at = now + wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        // An addition during the run stands, and is sooner.
        let due = self.due.entry(key.clone()).or_insert(at);
        *due = (*due).min(at);
    }

    fn fail(&mut self, key: &K) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let doublings = (*failures).min(16);
        *failures = failures.saturating_add(1);
        self.backoff.first.saturating_mul(1 << doublings).min(self.backoff.most)
    }

    /// When the next key that is not running is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.iter().filter(|(key, _)| !self.running.contains(*key)).map(|(_, due)| *due).min()
    }

    /// Whether a key is running.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (Queue<&'static str>, Instant) {
        (Queue::new(Backoff::default()), Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn runs_of_one_key_never_overlap() {
        let (mut queue, now) = queue();
        queue.add("a", now);
        assert_eq!(queue.next(now), Some(("a", now)));
        queue.add("a", now);
        queue.add("a", now);
        assert_eq!(queue.next(now), None);
        queue.finish(&"a", Outcome::Settled(Duration::from_secs(60)), now, 1.0);
        assert_eq!(queue.next(now), Some(("a", now)), "the change during the run is not lost");
        queue.finish(&"a", Outcome::Settled(Duration::from_secs(60)), now, 1.0);
        assert_eq!(queue.next(now), None);
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_key_backs_off_alone() {
        let (mut queue, now) = queue();
        for wait in [1, 2, 4, 8] {
            queue.add("a", now);
            assert_eq!(queue.next(now), Some(("a", now)));
            queue.finish(&"a", Outcome::Failed, now, 1.0);
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(wait)));
        }
        queue.add("b", now);
        assert_eq!(queue.next(now), Some(("b", now)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_the_backoff() {
        let (mut queue, now) = queue();
        queue.add("a", now);
        queue.next(now);
        queue.finish(&"a", Outcome::Failed, now, 1.0);
        assert_eq!(queue.next(now), None);
        queue.add("a", now);
        assert_eq!(queue.next(now), Some(("a", now)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_forgotten() {
        let (mut queue, now) = queue();
        queue.add("a", now);
        queue.next(now);
        queue.finish(&"a", Outcome::Gone, now, 1.0);
        assert_eq!((queue.next_due(), queue.is_running()), (None, false));
    }
}
