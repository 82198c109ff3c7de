//! Deadlines that follow the size of BIRD's configuration and the time that this machine took for it.

use std::time::Duration;

use parking_lot::Mutex;

use crate::intervals::{BIRD_DEADLINE_MAX, BIRD_PER_FILE};

/// A run may take this many times as long as the last one.
const SLOWER: u32 = 4;
/// After a run that did not end in time, the next one may take this many times as long. An answer may take this many times
/// as long as the last run, which it may have to wait for.
const LATER: u32 = 2;

/// The time that this machine takes for BIRD's files: the parser, and the daemon, which parses them too.
#[derive(Debug)]
pub(crate) struct Pace {
    base: Duration,
    last: Mutex<Option<Last>>,
    /// The time of the last run that ended.
    ended: Mutex<Duration>,
}

/// How long a run like the last one may take.
#[derive(Debug)]
struct Last {
    files: usize,
    may_take: Duration,
}

impl Pace {
    /// Returns a pace without a measured time. `base` is the deadline of an empty configuration.
    pub(crate) fn new(base: Duration) -> Self {
        Self {
            base,
            last: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// Returns the deadline of a run over this many files.
    pub(crate) fn deadline(&self, files: usize) -> Duration {
        let by_size = self.base + BIRD_PER_FILE * u32::try_from(files).unwrap_or(u32::MAX);
        by_size.max(self.measured(files)).min(BIRD_DEADLINE_MAX)
    }

    /// Returns the deadline of an answer: one that was chosen for a fast machine, or a longer one on a machine that is slow.
    /// Runs that did not end say nothing about it, because a daemon that hangs must be noticed.
    pub(crate) fn at_least(&self, deadline: Duration) -> Duration {
        let measured = (*self.ended.lock() * LATER).min(BIRD_DEADLINE_MAX);
        deadline.max(measured)
    }

    /// Records the time of a run over this many files.
    pub(crate) fn took(&self, files: usize, time: Duration) {
        *self.ended.lock() = time;
        self.set(files, time * SLOWER);
    }

    /// Records that a run over this many files did not end within its deadline.
    pub(crate) fn missed(&self, files: usize, deadline: Duration) {
        self.set(files, deadline * LATER);
    }

    fn set(&self, files: usize, may_take: Duration) {
        *self.last.lock() = Some(Last { files, may_take });
    }

    /// Returns the deadline by the last run: longer for more files than it had.
    fn measured(&self, files: usize) -> Duration {
        let last = self.last.lock();
        last.as_ref().map_or(Duration::ZERO, |last| {
            let times = files.div_ceil(last.files.max(1)).max(1);
            last.may_take * u32::try_from(times).unwrap_or(u32::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn deadline_follows_the_number_of_files() {
        let pace = Pace::new(10 * SECOND);
        assert_eq!(pace.deadline(0), 10 * SECOND);
        assert_eq!(pace.deadline(1000), 10 * SECOND + 1000 * BIRD_PER_FILE);
        assert_eq!(pace.deadline(usize::MAX), BIRD_DEADLINE_MAX);
    }

    #[test]
    fn deadline_follows_the_measured_time() {
        let pace = Pace::new(10 * SECOND);
        pace.took(100, SECOND);
        assert_eq!(pace.deadline(1), 10 * SECOND + BIRD_PER_FILE);
        pace.took(100, 20 * SECOND);
        assert_eq!(pace.deadline(100), 80 * SECOND);
        assert_eq!(pace.deadline(201), 240 * SECOND);
        assert_eq!(pace.at_least(30 * SECOND), 40 * SECOND);
        pace.missed(100, 80 * SECOND);
        assert_eq!(pace.at_least(30 * SECOND), 40 * SECOND);
        pace.took(100, SECOND);
        assert_eq!(pace.at_least(30 * SECOND), 30 * SECOND);
    }

    #[test]
    fn deadline_grows_after_each_miss_up_to_a_limit() {
        let pace = Pace::new(SECOND);
        let mut before = Duration::ZERO;
        for _ in 0..12 {
            let deadline = pace.deadline(5);
            assert!(deadline > before || deadline == BIRD_DEADLINE_MAX);
            pace.missed(5, deadline);
            before = deadline;
        }
        assert_eq!(before, BIRD_DEADLINE_MAX);
    }
}
