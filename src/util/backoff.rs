//! Waits that grow after failures.

use std::time::Duration;

use backoff::{BackoffBuilder as _, ExponentialBuilder};

/// Exponential backoff: waits from the first to the longest, each a multiple of the one before. Callers add the jitter
/// that fits their need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff(ExponentialBuilder);

impl Backoff {
    /// Doubles each wait.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        let first = if first.as_nanos() > longest.as_nanos() {
            longest
        } else {
            first
        };
        Self(
            ExponentialBuilder::new()
                .with_factor(2.0)
                .with_min_delay(first)
                .with_max_delay(longest)
                .without_max_times(),
        )
    }

    /// Multiplies each wait by this factor.
    pub(crate) const fn factor(self, factor: f32) -> Self {
        Self(self.0.with_factor(factor))
    }

    /// Returns the wait after this number of earlier failures in a row.
    pub(crate) fn wait(self, failures: u32) -> Duration {
        // No wait grows longer after so many.
        let steps = failures.min(64) as usize;
        self.waits().nth(steps).unwrap_or(Duration::MAX)
    }

    /// Returns the waits, without an end.
    pub(crate) fn waits(self) -> impl Iterator<Item = Duration> {
        self.0.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let waits: Vec<u64> = backoff.waits().take(7).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.wait(2), Duration::from_secs(4));
        assert_eq!(backoff.wait(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn first_wait_is_never_longer_than_the_longest() {
        let second = Duration::from_secs(1);
        let backoff = Backoff::new(Duration::from_secs(5), second);
        assert_eq!(backoff.wait(0), second);
    }
}
