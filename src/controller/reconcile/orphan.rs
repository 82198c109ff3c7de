//! Removes links that carry the agent's mark and have neither a document nor a record.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::{Subject, round};
use crate::controller::context::Context;
use crate::controller::planning;
use crate::controller::queue::Outcome;
use crate::document::Kind;
use crate::model::{ObjectKey, ObjectName, Uid};

pub(super) async fn reconcile(ctx: &Arc<Context>, uid: &Uid, due: Instant) -> Outcome {
    let key = ObjectKey::Orphan(uid.clone());
    if ctx.world().uids().contains(uid) {
        return Outcome::Gone;
    }
    let name = ObjectName::sanitised(uid.as_str());
    let subject = Subject {
        key: &key,
        kind: Kind::BgpSession,
        name: &name,
        uid,
        generation: 0,
        endpoint: None,
        claims: None,
        hands_off: false,
        spec: None,
    };
    let round = round(ctx, &subject, due, |look| {
        planning::orphan(uid, &look.view())
    })
    .await;
    // It was never applied, so the history has no entry for it; the log has one.
    drop(ctx.taken.take(&key));
    match round {
        Ok(round) if round.is_settled() => Outcome::Gone,
        Ok(_) => Outcome::Failed,
        Err(error) => {
            debug!(object = %key, error, "observation failed");
            Outcome::Failed
        }
    }
}
