//! Edits by hand of what the sync wrote: found by comparing with a copy of it, kept as an override.
//!
//! The copy stands in `.synced/`, not in the history: an edit is found offline, across a restart, and
//! when the repository is broken.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::document::{Document, DocumentError, OverrideSpec, Spec};
use crate::effective::difference;

use super::Place;
use super::cache::Stored;
use super::synced::is_taken_over;

/// Why an override is there that nobody wrote as one.
pub const EDITED_IN_PLACE: &str = "edited in place";

/// A synced document that is not as the sync left it.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit {
    /// The document.
    pub place: Place,
    /// What was done to it.
    pub change: Change,
}

/// What was done by hand to a synced document.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The file is gone. It is put back; nothing is torn down.
    Deleted,
    /// The `uid` is gone: the document is the operator's own from now on.
    TakenOver,
    /// The `uid` is back: the document is the sync's again.
    GivenBack,
    /// The content is another.
    Edited {
        /// The specification as the sync left it.
        last: Value,
        /// The specification as it is now.
        now: Value,
        /// The user who owns the file, as a number: the author of the edit.
        owner: u32,
    },
}

impl Change {
    /// Who edited the document, as a number; none when it was deleted, which leaves no trace of who did.
    pub fn owner(&self) -> Option<u32> {
        match self {
            Self::Edited { owner, .. } => Some(*owner),
            Self::Deleted | Self::TakenOver | Self::GivenBack => None,
        }
    }
}

/// Compares a document with what the sync last wrote. `None`: nothing to do; so too for a document
/// that is invalid: nobody knows yet what is meant.
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
    if stored.document == *synced {
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
        },
    })
}

/// The override that keeps an edit by hand: the difference to what the sync last wrote, on top of an
/// override that is in force already. `None`: the specifications do not differ.
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

/// Puts a merge patch on top of another. Unlike applying it, this keeps a `null`: it takes a field away.
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
    use proptest::prelude::*;
    use serde_json::json;

    fn existing(set: Value) -> OverrideSpec {
        let set = set.as_object().cloned().unwrap();
        OverrideSpec {
            reason: "PPPoE".into(),
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
    fn an_override_that_is_there_keeps_its_fields_its_reason_and_its_pause() {
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

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<u8>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", tree(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_override_applied_to_what_the_sync_wrote_gives_what_the_operator_wrote(last in object(), now in object()) {
            let mut merged = last.clone();
            if let Some(kept) = edited_in_place(&last, &now, None) {
                json_patch::merge(&mut merged, &Value::Object(kept.set));
            }
            prop_assert_eq!(merged, now);
        }
    }
}
