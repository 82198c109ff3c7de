use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::intervals::{KEY_BEAT, KEY_RETRY, MOVING_OBJECT};
use crate::model::ErrorClass;
use crate::util::backoff;

/// Schedule of the keys. Each key has one slot: however often it is added, it runs once; an addition while it runs
/// causes one more run afterwards; runs of one key never overlap.
#[derive(Debug)]
pub struct Queue<K> {
    /// Due time of each waiting key.
    due: BTreeMap<K, Instant>,
    /// The same times, the next one first.
    order: BTreeSet<(Instant, K)>,
    /// The running keys, each with the time since which one more run is requested.
    running: BTreeMap<K, Option<Instant>>,
    /// The class of the last failures in a row, and their number.
    failures: BTreeMap<K, (ErrorClass, u32)>,
    backoff: Backoff,
    /// Time of the first beat.
    origin: Instant,
}

/// Wait of a failing key: doubled each time, within bounds, and separate for each key.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// Waits of at least this time end on a multiple of it. So a thousand failing keys share one observation
    /// now and then, instead of one each, four in every second.
    pub beat: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: KEY_RETRY.0,
            most: KEY_RETRY.1,
            beat: KEY_BEAT,
        }
    }
}

impl Backoff {
    /// Returns the waits after failures of this class.
    fn waits(&self, class: ErrorClass) -> backoff::Backoff {
        match class {
            ErrorClass::Transient | ErrorClass::Bug => backoff::Backoff::new(self.first, self.most),
            // A changed input makes the key due; the same one fails again.
            ErrorClass::Invalid => backoff::Backoff::new(self.beat.max(self.first), self.most),
            // Not every owner announces that the object is free, and an attempt changes nothing until then.
            ErrorClass::Conflict => backoff::Backoff::new(self.first, self.beat.min(self.most)),
        }
    }
}

/// Result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As wanted; reconcile again after this time, since not all drift is announced.
    Settled(Duration),
    /// Failed; try again after a backoff that follows the class.
    Failed(ErrorClass),
    /// Another object has to move first, or BIRD was too slow; reconcile again soon, and then at every beat until it works.
    Waiting,
    Gone,
    /// The reconcile is not over: continue after this time, or when an event adds the key.
    Again(Duration),
}

impl<K: Ord + Clone> Queue<K> {
    /// Returns an empty queue, with its first beat now.
    pub fn new(backoff: Backoff, now: Instant) -> Self {
        let (due, order, running, failures) = Default::default();
        Self {
            due,
            order,
            running,
            failures,
            backoff,
            origin: now,
        }
    }

    /// Schedules a key that may have changed. The change may fix the failure, so a failing key does not wait out
    /// its backoff.
    pub fn add(&mut self, key: K, now: Instant) {
        match self.running.get_mut(&key) {
            Some(again) => *again = Some(again.map_or(now, |at| at.min(now))),
            None => self.schedule(key, now),
        }
    }

    /// Returns whether the last runs of a key failed. A periodic reconcile announces no change, so such a key waits out its
    /// backoff.
    pub fn is_failing(&self, key: &K) -> bool {
        self.failures.contains_key(key)
    }

    /// Schedules the failing keys but these: a fact that they share changed, so none waits out its backoff.
    pub fn retry_failed(&mut self, now: Instant, except: &BTreeSet<&K>) {
        let failed = self.failures.keys().filter(|key| !except.contains(key));
        let failed: Vec<K> = failed.cloned().collect();
        failed.into_iter().for_each(|key| self.add(key, now));
    }

    /// Schedules a key that is not running at this time, or earlier if it is due earlier.
    fn schedule(&mut self, key: K, at: Instant) {
        if self.due.get(&key).is_none_or(|due| at < *due) {
            self.remove(&key);
            self.order.insert((at, key.clone()));
            self.due.insert(key, at);
        }
    }

    /// Returns the due time of a key that is not running.
    pub fn due(&self, key: &K) -> Option<Instant> {
        self.due.get(key).copied()
    }

    /// Returns whether a key that is not running is due.
    pub fn is_due(&self, key: &K, now: Instant) -> bool {
        self.due(key).is_some_and(|due| due <= now)
    }

    pub fn is_running(&self, key: &K) -> bool {
        self.running.contains_key(key)
    }

