//! Our table in nftables follows the tunnels that are there. One pass at a time for all objects, however
//! many have changed their tunnels, as with BIRD; and a firewall that fails holds nobody up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::context::Context;
use super::planning::{self, Key};
use crate::firewall::{Firewall, FirewallError};
use crate::plan::firewall::{FirewallView, Ruleset, concerns_firewall};
use crate::plan::{Action, Step};
use crate::telemetry::chain;

/// How long a pass waits for further tunnels before it looks: those that come together go into one
/// transaction.
const GATHER: Duration = Duration::from_millis(100);

/// Brings our table in line with the tunnels, and remembers how that went.
pub struct FirewallKeeper {
    firewall: Arc<dyn Firewall>,
    /// When the last pass began to look; held while one runs.
    pass: tokio::sync::Mutex<Option<Instant>>,
    /// The firewall is disabled and there was nothing of ours: nobody needs to look again.
    nothing_there: AtomicBool,
    state: Mutex<FirewallState>,
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
    pub fn new(firewall: Arc<dyn Firewall>) -> Self {
        let (pass, nothing_there, state) = Default::default();
        Self { firewall, pass, nothing_there, state }
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
    /// When it cannot be read; no `nft` and no wish for it is no error.
    pub async fn look(&self, wanted: bool) -> Result<FirewallView, FirewallError> {
        match self.firewall.observe().await {
            Err(FirewallError::Missing { .. }) if !wanted => Ok(FirewallView::default()),
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
    let mut begun = keeper.pass.lock().await;
    let wanted = ctx.world().firewall;
    let settled = !wanted && keeper.nothing_there.load(Ordering::Relaxed);
    if settled || begun.is_some_and(|begun| begun >= not_before) {
        return keeper.state().error;
    }
    if wanted {
        tokio::time::sleep(GATHER).await;
    }
    let now = Instant::now();
    *begun = Some(now);
    let before = keeper.state();
    let state = match pass(ctx, wanted, now).await {
        Ok(state) => state,
        Err(error) => FirewallState { error: Some(error), ..before.clone() },
    };
    keeper.nothing_there.store(!wanted && state.error.is_none(), Ordering::Relaxed);
    if let Some(error) = state.error.as_ref().filter(|error| before.error.as_ref() != Some(error)) {
        warn!(object = %Key::Firewall, %error, "failed; routing goes on without it");
    }
    let error = state.error.clone();
    *keeper.lock() = state.clone();
    if state != before {
        ctx.hint(Key::Router);
    }
    error
}

/// Observe, plan, apply. The apply reads back by itself.
async fn pass(ctx: &Context, wanted: bool, now: Instant) -> Result<FirewallState, String> {
    let kernel = ctx.observer.kernel(now).await.map_err(|error| chain(&*error))?;
    let view = ctx.firewall.look(wanted).await.map_err(|error| chain(&error))?;
    let ruleset = wanted.then(|| Ruleset::in_use(&kernel));
    let step = planning::firewall(ruleset.as_ref(), &view).map_err(|refusal| refusal.to_string())?;
    if let Some(step) = step {
        take(ctx, &step).await?;
    }
    let dropping = if wanted { view.dropping } else { Vec::new() };
    Ok(FirewallState { in_force: ruleset, dropping, error: None })
}

async fn take(ctx: &Context, step: &Step) -> Result<(), String> {
    let Action::Firewall(action) = &step.action else { return Ok(()) };
    ctx.firewall.firewall.apply(action).await.map_err(|error| chain(&error))?;
    info!(object = %Key::Firewall, step = %step.action, because = %step.because, "applied");
    ctx.taken.note(&Key::Firewall, step);
    Ok(())
}
