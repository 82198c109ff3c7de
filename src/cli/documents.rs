//! The documents of a state directory, of all kinds.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::{DocumentError, Kind, Metadata};
use crate::model::ObjectName;
use crate::store::{AnySlot, Snapshot};
use crate::util::sorted::Sorted as _;

/// One document: its metadata and specification, or the error in it.
pub(crate) type Loaded = Result<(Metadata, Value), DocumentError>;

/// Returns every document except overrides, by kind and name.
pub(crate) fn all(snapshot: &Snapshot) -> BTreeMap<(Kind, ObjectName), Loaded> {
    let documents = snapshot.documents();
    documents
        .map(|(place, slot)| ((place.kind, place.name), loaded(slot)))
        .sorted_map()
}

fn loaded(slot: AnySlot<'_>) -> Loaded {
    let document = slot.map_err(Clone::clone)?;
    Ok((document.metadata().clone(), document.spec()))
}
