//! The pass that takes the links over, and the check of its result.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{AdoptionError, Takeover, files, record, specifications, write_documents};
use crate::adopt::Record;
use crate::agent::{Parts, fetch_once, run_pass};
use crate::controller::{Context, KeyObservation, KeyPlan, planning};
use crate::document::{ConditionStatus, ConditionType, Kind, StatusBody};
use crate::model::ObjectKey;
use crate::observed::kernel::KernelView;
use crate::plan::Step;
use crate::plan::action::KernelAction;
use crate::store::Store;
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// Why a link is not taken over that no step failed for.
const NOT_MARKED: &str = "the pass did not mark it";

/// Writes the documents, runs one pass, and checks that it took every link over.
pub(super) async fn run(
    parts: &Arc<Parts>,
    record: &mut Record,
    takeover: &Takeover,
) -> Result<(), AdoptionError> {
    fetch_once(parts).await.map_err(AdoptionError::Fetch)?;
    let store = Arc::clone(&parts.shared.context.store);
    let (writes, documents) = (Arc::clone(&store), takeover.documents.clone());
    let written = blocking(move || {
        write_documents(&writes, &documents)?;
        specifications(&writes)
    })
    .await?;
    // Before the pass: from now on an undo knows the adoption's files from an operator's.
    note_made(&store, record).await?;
    if written != takeover.planned {
        return Err(AdoptionError::Changed);
    }
    run_pass(parts).await.map_err(Box::new)?;
    verify(&parts.shared.context, takeover).await
}

/// Records the files that the adoption has added to the state directory until now.
pub(super) async fn note_made(
    store: &Arc<Store>,
    record: &mut Record,
) -> Result<(), AdoptionError> {
    let (directory, noted) = (store.dir().to_owned(), record.clone());
    record.made = blocking(move || files::made(&directory, &noted)).await?;
    record::save(store, record).await
}

/// Checks by reading back that the pass took every link over, and that none of its steps failed: a later start of the agent
/// would try the step again, outside the watch.
async fn verify(context: &Context, takeover: &Takeover) -> Result<(), AdoptionError> {
    let view = context.kernel.observe().await?;
    let statuses: BTreeMap<_, _> = context.statuses.all().into_iter().sorted_map();
    for document in &takeover.documents {
        let (Some(interface), name) = (document.interface(), document.name()) else {
            continue;
        };
        let status = statuses.get(&ObjectKey::Named(Kind::BgpSession, name));
        let link = view.links.get(interface);
        let is_marked = link.is_some_and(|link| link.mark.is_ours());
        let why = status.and_then(|status| status.last_error.clone());
        if let Some(why) = why.or_else(|| (!is_marked).then(|| NOT_MARKED.to_owned())) {
            return Err(AdoptionError::NotTaken {
                interface: interface.clone(),
                why,
            });
        }
    }
    let node = node_plan(context, view).await;
    let mut statuses = statuses.into_iter();
    let failed = statuses.find_map(|(object, status)| {
        let why = failed_step(&object, &status, node.as_ref())?;
        Some((object, why))
    });
    match failed {
        Some((object, why)) => Err(AdoptionError::Step {
            object: object.to_string(),
            why,
        }),
        None => Ok(()),
    }
}

/// Returns why a step of the pass failed. `node` is the rest of the node's plan, if nothing but the operator's main file keeps
/// BIRD from loading the agent's files: an adoption begins so.
fn failed_step(object: &ObjectKey, status: &StatusBody, node: Option<&KeyPlan>) -> Option<String> {
    let why = status.last_error.as_ref()?;
    let is_refused = status.conditions.iter().any(|condition| {
        condition.condition_type == ConditionType::Accepted
            && condition.status == ConditionStatus::False
    });
    match (object, node) {
        (ObjectKey::Router, Some(Ok(plan))) => {
            let mut steps = plan.steps.iter();
            let undone = steps.find(|step| is_due(step))?;
            Some(format!("not done: {}", undone.action))
        }
        (ObjectKey::Router, Some(Err(refusal))) => Some(refusal.to_string()),
        // A document that cannot be used has no step.
        _ if is_refused => None,
        _ => Some(why.clone()),
    }
}

/// Returns whether a step should have been done: one for BIRD waits for the operator's main file, and the controller leaves a
/// sysctl that cannot be set.
fn is_due(step: &Step) -> bool {
    let action = step.action.kernel();
    action.is_some_and(|action| !matches!(action, KernelAction::SetSysctl { .. }))
}

/// Returns the rest of the node's plan, if nothing but the operator's main file keeps BIRD from loading the agent's files.
async fn node_plan(context: &Context, view: KernelView) -> Option<KeyPlan> {
    let bird = context.observer.bird(Instant::now()).await;
    let look = KeyObservation {
        kernel: Arc::new(view),
        bird,
        applied: None,
        resolved: None,
        name_error: None,
        source: None,
        now: Timestamp::now(),
    };
    let waits = look.bird.waits_for_include();
    waits.then(|| planning::router(&context.desired(), &look))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Condition;
    use crate::model::InterfaceName;
    use crate::plan::{Drift, Plan};

    fn status(reason: Option<(ConditionType, ConditionStatus)>) -> StatusBody {
        let condition = reason.map(|(condition_type, status)| Condition {
            condition_type,
            status,
            reason: "Any".into(),
            message: String::new(),
            next_action: None,
            last_transition_time: Timestamp::UNIX_EPOCH,
        });
        StatusBody {
            last_error: Some("why".into()),
            conditions: condition.into_iter().collect(),
            ..StatusBody::default()
        }
    }

    fn plan(action: KernelAction) -> KeyPlan {
        Ok(Plan {
            steps: vec![Step::kernel(action, Drift::missing("f", "v"))],
            waits: None,
        })
    }

    #[test]
    fn missing_include_alone_fails_no_pass() {
        let failed = |node: Option<&KeyPlan>| failed_step(&ObjectKey::Router, &status(None), node);
        assert_eq!(failed(None).as_deref(), Some("why"), "another obstacle");
        assert_eq!(failed(Some(&Ok(Plan::default()))), None);
        let interface: InterfaceName = "dummy0".parse().unwrap();
        let due = plan(KernelAction::SetUp { interface });
        assert_eq!(
            failed(Some(&due)).as_deref(),
            Some("not done: bring dummy0 up")
        );
        let left = plan(KernelAction::SetSysctl {
            interface: None,
            key: crate::observed::kernel::Sysctl::RpFilter,
            value: 0,
        });
        assert_eq!(failed(Some(&left)), None);
    }

    #[test]
    fn refused_document_fails_no_pass() {
        let session = ObjectKey::Named(Kind::BgpSession, "wg1".parse().unwrap());
        let refused = status(Some((ConditionType::Accepted, ConditionStatus::False)));
        assert_eq!(failed_step(&session, &refused, None), None);
        let failed = status(Some((
            ConditionType::TunnelConfigured,
            ConditionStatus::False,
        )));
        assert!(failed_step(&session, &failed, None).is_some());
    }
}
