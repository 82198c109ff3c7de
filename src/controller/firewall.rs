//! Our table in nftables follows the tunnels that are there. One pass at a time for all objects, however
//! many have changed their tunnels, as with BIRD; and a firewall that fails holds nobody up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::context::Context;
use super::planning::{self, Key};
use crate::firewall::{Firewall, FirewallError};
use crate::plan::SharedOwnership;
use crate::plan::firewall::{FirewallView, Ruleset, concerns_firewall};
use crate::plan::mark::Ownership;
use crate::plan::{Action, Step};
use crate::telemetry::chain;

/// How long a pass waits for further tunnels before it looks: those that come together go into one
/// transaction.
const GATHER: Duration = Duration::from_millis(100);

/// Brings our table in line with the tunnels, and remembers how that went.
pub struct FirewallKeeper {
    firewall: Arc<dyn Firewall>,
    ownership: SharedOwnership,
    /// The last pass; held while one runs.
    pass: tokio::sync::Mutex<Option<Pass>>,
    /// The firewall is disabled and there was nothing of ours: nobody needs to look again.
    nothing_there: AtomicBool,
    state: Mutex<FirewallState>,
}

/// When a pass was, and whether it failed.
struct Pass {
    /// When it began to look.
    begun: Instant,
    /// When it failed.
    failed: Option<Instant>,
}

impl Pass {
    /// Whether it is answer enough for somebody who asked at this time: it began to look since, or it failed
    /// while they waited. A program that hangs would hang for each of them.
    fn answers(&self, asked: Instant) -> bool {
        self.begun >= asked || self.failed.is_some_and(|failed| failed >= asked)
    }
}

/// What the last pass found and did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FirewallState {
    /// What is in force, read back.
    pub in_force: Option<Ruleset>,
    /// Chains of others that drop what they do not accept themselves.
    pub dropping: Vec<String>,
    /// Why it is not as wanted.
    pub error: Option<String>,
}

impl FirewallKeeper {
    /// A keeper of this firewall that has not looked yet.
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

    /// Which tables are ours.
    pub fn ownership(&self) -> Arc<Ownership> {
        self.ownership.get()
    }

    /// How often the firewall was written to.
    pub fn writes(&self) -> u64 {
        self.firewall.writes()
    }

    /// What the last pass found and did.
    pub fn state(&self) -> FirewallState {
        self.lock().clone()
    }

    /// Reads the firewall. Nothing is written.
    ///
    /// # Errors
    /// When it cannot be read. Where it is not wanted, a machine without `nft`, or where it is refused us, is
    /// no error: then there is nothing of ours either.
    pub async fn look(&self, wanted: bool) -> Result<FirewallView, FirewallError> {
        match self.firewall.observe().await {
            Err(FirewallError::Missing { .. } | FirewallError::Refused { .. }) if !wanted => {
                Ok(FirewallView::default())
            }
            view => view,
        }
    }

    fn lock(&self) -> MutexGuard<'_, FirewallState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To be called when an object has changed its links and before BIRD hears of it: the ports are open by
/// the time that BGP calls. A firewall that failed last time is not waited for.
pub(super) async fn after_links(ctx: &Context, steps: &[&Step]) {
    if !ctx.world().firewall || !steps.iter().any(|step| concerns_firewall(step)) {
        return;
    }
    if ctx.firewall.state().error.is_none() {
        follow(ctx, Instant::now()).await;
    } else {
        ctx.hint(Key::Firewall);
    }
}

/// Makes one pass, unless one has begun to look since `not_before`. Returns what went wrong.
pub(super) async fn follow(ctx: &Context, not_before: Instant) -> Option<String> {
    let keeper = &ctx.firewall;
    let mut last = keeper.pass.lock().await;
    let wanted = ctx.world().firewall;
    let settled = !wanted && keeper.nothing_there.load(Ordering::Relaxed);
    if settled || last.as_ref().is_some_and(|pass| pass.answers(not_before)) {
        return keeper.state().error;
    }
    if wanted {
        tokio::time::sleep(GATHER).await;
    }
    let now = Instant::now();
    let before = keeper.state();
    let state = match pass(ctx, wanted, now).await {
        Ok(state) => state,
        Err(error) => FirewallState {
            error: Some(error),
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
    *keeper.lock() = state.clone();
    if state != before {
        ctx.hint(Key::Router);
    }
    error
}

/// Observe, plan, apply. The apply reads back by itself.
async fn pass(ctx: &Context, wanted: bool, now: Instant) -> Result<FirewallState, String> {
    let kernel = ctx
        .observer
        .kernel(now)
        .await
        .map_err(|error| chain(&*error))?;
    let view = ctx
        .firewall
        .look(wanted)
        .await
        .map_err(|error| chain(&error))?;
    let ownership = ctx.firewall.ownership();
    let ruleset = wanted.then(|| planning::ruleset(&ctx.world(), &kernel).marked(&ownership));
    let step = planning::firewall(ruleset.as_ref(), &view, &ownership)
        .map_err(|refusal| refusal.to_string())?;
    if let Some(step) = step {
        take(ctx, &step).await?;
    }
    let dropping = if wanted { view.dropping } else { Vec::new() };
    Ok(FirewallState {
        in_force: ruleset,
        dropping,
        error: None,
    })
}

async fn take(ctx: &Context, step: &Step) -> Result<(), String> {
    let Action::Firewall(action) = &step.action else {
        return Ok(());
    };
    ctx.firewall
        .firewall
        .apply(action)
        .await
        .map_err(|error| chain(&error))?;
    info!(object = %Key::Firewall, step = %step.action, because = %step.because, "applied");
    ctx.taken.note(&Key::Firewall, step);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_answers_all_who_waited_through_it_and_a_success_only_those_who_came_before() {
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
