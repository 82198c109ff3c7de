//! Protocols that a command had disabled and that the controller has enabled again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often one protocol is enabled at most: an operator who disables it again and again must notice.
const EVERY: Duration = Duration::from_secs(60);

/// When each protocol was enabled last.
#[derive(Debug, Default)]
pub struct Enabled(Mutex<BTreeMap<String, Instant>>);

impl Enabled {
    /// Whether the protocol may be enabled now; then this is the last time.
    pub(super) fn may(&self, protocol: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.duration_since(*at) < EVERY);
        let may = !last.contains_key(protocol);
        if may {
            last.insert(protocol.to_owned(), now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn protocol_is_enabled_once_a_minute() {
        let (enabled, now) = (Enabled::default(), Instant::now());
        assert!(enabled.may("a", now) && !enabled.may("a", now + Duration::from_secs(59)));
        assert!(enabled.may("b", now), "each protocol has its own minute");
        assert!(enabled.may("a", now + EVERY));
    }
}
