//! A drain is written down before anybody acts by it.

use serde_json::{Value, json};
use tracing::debug;

use crate::agent::Parts;
use crate::controller::World;
use crate::controller::world::{recorded_maintenance, single};
use crate::document::{Kind, Metadata};
use crate::model::Uid;
use crate::store::{AppliedBody, AppliedDocument, Snapshot};
use crate::telemetry::chain;

/// Writes down whether the router is to be drained, where the record says otherwise: the record is what a
/// document that breaks later is judged by, and BIRD may be down until then. That it is in force is written
/// by the node's reconcile, once that was read back.
pub(super) async fn write_down(parts: &Parts, snapshot: &Snapshot, world: &World) {
    let (recorded, wanted) = (recorded_maintenance(snapshot), world.maintenance);
    if recorded.enabled == wanted.enabled && (recorded.since.is_some() || !wanted.enabled) {
        return;
    }
    let document = record(json!({"enabled": wanted.enabled, "since": wanted.since}));
    if let Err(error) = parts
        .context
        .disk(move |store| store.write_applied(&document))
        .await
    {
        // The state directory's trouble is told once, elsewhere; the next world tries again.
        debug!(error = %chain(&error), "the drain could not be written down");
    }
}

fn record(spec: Value) -> AppliedDocument {
    let (kind, name) = (Kind::Maintenance, single(Kind::Maintenance));
    let uid = Uid::local(kind.folder(), &name);
    let metadata = Metadata {
        name,
        uid: Some(uid),
        generation: 0,
    };
    AppliedDocument::new(
        kind,
        metadata,
        AppliedBody {
            spec: Some(spec),
            ..AppliedBody::default()
        },
    )
}