    /// Takes a key that is due and not running, as [`Self::next`] does with the first.
    pub fn take(&mut self, key: &K, now: Instant) -> bool {
        let is_due = self.is_due(key, now);
        if is_due {
            self.remove(key);
            self.running.insert(key.clone(), None);
        }
        is_due
    }

    /// Returns every waiting key.
    pub fn waiting(&self) -> Vec<K> {
        let again = self.running.iter().filter(|(_, again)| again.is_some());
        self.due
            .keys()
            .chain(again.map(|(key, _)| key))
            .cloned()
            .collect()
    }

    pub fn remove(&mut self, key: &K) {
        if let Some((key, at)) = self.due.remove_entry(key) {
            self.order.remove(&(at, key));
        }
    }

    /// Returns a key that is due and not running, and its due time; the key counts as running from now on.
    pub fn next(&mut self, now: Instant) -> Option<(K, Instant)> {
        self.next_due().filter(|due| *due <= now)?;
        let (due, key) = self.order.pop_first()?;
        self.due.remove(&key);
        self.running.insert(key.clone(), None);
        Some((key, due))
    }

    /// Records the result of a run. `random` in 0..1 spreads the waits (at least half of each).
    pub fn finish(&mut self, key: &K, outcome: Outcome, now: Instant, random: f64) {
        // An addition during the run remains valid, and is sooner than the times below.
        if let Some(again) = self.running.remove(key).flatten() {
            // The steps of a reconcile that continues may be younger than the addition.
            let is_continued = matches!(outcome, Outcome::Again(_));
            self.schedule(key.clone(), if is_continued { now } else { again });
        }
        let spread = |wait: Duration| now + wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        match outcome {
            Outcome::Again(wait) => self.schedule(key.clone(), now + wait),
            Outcome::Gone => drop(self.failures.remove(key)),
            Outcome::Settled(wait) => {
                self.failures.remove(key);
                // Objects that were configured together are looked at together.
                let at = match wait {
                    wait if wait == MOVING_OBJECT => self.on_nearest(now + wait, MOVING_OBJECT),
                    wait => spread(wait),
                };
                self.schedule(key.clone(), at);
            }
            Outcome::Waiting => {
                let wait = self.fail(key, ErrorClass::Transient) / 4;
                let wait = wait.min(self.backoff.beat);
                self.schedule(key.clone(), now + wait);
            }
            Outcome::Failed(class) => {
                let wait = self.fail(key, class);
                let at = if wait >= self.backoff.beat {
                    self.on_nearest(spread(wait), self.backoff.beat)
                } else {
                    spread(wait)
                };
                self.schedule(key.clone(), at);
            }
        }
    }

    fn fail(&mut self, key: &K, class: ErrorClass) -> Duration {
        let (last, failures) = self.failures.entry(key.clone()).or_insert((class, 0));
        if *last != class {
            (*last, *failures) = (class, 0);
        }
        let wait = self.backoff.waits(class).wait(*failures);
        *failures = failures.saturating_add(1);
        wait
    }

    /// Returns the multiple of this time since the first beat that is nearest to `at`.
    fn on_nearest(&self, at: Instant, of: Duration) -> Instant {
        let since = at.duration_since(self.origin).saturating_sub(of / 2);
        let times = since.as_millis().div_ceil(of.as_millis().max(1));
        self.origin + of * u32::try_from(times).unwrap_or(u32::MAX)
    }

