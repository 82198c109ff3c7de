//! Edits by hand of the sync's documents.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::{info, warn};

use crate::agent::{Parts, journal};
use crate::store::{Absorbed, Edit, Place, Snapshot, Store};
use crate::telemetry::chain;

/// Edits by hand become overrides, and deleted documents come back. Before every listing that is gone by,
/// so that the sync cannot write over an edit; the caller holds `syncing`, so that each is kept once.
pub(in crate::agent) async fn settle(parts: &Parts) {
    // A directory that cannot be read is told by whoever goes by its listing.
    let Ok(Snapshot { edits, .. }) = parts.context.disk(Store::load).await else {
        return;
    };
    let unkept = absorb(parts, edits).await;
    parts.maker.set_unkept(unkept);
}

/// Returns what could not be kept, and why.
async fn absorb(parts: &Parts, edits: Vec<Edit>) -> BTreeMap<Place, String> {
    let mut unkept = BTreeMap::new();
    for edit in edits {
        let place = edit.place.clone();
        let owner = edit.change.owner();
        let done = parts
            .context
            .disk(move |store| store.absorb(&edit, Timestamp::now()))
            .await;
        match done {
            Ok(Absorbed::Overridden(_)) => {
                info!(object = %place.relative().display(), "edited in place: the change is kept as an override");
                owner
                    .into_iter()
                    .for_each(|owner| journal::absorbed(parts, &place, owner));
            }
            Ok(Absorbed::Restored) => {
                info!(object = %place.relative().display(), "the Control Plane's document was put back");
                journal::put_back(parts, &place);
            }
            Ok(Absorbed::TakenOver) => {
                info!(object = %place.relative().display(), "the document has no uid any more: it is the operator's own, and the Control Plane's is not written over it");
            }
            Ok(Absorbed::GivenBack) => {
                info!(object = %place.relative().display(), "the document has its uid again: it is the Control Plane's");
                journal::put_back(parts, &place);
            }
            Err(error) => {
                let why = chain(&error);
                if parts.maker.is_unkept(&place).as_ref() != Some(&why) {
                    warn!(object = %place.relative().display(), error = why, "an edit cannot be kept");
                }
                unkept.insert(place, why);
            }
        }
    }
    unkept
}
