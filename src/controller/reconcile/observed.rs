//! The status of an object from one observation, without a reconcile, for `describe` while the agent does not run.

use std::collections::BTreeMap;

use super::{ReconcileResult, node_status, object, router};
use crate::controller::FirewallState;
use crate::controller::error::{FailedPart, Trouble};
use crate::controller::planning::{self, KeyObservation, KeyPlan};
use crate::desired::Desired;
use crate::document::{ConditionStatus, ConditionType, StatusBody};
use crate::model::ObjectKey;
use crate::plan::Plan;

/// Returns the status of an object: `before` is the last one that the agent wrote, `plan` the current plan.
pub fn observed(
    desired: &Desired,
    key: &ObjectKey,
    observation: KeyObservation,
    plan: KeyPlan,
    before: &StatusBody,
) -> StatusBody {
    let (remaining, refusal) = match plan {
        Ok(remaining) => (remaining, None),
        Err(refusal) => (Plan::default(), Some(refusal)),
    };
    let result = ReconcileResult {
        steps: Vec::new(),
        trouble: None,
        refusal,
        remaining,
        observation,
    };
    match desired.objects.get(key) {
        Some(object) => {
            let trouble = last_trouble(&result, before);
            let result = ReconcileResult { trouble, ..result };
            object::status(
                desired,
                object,
                before,
                &result,
                (before.rtt_ms, before.loss),
            )
        }
        None if *key == ObjectKey::Policy => {
            router::policy_status(desired, before, result.observation.now)
        }
        None => node(desired, before, &result),
    }
}

fn node(desired: &Desired, before: &StatusBody, result: &ReconcileResult) -> StatusBody {
    let blocked = planning::router_error(desired, &result.observation.bird);
    let blocked = blocked.map(|problem| problem.to_string());
    let of_bird = blocked.or_else(|| result.observation.bird.files_error.clone());
    let error = of_bird.clone().or_else(|| result.error());
    let errors = (error.as_deref(), of_bird.as_deref());
    let (filter, none) = (FirewallState::default(), BTreeMap::new());
    node_status::status(desired, before, result, &filter, errors, &none)
}

/// Returns the failure that the agent recorded. It is over when nothing is left to do.
fn last_trouble(result: &ReconcileResult, before: &StatusBody) -> Option<Trouble> {
    if result.is_settled() {
        return None;
    }
    let recorded = |about: ConditionType, reason: &str| {
        let mut conditions = before.conditions.iter();
        let found = conditions.find(|condition| {
            condition.condition_type == about
                && condition.status == ConditionStatus::False
                && condition.reason == reason
        });
        found.map(|condition| condition.message.clone())
    };
    [
        (
            ConditionType::TunnelConfigured,
            "Failed",
            FailedPart::Kernel,
        ),
        (ConditionType::BirdConfigured, "Refused", FailedPart::Text),
        (ConditionType::BirdConfigured, "Failed", FailedPart::Bird),
    ]
    .into_iter()
    .find_map(|(about, reason, of)| {
        let message = recorded(about, reason)?;
        Some(Trouble::Recorded { of, message })
    })
}
