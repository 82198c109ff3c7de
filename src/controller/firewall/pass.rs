use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{FirewallState, Pass};
use crate::controller::context::Context;
use crate::controller::pass::Observation;
use crate::controller::planning;
use crate::firewall::FirewallError;
use crate::intervals::FIREWALL_GATHER;
use crate::model::ObjectKey;
use crate::observed::kernel::KernelView;
use crate::plan::firewall::concerns_firewall;
use crate::plan::{Action, Refusal, Step};
use crate::ports::KernelError;
use crate::telemetry::chain;

/// Runs a pass after an object has changed its links and before BIRD learns of it, so that the ports are open when
/// BGP connects. A firewall that failed last time is not waited for.
pub(in crate::controller) async fn after_links(ctx: &Context, steps: &[&Step]) {
    if !ctx.desired().firewall || !steps.iter().any(|step| concerns_firewall(step)) {
        return;
    }
    if ctx.firewall.state().error.is_none() {
        follow(ctx, None).await;
    } else {
        ctx.hint(ObjectKey::Firewall);
    }
}

/// Runs one pass from this observation, or from one that it makes itself, unless a pass has begun to observe since.
/// Returns the error.
pub(in crate::controller) async fn follow(
    ctx: &Context,
    seen: Option<&Observation>,
) -> Option<String> {
    let not_before = seen.map_or_else(Instant::now, |seen| seen.begun);
    let keeper = &ctx.firewall;
    let mut last = keeper.pass.lock().await;
    let wanted = ctx.desired().firewall;
    let settled = !wanted && keeper.nothing_there.load(Ordering::Relaxed);
    if settled || last.as_ref().is_some_and(|pass| pass.answers(not_before)) {
        return keeper.state().error;
    }
    if wanted && seen.is_none() {
        tokio::time::sleep(FIREWALL_GATHER).await;
    }
    let begun = seen.map_or_else(Instant::now, |seen| seen.begun);
    let before = keeper.state();
    let kernel = async {
        match (wanted, seen) {
            (false, _) => Ok(None),
            (true, Some(seen)) => seen.kernel.clone().map(Some),
            (true, None) => ctx.observer.kernel(begun).await.map(Some),
        }
    };
    let state = match pass(ctx, kernel.await).await {
        Ok(state) => state,
        Err(error) => FirewallState {
            error: Some(chain(&error)),
            ..before.clone()
        },
    };
    *last = Some(Pass {
        begun,
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

/// Plans for the links of the kernel, if the table is wanted, and applies. The apply reads back by itself.
async fn pass(
    ctx: &Context,
    kernel: Result<Option<Arc<KernelView>>, Arc<KernelError>>,
) -> Result<FirewallState, PassError> {
    let kernel = kernel?;
    let wanted = kernel.is_some();
    let view = ctx.firewall.look(wanted).await?;
    let ownership = ctx.firewall.ownership();
    let ruleset =
        kernel.map(|kernel| planning::ruleset(&ctx.desired(), &kernel).marked(&ownership));
    let step = planning::firewall(ruleset.as_ref(), &view, &ownership);
    let step = step.map_err(PassError::Refused)?;
    if let Some(step) = step {
        take(ctx, &step).await?;
    }
    // The record follows when the node has settled; a table that is flushed before that is the agent's, too.
    ctx.firewall.ownership.set_firewall(ruleset.is_some());
    let dropping = if wanted { view.dropping } else { Vec::new() };
    Ok(FirewallState {
        in_effect: ruleset,
        dropping,
        error: None,
    })
}

async fn take(ctx: &Context, step: &Step) -> Result<(), FirewallError> {
    let Action::Firewall(action) = &step.action else {
        return Ok(());
    };
    ctx.firewall.firewall.apply(action).await?;
    let (object, because) = (ObjectKey::Firewall.to_string(), step.because.to_string());
    debug!(object, step = %step.action, because, "applied");
    info!(object, steps = 1, because, "firewall configured");
    ctx.step_log.note(&ObjectKey::Firewall, step);
    Ok(())
}