    /// Returns the time of the first beat.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// Returns the due time of the next key that is not running.
    pub fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> (Queue<&'static str>, Instant) {
        let now = Instant::now();
        (Queue::new(Backoff::default(), now), now)
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
        assert_eq!(
            queue.next(now),
            Some(("a", now)),
            "the change during the run is not lost"
        );
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
            queue.finish(&"a", Outcome::Failed(ErrorClass::Transient), now, 1.0);
            assert_eq!(queue.next_due(), Some(now + Duration::from_secs(wait)));
        }
        queue.add("b", now);
        assert_eq!(queue.next(now), Some(("b", now)));
    }

    #[tokio::test(start_paused = true)]
    async fn class_of_a_failure_decides_the_waits() {
        use ErrorClass::{Bug, Conflict, Invalid, Transient};
        let doubled = [1, 2, 4, 8, 15, 30, 60, 130, 260, 300, 300];
        let cases = [
            (Transient, doubled),
            (Bug, doubled),
            (Invalid, [10, 20, 40, 80, 160, 300, 300, 300, 300, 300, 300]),
            (Conflict, [1, 2, 4, 8, 5, 10, 10, 10, 10, 10, 10]),
        ];
        for (class, waits) in cases {
            let (mut queue, mut now) = queue();
            queue.add("a", now);
            for (failures, wait) in waits.into_iter().enumerate() {
                assert_eq!(queue.next(now), Some(("a", now)));
                queue.finish(&"a", Outcome::Failed(class), now, 1.0);
                let due = queue.next_due().unwrap();
                let waited = due.duration_since(now).as_secs();
                assert_eq!(waited, wait, "{class:?} after {failures}");
                now = due;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failure_of_another_class_begins_at_the_first_wait() {
        let (mut queue, now) = queue();
        let mut due = now;
        for class in [ErrorClass::Conflict; 20] {
            queue.add("a", due);
            queue.next(due);
            queue.finish(&"a", Outcome::Failed(class), due, 1.0);
            due = queue.next_due().unwrap();
        }
        queue.next(due);
        queue.finish(&"a", Outcome::Failed(ErrorClass::Transient), due, 1.0);
        assert_eq!(queue.next_due(), Some(due + Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn shared_change_ends_the_waits_of_failed_keys() {
        let (mut queue, now) = queue();
        for (key, outcome) in [
            ("failed", Outcome::Failed(ErrorClass::Invalid)),
            ("settled", Outcome::Settled(Duration::from_secs(60))),
        ] {
            queue.add(key, now);
            queue.next(now);
            queue.finish(&key, outcome, now, 1.0);
        }
        queue.retry_failed(now, &BTreeSet::from([&"failed"]));
        assert!(!queue.is_due(&"failed", now), "its pass sees the new fact");
        queue.retry_failed(now, &BTreeSet::new());
        assert_eq!(queue.next(now), Some(("failed", now)));
        assert_eq!(queue.next(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_ends_the_backoff() {
        let (mut queue, now) = queue();
        queue.add("a", now);
        queue.next(now);
        queue.finish(&"a", Outcome::Failed(ErrorClass::Transient), now, 1.0);
        assert_eq!(queue.next(now), None);
        queue.add("a", now);
        assert_eq!(queue.next(now), Some(("a", now)));
    }

    #[tokio::test(start_paused = true)]
    async fn continued_reconcile_is_due_after_its_steps() {
        let (mut queue, now) = queue();
        queue.add("a", now);
        queue.next(now);
        queue.add("a", now);
        let later = now + Duration::from_millis(5);
        queue.finish(&"a", Outcome::Again(Duration::from_secs(5)), later, 1.0);
        assert_eq!(queue.next(later), Some(("a", later)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_forgotten() {
        let (mut queue, now) = queue();
        queue.add("a", now);
        queue.next(now);
        queue.finish(&"a", Outcome::Gone, now, 1.0);
        assert_eq!((queue.next_due(), !queue.running.is_empty()), (None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn objects_on_their_way_are_due_together() {
        let (mut queue, start) = queue();
        for key in ["a", "b"] {
            queue.add(key, start);
            queue.next(start);
        }
        for (key, after) in [("a", 100), ("b", 400)] {
            let now = start + Duration::from_millis(after);
            queue.finish(&key, Outcome::Settled(MOVING_OBJECT), now, 0.7);
            assert_eq!(queue.due(&key), Some(start + MOVING_OBJECT));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_fail_for_long_are_due_together() {
        let start = Instant::now();
        let mut queue = Queue::new(Backoff::default(), start);
        let (mut now, mut dues) = (start, BTreeSet::new());
        for key in 0..1000 {
            queue.add(key, now);
        }
        while now < start + Duration::from_secs(3600) {
            while let Some((key, due)) = queue.next(now) {
                dues.insert(due);
                queue.finish(
                    &key,
                    Outcome::Failed(ErrorClass::Transient),
                    now,
                    f64::from(key) / 1000.0,
                );
            }
            now = queue.next_due().unwrap();
        }
        let early = dues
            .iter()
            .filter(|due| **due < start + Duration::from_secs(60));
        let late: Vec<_> = dues
            .iter()
            .filter(|due| **due >= start + Duration::from_secs(60))
            .collect();
        assert!(early.count() > 1000, "the first tries are each key's own");
        assert!(
            late.len() <= 354,
            "{} times in an hour to look for a thousand keys",
            late.len()
        );
    }
}
