//! Protocols that a command had disabled and that the controller has enabled again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::intervals::ENABLE_PAUSE;

/// Time at which each protocol was last enabled.
#[derive(Debug, Default)]
pub struct Enabled(Mutex<BTreeMap<String, Instant>>);

impl Enabled {
    /// Records that the protocol is enabled now.
    ///
    /// # Errors
    /// The remaining wait, if the last enable was less than a minute ago.
    pub(super) fn may(&self, protocol: &str, now: Instant) -> Result<(), Duration> {
        let mut last = self.0.lock();
        last.retain(|_, at| now.duration_since(*at) < ENABLE_PAUSE);
        if let Some(at) = last.get(protocol) {
            return Err(ENABLE_PAUSE.saturating_sub(now.duration_since(*at)));
        }
        last.insert(protocol.to_owned(), now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn protocol_is_enabled_once_a_minute() {
        let (enabled, now) = (Enabled::default(), Instant::now());
        assert_eq!(enabled.may("a", now), Ok(()));
        let left = Duration::from_secs(1);
        assert_eq!(enabled.may("a", now + ENABLE_PAUSE - left), Err(left));
        assert_eq!(
            enabled.may("b", now),
            Ok(()),
            "each protocol has its own minute"
        );
        assert_eq!(enabled.may("a", now + ENABLE_PAUSE), Ok(()));
    }
}
