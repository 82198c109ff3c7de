//! Removes links that carry the agent's mark and have neither a document nor a record.

use std::sync::Arc;

use super::{Advance, Next, Progress, ReconciledObject, advance};
use crate::controller::context::Context;
use crate::controller::pass::Observation;
use crate::controller::planning::{self, KeyObservation};
use crate::controller::queue::Outcome;
use crate::desired::Desired;
use crate::document::Kind;
use crate::model::{ErrorClass, ObjectKey, ObjectName, Uid};
use crate::telemetry::failed;

pub(super) async fn reconcile(
    ctx: &Arc<Context>,
    desired: &Arc<Desired>,
    uid: &Uid,
    seen: &Observation,
    progress: Progress,
) -> Next {
    let key = ObjectKey::Orphan(uid.clone());
    if desired.uids().contains(uid) {
        return Next::Done(Outcome::Gone);
    }
    let name = ObjectName::sanitised(uid.as_str());
    let meta = ReconciledObject::bare(&key, Kind::BgpSession, &name, uid);
    let plan = |observation: &KeyObservation| planning::orphan(uid, observation);
    let advanced = advance(ctx, &meta, desired, seen, plan, progress).await;
    if let Ok(Advance::Next(next)) = advanced {
        return *next;
    }
    // It was never applied, so the history has no entry for it; the log has one.
    drop(ctx.step_log.take(&key));
    Next::Done(match advanced {
        Ok(Advance::Ended(result)) if result.is_settled() => Outcome::Gone,
        Ok(Advance::Ended(result)) => result.failure(),
        Ok(Advance::Next(_)) => Outcome::Failed(ErrorClass::Transient),
        Err(error) => {
            failed(error.class(), &key, &error, "reconcile not begun");
            Outcome::Failed(error.class())
        }
    })
}
