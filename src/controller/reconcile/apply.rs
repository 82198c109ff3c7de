use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::{ReconciledObject, is_bird};
use crate::controller::context::Context;
use crate::controller::error::Trouble;
use crate::controller::{LoggedStep, firewall};
use crate::model::ObjectKey;
use crate::plan::{Plan, Step};
use crate::ports::KernelError;
use crate::telemetry::{chain, step_failed};

/// Runs the kernel's steps of a plan up to the first failure, and then the firewall. Returns the steps that
/// ran.
pub(super) async fn kernel(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    plan: &Plan,
) -> (Vec<String>, Option<Trouble>) {
    let steps = plan.steps.iter().filter(|step| !is_bird(&step.action));
    let steps: Vec<&Step> = steps.collect();
    let mut taken = Vec::new();
    let outcome = run_kernel(ctx, meta, &steps, &mut taken).await;
    let done = match outcome {
        Ok(()) => steps.len(),
        Err(_) => taken.len().min(steps.len()),
    };
    firewall::after_links(ctx, &steps[..done]).await;
    (taken, outcome.err())
}

/// Returns a plan without the steps for a sysctl that recently could not be set.
pub(super) fn without_unsettable(ctx: &Context, mut plan: Plan) -> Plan {
    let now = Instant::now();
    plan.steps
        .retain(|step| !ctx.sysctls.leaves_alone(step, now));
    plan
}

async fn run_kernel(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    steps: &[&Step],
    taken: &mut Vec<String>,
) -> Result<(), Trouble> {
    let actions: Vec<_> = steps
        .iter()
        .filter_map(|step| step.action.kernel())
        .collect();
    let results = match actions.is_empty() {
        true => Vec::new(),
        false => {
            let _turn = ctx.permits.kernel().await;
            ctx.kernel.apply(&actions).await
        }
    };
    let mut results = results.into_iter();
    for step in steps {
        if step.action.kernel().is_none() {
            taken.push(step.to_string());
            continue;
        }
        match results.next() {
            Some(Ok(())) => {
                ctx.sysctls.done(step);
                taken.push(note(ctx, meta.key, meta.generation, step));
            }
            Some(Err(error)) => failed(ctx, meta, step, error)?,
            None => {
                let trouble = Trouble::NoResult(Box::new((*step).clone()));
                step_failed(trouble.class(), meta.key, &step.action, &trouble);
                return Err(trouble);
            }
        }
    }
    Ok(())
}

/// Records that a step failed. A sysctl is a convenience: the later steps are configured without it.
fn failed(
    ctx: &Context,
    meta: &ReconciledObject<'_>,
    step: &Step,
    error: KernelError,
) -> Result<(), Trouble> {
    let text = chain(&error);
    if let Some(news) = ctx.sysctls.failed(step, &text, Instant::now()) {
        if news {
            debug!(object = %meta.key, step = %step.action, error = %text, "sysctl not set");
            ctx.hint(ObjectKey::Router);
        }
        return Ok(());
    }
    let trouble = Trouble::Kernel(Arc::new(error));
    step_failed(trouble.class(), meta.key, &step.action, &trouble);
    Err(trouble)
}

/// Records that a step ran: in the log, and for the history. Records it once, also when several objects run it
/// together. Returns its text.
pub(super) fn note(ctx: &Context, key: &ObjectKey, generation: u64, step: &Step) -> String {
    let logged = LoggedStep::from(step);
    let text = logged.to_string();
    if ctx.step_log.note(key, logged) {
        debug!(object = %key, generation, step = %step.action, because = %step.because, "applied");
    }
    text
}
