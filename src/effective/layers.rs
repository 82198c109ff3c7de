use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::FieldError;
use crate::document::{self, Fault, Scalars, Spec};
use crate::util::sorted::Sorted as _;

/// The source of a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The agent's default, or its configuration.
    Default,
    /// The Control Plane's document.
    ControlPlane,
    /// The operator's own document.
    Operator,
    Override,
    /// The specification that was applied before the document became unreadable; its own origin is unknown.
    LastGood,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::ControlPlane => "control plane",
            Self::Operator => "operator",
            Self::Override => "override",
            Self::LastGood => "last good",
        })
    }
}

/// A specification with the override applied, and the fields that the override changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged<S> {
    pub spec: S,
    /// The fields that the override sets, such as `spec.tunnel.mtu`, each with the document's value.
    pub overridden: BTreeMap<String, Value>,
}

/// Applies a merge patch (RFC 7396) to a valid specification.
///
/// # Errors
/// When the result is no valid specification; the error names the field.
pub fn merge<S: Spec>(spec: &S, patch: &Map<String, Value>) -> Result<Merged<S>, FieldError> {
    if patch.is_empty() {
        return Ok(Merged {
            spec: spec.clone(),
            overridden: BTreeMap::new(),
        });
    }
    let (before, after, patch) = patched(spec, patch)?;
    let merged = document::read(&after, Scalars::Typed).map_err(|fault| field_error(&fault))?;
    let overridden = leaves(&patch).into_keys().map(|path| {
        let was = before
            .pointer(&format!("/{}", path.replace('.', "/")))
            .cloned()
            .unwrap_or_default();
        (format!("spec.{path}"), was)
    });
    Ok(Merged {
        spec: merged,
        overridden: overridden.sorted_map(),
    })
}

/// Returns every field for which [`merge`] refuses a patch, the field of its error first.
pub(crate) fn merge_problems<S: Spec>(spec: &S, patch: &Map<String, Value>) -> Vec<FieldError> {
    match patched(spec, patch) {
        Ok((_, after, _)) => {
            document::faults::<S>(after, &document::minimal(S::KIND), Scalars::Typed)
                .iter()
                .map(field_error)
                .collect()
        }
        Err(error) => vec![error],
    }
}

/// Returns the specification as a value, the value with the patch applied, and the patch.
fn patched<S: Spec>(
    spec: &S,
    patch: &Map<String, Value>,
) -> Result<(Value, Value, Value), FieldError> {
    let before =
        serde_json::to_value(spec).map_err(|error| FieldError::new("spec", error.to_string()))?;
    let patch = Value::Object(patch.clone());
    let mut after = before.clone();
    json_patch::merge(&mut after, &patch);
    Ok((before, after, patch))
}

fn field_error(fault: &Fault) -> FieldError {
    FieldError::new(&fault.field("spec"), fault.reason.to_string())
}

/// Returns the merge patch that turns one specification into another. Applied to the first, it gives the second.
pub fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in to {
        match from.get(key) {
            Some(old) if old == new => {}
            Some(old) => drop(patch.insert(key.clone(), difference(old, new))),
            None => drop(patch.insert(key.clone(), new.clone())),
        }
    }
    Value::Object(patch)
}

/// Returns the leaves of a tree of objects, by their paths, such as `tunnel.mtu`. Arrays are leaves, as in a merge
/// patch.
pub fn leaves(value: &Value) -> BTreeMap<String, &Value> {
    fn walk<'a>(path: &str, value: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(&path, value, found);
                }
            }
            Value::Object(_) => {}
            leaf => drop(found.insert(path.to_owned(), leaf)),
        }
    }
    let mut found = BTreeMap::new();
    walk("", value, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::MeshPeerSpec;
    use crate::effective::testing::object;
    use proptest::prelude::*;
    use serde_json::json;

    fn peer() -> MeshPeerSpec {
        serde_json::from_value(json!({
            "nodeId": 2, "mtu": 1420, "publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
        }))
        .unwrap()
    }

    fn patch(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn an_override_keeps_what_the_document_said() {
        let merged = merge(&peer(), &patch(json!({"mtu": 1380, "endpoint": "a.b:1"}))).unwrap();
        assert_eq!(merged.spec.mtu.unwrap().get(), 1380);
        let want = [
            ("spec.endpoint".to_owned(), Value::Null),
            ("spec.mtu".to_owned(), json!(1420)),
        ];
        assert_eq!(merged.overridden, BTreeMap::from(want));
    }

    #[test]
    fn null_takes_a_field_away() {
        let merged = merge(&peer(), &patch(json!({"mtu": null}))).unwrap();
        assert_eq!(merged.spec.mtu, None);
    }

    #[test]
    fn an_override_that_breaks_a_rule_names_the_field() {
        let error = merge(&peer(), &patch(json!({"mtu": 1}))).unwrap_err();
        assert_eq!(error.to_string(), "spec.mtu: invalid MTU 1: use 1280..9000");
        let error = merge(&peer(), &patch(json!({"mtuu": 1400}))).unwrap_err();
        assert!(error.reason.contains("did you mean `mtu`?"), "{error}");
    }

    proptest! {
        #[test]
        fn the_difference_applied_to_the_first_gives_the_second(from in object(), to in object()) {
            let mut merged = from.clone();
            json_patch::merge(&mut merged, &difference(&from, &to));
            prop_assert_eq!(merged, to);
        }

        #[test]
        fn equal_documents_have_an_empty_difference(tree in object()) {
            prop_assert_eq!(difference(&tree, &tree), json!({}));
        }
    }
}
