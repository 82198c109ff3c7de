//! One line of the log for each reconcile that changed something.

use jiff::Timestamp;

use super::{ReconciledObject, is_bird};
use crate::controller::context::Context;
use crate::controller::planning::KeyObservation;
use crate::model::ObjectKey;
use crate::plan::{Action, Drift, Plan, Step};

/// What made the steps necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The first reconcile of an applied object in this run of the agent.
    Start,
    /// The kernel or BIRD was changed from outside.
    Drift,
    /// An override began, changed or was deleted.
    Override,
    /// An override ended by its time.
    Expiry,
    /// The document changed.
    Sync,
}

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Drift => "drift",
            Self::Override => "override",
            Self::Expiry => "expiry",
            Self::Sync => "sync",
        }
    }
}

/// Facts from before the first step.
#[derive(Debug, Clone)]
pub(super) struct Beginning {
    cause: Option<Cause>,
    because: Drift,
    is_removal: bool,
    /// The kernel's steps for an object whose specification was already applied.
    repair: Plan,
}

impl Beginning {
    /// Returns the facts for the log, if there are steps.
    pub(super) fn of(
        ctx: &Context,
        meta: &ReconciledObject<'_>,
        plan: &Plan,
        observation: &KeyObservation,
    ) -> Option<Self> {
        let applied = observation.applied.as_ref().map(|applied| &applied.applied);
        let spec = applied.and_then(|applied| applied.spec.as_ref());
        let is_applied = spec.is_some() && spec == meta.spec;
        let before = applied.and_then(|applied| applied.overridden.as_ref());
        let ended = before.and_then(|before| before.expires_at);
        let recorded = observation
            .applied
            .as_ref()
            .map(|it| it.metadata.generation);
        let is_same_document = recorded == Some(meta.generation);
        // A text of an applied object also follows the policy, the node and measured classes.
        let is_own = plan.steps.iter().any(is_repair);
        let cause = match () {
            () if is_applied && !is_own => None,
            () if is_applied && ctx.statuses.get(meta.key).is_none() => Some(Cause::Start),
            () if is_applied => Some(Cause::Drift),
            () if before.is_some() && ended.is_some_and(|end| end <= Timestamp::now()) => {
                Some(Cause::Expiry)
            }
            () if before != meta.overridden.as_ref() => Some(Cause::Override),
            // The document is as it was, and the record has the fields of an override without their values.
            () if before.is_some() && is_same_document => Some(Cause::Override),
            () => Some(Cause::Sync),
        };
        let kernel = plan.steps.iter().filter(|_| is_applied).cloned();
        Some(Self {
            cause,
            because: plan.steps.first()?.because.clone(),
            is_removal: meta.claims.is_none(),
            repair: Plan {
                steps: kernel.collect(),
                waits: None,
            },
        })
    }

    /// Logs the end of a reconcile that changed something. A step counts as a repair if the last observation no longer
    /// needs it.
    pub(super) fn log(
        &self,
        ctx: &Context,
        meta: &ReconciledObject<'_>,
        steps: usize,
        rest: &Plan,
    ) {
        let (object, generation) = (meta.key.to_string(), meta.generation);
        let cause = self.cause.map(Cause::word);
        if self.cause != Some(Cause::Drift) {
            if !rest.is_done() {
                return;
            }
            let what = what(meta, self.is_removal);
            let because = self.because.to_string();
            return tracing::info!(object, generation, steps, cause, because, "{what}");
        }
        let repaired = repaired(&self.repair, rest);
        let Some(because) = repaired.first().map(|step| &step.because) else {
            return;
        };
        ctx.pulse.repaired();
        let (because, announced) = (because.to_string(), ctx.announced.take(meta.key));
        tracing::info!(
            object,
            generation,
            steps,
            cause,
            because,
            announced,
            "drift repaired"
        );
    }
}

/// Returns whether a step of an applied object repairs what was changed from outside.
fn is_repair(step: &Step) -> bool {
    !is_bird(&step.action) || matches!(step.action, Action::EnableProtocol { .. })
}

/// Returns the message, such as `session configured`.
fn what(meta: &ReconciledObject<'_>, is_removal: bool) -> String {
    let object = match meta.key {
        ObjectKey::Orphan(_) => "link without a record",
        _ => meta.kind.noun(),
    };
    let done = if is_removal { "removed" } else { "configured" };
    format!("{object} {done}")
}

/// Returns the kernel steps that took effect: the observation that was read back no longer needs them.
fn repaired<'a>(planned: &'a Plan, rest: &Plan) -> Vec<&'a Step> {
    let is_left = |step: &Step| rest.steps.iter().any(|left| left.action == step.action);
    let steps = planned.steps.iter();
    steps
        .filter(|step| is_repair(step) && !is_left(step))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::kernel::Sysctl;
    use crate::plan::action::KernelAction;

    fn plan(steps: &[(Sysctl, i64)]) -> Plan {
        let mut plan = Plan::default();
        plan.extend(steps.iter().map(|(key, value)| {
            let action = KernelAction::SetSysctl {
                interface: "wg_1".parse().ok(),
                key: *key,
                value: *value,
            };
            Step::kernel(action, Drift::new("tunnel.sysctl", value, "another"))
        }));
        plan
    }

    #[test]
    fn only_what_was_read_back_counts_as_repaired() {
        let (works, fails) = ((Sysctl::RpFilter, 0), (Sysctl::AcceptRa, 0));
        let planned = plan(&[works, fails]);
        let repaired = repaired(&planned, &plan(&[fails]));
        assert_eq!(repaired, [&plan(&[works]).steps[0]]);
    }
}
