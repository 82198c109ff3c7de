//! Records a drain before it is applied.

use serde_json::{Value, json};
use tracing::debug;

use super::Builder;
use crate::desired::{Desired, recorded_maintenance, single};
use crate::document::{Kind, Metadata, PackedSpec};
use crate::model::Uid;
use crate::store::{AppliedBody, AppliedDocument, Snapshot};
use crate::telemetry::chain;

/// Records whether the router should be drained, if the record differs: a document that becomes
/// invalid later is judged by the record, and BIRD may be down until then. The node's reconcile
/// records that the drain is in effect, after reading it back.
pub(super) async fn write_down(builder: &Builder, snapshot: &Snapshot, desired: &Desired) {
    let (recorded, wanted) = (recorded_maintenance(snapshot), desired.maintenance);
    if recorded.enabled == wanted.enabled && (recorded.since.is_some() || !wanted.enabled) {
        return;
    }
    let mut spec = json!({"enabled": wanted.enabled, "since": wanted.since});
    // Without this field while it is false: the node's reconcile writes the whole record, and that change is the
    // history's entry for the drain.
    if wanted.ebgp_disabled {
        spec["externalSessionsDisabled"] = true.into();
    }
    let document = record(spec);
    if let Err(error) = builder
        .context
        .write(move |store| store.write_applied(&document))
        .await
    {
        // An unavailable state directory is logged once, elsewhere; the next desired state retries.
        debug!(error = %chain(&error), "drain not recorded");
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
            spec: Some(PackedSpec::from(&spec)),
            ..AppliedBody::default()
        },
    )
}
