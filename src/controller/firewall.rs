//! Keeps the agent's table in nftables in line with the existing tunnels. As with BIRD, one pass at a time serves
//! all objects, however many have changed their tunnels. A failing firewall delays no object.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

use super::context::Context;
use super::planning;
use crate::firewall::{Firewall, FirewallError};
use crate::intervals::FIREWALL_GATHER;
use crate::model::ObjectKey;
use crate::observed::{Ownership, SharedOwnership};
use crate::plan::firewall::{FirewallView, Ruleset, concerns_firewall};
use crate::plan::{Action, Refusal, Step};
use crate::ports::KernelError;
use crate::telemetry::chain;

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
    /// Time at which the pass failed.
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
    pub in_force: Option<Ruleset>,
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

/// Runs a pass after an object has changed its links and before BIRD learns of it, so that the ports are open when
/// BGP connects. A firewall that failed last time is not waited for.
pub(super) async fn after_links(ctx: &Context, steps: &[&Step]) {
    if !ctx.world().firewall || !steps.iter().any(|step| concerns_firewall(step)) {
        return;
    }
    if ctx.firewall.state().error.is_none() {
        follow(ctx, Instant::now()).await;
    } else {
        ctx.hint(ObjectKey::Firewall);
    }
}

/// Runs one pass, unless a pass has begun to observe since `not_before`. Returns the error.
pub(super) async fn follow(ctx: &Context, not_before: Instant) -> Option<String> {
    let keeper = &ctx.firewall;
    let mut last = keeper.pass.lock().await;
    let wanted = ctx.world().firewall;
    let settled = !wanted && keeper.nothing_there.load(Ordering::Relaxed);
    if settled || last.as_ref().is_some_and(|pass| pass.answers(not_before)) {
        return keeper.state().error;
    }
    if wanted {
        tokio::time::sleep(FIREWALL_GATHER).await;
    }
    let now = Instant::now();
    let before = keeper.state();
    let state = match pass(ctx, wanted, now).await {
        Ok(state) => state,
        Err(error) => FirewallState {
            error: Some(chain(&error)),
            ..before.clone()
        },
    };
    *last = Some(Pass {
        begun: now,
        failed: state.error.as_ref().map(|_| Instant::now()),
    });
    keeper
        .nothing_there
        .store(!wanted && state.error.is_none(), Ordering::Relaxed);
    let error = state.error.clone();
    *keeper.state.lock() = state.clone();
    if state != before {
        ctx.hint(ObjectKey::Router);
    }
    error
}

/// The reason why the table is not as wanted.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Kernel(#[from] Arc<KernelError>),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error("{0}")]
    Refused(Refusal),
}

/// Observes, plans and applies. The apply reads back by itself.
async fn pass(ctx: &Context, wanted: bool, now: Instant) -> Result<FirewallState, PassError> {
    let kernel = ctx.observer.kernel(now).await?;
    let view = ctx.firewall.look(wanted).await?;
    let ownership = ctx.firewall.ownership();
    let ruleset = wanted.then(|| planning::ruleset(&ctx.world(), &kernel).marked(&ownership));
    let step = planning::firewall(ruleset.as_ref(), &view, &ownership);
    let step = step.map_err(PassError::Refused)?;
    if let Some(step) = step {
        take(ctx, &step).await?;
    }
    // The record follows when the node has settled; a table that is flushed before that is the agent's, too.
    ctx.firewall.ownership.set_firewall(ruleset.is_some());
    let dropping = if wanted { view.dropping } else { Vec::new() };
    Ok(FirewallState {
        in_force: ruleset,
        dropping,
        error: None,
    })
}

async fn take(ctx: &Context, step: &Step) -> Result<(), FirewallError> {
    let Action::Firewall(action) = &step.action else {
        return Ok(());
    };
    ctx.firewall.firewall.apply(action).await?;
    info!(object = %ObjectKey::Firewall, step = %step.action, because = %step.because, "applied");
    ctx.taken.note(&ObjectKey::Firewall, step);
    Ok(())
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
