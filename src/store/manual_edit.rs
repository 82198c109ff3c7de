//! Manual edits of the sync's documents: found by comparing each document with a copy of it, kept as an override.
//!
//! The copy is in `.synced/`, not in the history: an edit is found offline, across a restart, and
//! when the repository is broken.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::document::{Document, DocumentError, OverrideSpec, Spec};
use crate::effective::difference;

use super::Place;
use super::cache::Stored;
use super::synced::is_taken_over;

/// The reason of an override that a manual edit created.
pub const EDITED_IN_PLACE: &str = "edited in place";

/// A synced document that differs from the version of the sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub place: Place,
    pub change: Change,
}

/// A manual change of a synced document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The file was deleted. It is restored; the object stays.
    Deleted,
    /// The `uid` was removed: the document now belongs to the operator.
    TakenOver,
    /// The `uid` was added again: the document belongs to the sync again.
    GivenBack,
    Edited {
        /// The specification that the sync wrote.
        last: Value,
        /// The current specification.
        now: Value,
        /// The numeric user ID of the file's owner: the author of the edit.
        owner: u32,
        /// Whether the file has an earlier generation than the sync wrote last. An editor keeps the generation; Git
        /// restores an old one.
        older: bool,
    },
}

impl Change {
    /// Returns the numeric user ID of the editor; `None` for a deletion, which leaves no trace of its author.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Edited { owner, .. } => Some(*owner),
            Self::Deleted | Self::TakenOver | Self::GivenBack => None,
        }
    }
}

/// Compares a document with the last version of the sync. `None`: nothing to do; also for an
/// invalid document, whose intent is not known yet.
pub(super) fn edit<S: Spec>(
    place: Place,
    copy: &Stored<Document<S>>,
    now: Option<&Result<Arc<Stored<Document<S>>>, DocumentError>>,
) -> Option<Edit> {
    let taken_over = is_taken_over(&copy.text);
    let stored = match now {
        None => {
            return Some(Edit {
                place,
                change: Change::Deleted,
            });
        }
        Some(Err(_)) => return None,
        Some(Ok(stored)) => stored,
    };
    if stored.document.metadata.uid.is_none() {
        return (!taken_over).then_some(Edit {
            place,
            change: Change::TakenOver,
        });
    }
    let synced = &copy.document;
    if Arc::ptr_eq(&stored.document, synced) || stored.document == *synced {
        return taken_over.then_some(Edit {
            place,
            change: Change::GivenBack,
        });
    }
    let last = serde_json::to_value(&synced.spec).ok()?;
    let spec = serde_json::to_value(&stored.document.spec).ok()?;
    Some(Edit {
        place,
        change: Change::Edited {
            last,
            now: spec,
            owner: stored.owner,
            older: stored.document.metadata.generation < synced.metadata.generation,
        },
    })
}

/// Returns the override that keeps a manual edit: the difference to the last version of the sync,
/// merged into an override that is already in effect. `None`: the specifications are equal.
pub fn edited_in_place(
    last: &Value,
    now: &Value,
    existing: Option<&OverrideSpec>,
) -> Option<OverrideSpec> {
    let Value::Object(patch) = difference(last, now) else {
        return None;
    };
    if patch.is_empty() {
        return None;
    }
    let fresh = || OverrideSpec {
        reason: EDITED_IN_PLACE.to_owned(),
        target_kind: None,
        expires_at: None,
        paused: false,
        set: Map::new(),
    };
    let mut kept = existing.cloned().unwrap_or_else(fresh);
    if !kept.reason.contains(EDITED_IN_PLACE) {
        kept.reason = format!("{}; {EDITED_IN_PLACE}", kept.reason);
    }
    add(&mut kept.set, patch);
    Some(kept)
}

/// Merges a merge patch into another one. Unlike an application of the patch, this keeps a `null`,
/// which removes a field.
fn add(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => add(below, above),
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effective::testing::object;
    use proptest::prelude::*;
    use serde_json::json;

    fn existing(set: Value) -> OverrideSpec {
        let set = set.as_object().cloned().unwrap();
        OverrideSpec {
            reason: "PPPoE".into(),
            target_kind: None,
            expires_at: None,
            paused: true,
            set,
        }
    }

    #[test]
    fn an_edit_becomes_the_difference() {
        let last = json!({"asn": 1, "tunnel": {"mtu": 1420, "listenPort": 1}});
        let now = json!({"asn": 1, "tunnel": {"mtu": 1380}});
        let kept = edited_in_place(&last, &now, None).unwrap();
        assert_eq!(
            Value::Object(kept.set),
            json!({"tunnel": {"listenPort": null, "mtu": 1380}})
        );
        assert_eq!(kept.reason, EDITED_IN_PLACE);
    }

    #[test]
    fn equal_specifications_need_no_override() {
        assert_eq!(
            edited_in_place(
                &json!({"a": 1}),
                &json!({"a": 1}),
                Some(&existing(json!({"a": 2})))
            ),
            None
        );
    }

    #[test]
    fn existing_override_keeps_fields_reason_and_pause() {
        let there = existing(json!({"tunnel": {"mtu": 1380}, "asn": 2}));
        let kept = edited_in_place(
            &json!({"tunnel": {"port": 1}}),
            &json!({"tunnel": {}}),
            Some(&there),
        )
        .unwrap();
        assert_eq!(
            Value::Object(kept.set),
            json!({"tunnel": {"mtu": 1380, "port": null}, "asn": 2})
        );
        assert_eq!(kept.reason, "PPPoE; edited in place");
        assert!(kept.paused);
    }

    proptest! {
        #[test]
        fn synced_document_with_override_equals_the_operators_edit(last in object(), now in object()) {
            let mut merged = last.clone();
            if let Some(kept) = edited_in_place(&last, &now, None) {
                json_patch::merge(&mut merged, &Value::Object(kept.set));
            }
            prop_assert_eq!(merged, now);
        }
    }
}
