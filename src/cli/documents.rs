//! The documents of a state directory, of all kinds.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::document::{DocumentError, Kind, Metadata, Spec};
use crate::model::ObjectName;
use crate::store::{Area, Place, Slot, Snapshot};

/// One document: its metadata and specification, or the error in it.
pub(crate) type Loaded = Result<(Metadata, Value), DocumentError>;

/// Returns every document except overrides, by kind and name.
pub(crate) fn all(snapshot: &Snapshot) -> BTreeMap<(Kind, ObjectName), Loaded> {
    let mut found = BTreeMap::new();
    single(&mut found, snapshot.node.as_ref());
    single(&mut found, snapshot.policy.as_ref());
    single(&mut found, snapshot.maintenance.as_ref());
    many(&mut found, &snapshot.sessions);
    many(&mut found, &snapshot.mesh);
    many(&mut found, &snapshot.ibgp);
    found
}

fn single<S: Spec>(found: &mut BTreeMap<(Kind, ObjectName), Loaded>, slot: Option<&Slot<S>>) {
    let name = Place::single(Area::Documents, S::KIND).name;
    found.extend(slot.map(|slot| ((S::KIND, name), loaded(slot))));
}

fn many<S: Spec>(
    found: &mut BTreeMap<(Kind, ObjectName), Loaded>,
    slots: &BTreeMap<ObjectName, Slot<S>>,
) {
    found.extend(
        slots
            .iter()
            .map(|(name, slot)| ((S::KIND, name.clone()), loaded(slot))),
    );
}

fn loaded<S: Spec>(slot: &Slot<S>) -> Loaded {
    let document = &slot.as_ref().map_err(Clone::clone)?.document;
    let spec = serde_json::to_value(&document.spec).unwrap_or_default();
    Ok((document.metadata.clone(), spec))
}
