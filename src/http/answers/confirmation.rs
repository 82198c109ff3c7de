//! Confirms that BIRD runs the state that the local API was asked for: an attempt is not a
//! confirmation (docs/contract/local-api.md#maintenance).

use tokio::time::Instant;

use super::super::api::{ApiRefusal, Confirmation};
use crate::controller::{Context, planning};
use crate::document::{Condition, ConditionStatus, ConditionType, StatusBody};
use crate::intervals::{MAINTENANCE_POLL, MAINTENANCE_WAIT};
use crate::model::ObjectKey;
use crate::telemetry::chain;

/// Reason of the condition while BIRD has not loaded the files yet, which is not an error.
const NOT_LOADED: &str = "NotLoaded";

/// Waits until BIRD runs the router drained, or undrained.
pub(super) async fn of_maintenance(
    context: &Context,
    enabled: bool,
) -> Result<Confirmation, ApiRefusal> {
    let mut missing = "the state directory is not read yet".to_owned();
    let confirmed = async {
        let mut desired = context.desired.clone();
        // The sender lives as long as the agent does.
        let _ = desired
            .wait_for(|desired| desired.maintenance.enabled == enabled)
            .await;
        loop {
            let bird = context.observer.bird(Instant::now()).await;
            match planning::not_run_yet(&context.desired(), &bird)? {
                None => return Ok::<_, planning::Unavailable>(()),
                Some(rest) => missing = rest,
            }
            tokio::time::sleep(MAINTENANCE_POLL).await;
        }
    };
    match tokio::time::timeout(MAINTENANCE_WAIT, confirmed).await {
        Ok(Ok(())) => Ok(Confirmation::Confirmed),
        Ok(Err(error)) => Err(ApiRefusal::BirdUnavailable(chain(&error))),
        Err(_) => {
            let status = context.statuses.get(&ObjectKey::Router);
            match status.as_deref().and_then(error_of_bird) {
                Some(error) => Err(ApiRefusal::BirdUnavailable(error)),
                None => Ok(Confirmation::Pending(missing)),
            }
        }
    }
}

/// BIRD's error about the files that all sessions share. Other errors of the node do not concern BIRD.
fn error_of_bird(status: &StatusBody) -> Option<String> {
    let about = |condition: &&Condition| condition.condition_type == ConditionType::BirdConfigured;
    let condition = status.conditions.iter().find(about)?;
    let failed = condition.status == ConditionStatus::False && condition.reason != NOT_LOADED;
    failed.then(|| condition.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(about: ConditionType, reason: &str) -> StatusBody {
        StatusBody {
            last_error: Some("why".into()),
            conditions: vec![Condition {
                condition_type: about,
                status: ConditionStatus::False,
                reason: reason.into(),
                message: "why".into(),
                next_action: None,
                last_transition_time: jiff::Timestamp::UNIX_EPOCH,
            }],
            ..StatusBody::default()
        }
    }

    #[test]
    fn only_errors_of_bird_are_unavailable_bird() {
        let of = |about, reason| error_of_bird(&status(about, reason)).is_some();
        assert!(of(ConditionType::BirdConfigured, "Failed"));
        assert!(of(ConditionType::BirdConfigured, "ForeignMainConfig"));
        assert!(!of(ConditionType::BirdConfigured, NOT_LOADED));
        assert!(!of(ConditionType::Accepted, "Invalid"));
        assert!(error_of_bird(&StatusBody::default()).is_none());
    }
}
