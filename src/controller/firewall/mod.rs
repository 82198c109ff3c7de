//! Keeps the agent's table in nftables in line with the existing tunnels. As with BIRD, one pass at a time serves
//! all objects, however many have changed their tunnels. A failing firewall delays no object.

mod pass;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::time::Instant;

pub(super) use pass::{after_links, follow};

use crate::firewall::{Firewall, FirewallError};
use crate::observed::{Ownership, SharedOwnership};
use crate::plan::firewall::{FirewallView, Ruleset};

/// Brings the agent's table in line with the tunnels, and stores the result.
pub struct FirewallKeeper {
    firewall: Arc<dyn Firewall>,
    ownership: SharedOwnership,
    /// The last pass; locked while a pass runs.
    pass: tokio::sync::Mutex<Option<Pass>>,
    /// Whether the firewall is disabled and no table of the agent exists, so that no further observation is needed.
    nothing_there: AtomicBool,
    state: Mutex<FirewallState>,
}

/// Time of a pass, and whether it failed.
struct Pass {
    /// Time at which the pass began to observe.
    begun: Instant,
    failed: Option<Instant>,
}

impl Pass {
    /// Returns whether the pass answers a request of this time: it began to observe after the request, or it failed
    /// while the request waited. Otherwise a hanging program would delay each request in turn.
    fn answers(&self, asked: Instant) -> bool {
        self.begun >= asked || self.failed.is_some_and(|failed| failed >= asked)
    }
}

/// Findings and result of the last pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirewallState {
    /// The ruleset in effect, as read back.
    pub in_effect: Option<Ruleset>,
    /// Foreign chains that drop packets they do not accept themselves.
    pub dropping: Vec<String>,
    /// The reason why the ruleset is not as wanted.
    pub error: Option<String>,
}

impl FirewallKeeper {
    /// Returns a keeper of this firewall that has not observed yet.
    pub fn new(firewall: Arc<dyn Firewall>, ownership: SharedOwnership) -> Self {
        let (pass, nothing_there, state) = Default::default();
        Self {
            firewall,
            ownership,
            pass,
            nothing_there,
            state,
        }
    }

    /// Returns which tables belong to the agent.
    pub fn ownership(&self) -> Arc<Ownership> {
        self.ownership.get()
    }

    /// Returns the number of writes to the firewall.
    pub fn writes(&self) -> u64 {
        self.firewall.writes()
    }

    /// Returns the findings and result of the last pass.
    pub fn state(&self) -> FirewallState {
        self.state.lock().clone()
    }

    /// Reads the firewall and writes nothing.
    ///
    /// # Errors
    /// When the firewall cannot be read. If the firewall is not wanted, a missing `nft` or a refused access is no
    /// error: then no table of the agent exists either.
    pub async fn look(&self, wanted: bool) -> Result<FirewallView, FirewallError> {
        match self.firewall.observe().await {
            Err(FirewallError::Missing { .. } | FirewallError::Refused { .. }) if !wanted => {
                Ok(FirewallView::default())
            }
            view => view,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn failure_answers_all_waiters_and_success_only_earlier_ones() {
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        let times: Vec<_> = (0..4).map(at).collect();
        let done = Pass {
            begun: times[1],
            failed: None,
        };
        assert!(done.answers(times[0]) && done.answers(times[1]) && !done.answers(times[2]));
        let failed = Pass {
            begun: times[1],
            failed: Some(times[2]),
        };
        assert!(failed.answers(times[0]) && failed.answers(times[2]) && !failed.answers(times[3]));
    }
}
