//! `field=value` as a part of a merge patch.

use serde_json::{Map, Value};

use crate::document::parse_document;

/// A field and its new value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment {
    path: Vec<String>,
    value: Value,
}

/// A text that is no `field=value`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssignmentError {
    #[error(
        "write field=value, as tunnel.mtu=1380; `moenet-agent explain bgpsession` lists the fields"
    )]
    Form,
    #[error("{0}")]
    Value(String),
}

impl std::str::FromStr for Assignment {
    type Err = AssignmentError;

    fn from_str(text: &str) -> Result<Self, AssignmentError> {
        let (field, value) = text.split_once('=').ok_or(AssignmentError::Form)?;
        let path = path(field).ok_or(AssignmentError::Form)?;
        let value = match value.trim() {
            "" => Value::String(String::new()),
            text => parse_document(text).map_err(|error| AssignmentError::Value(error.message))?,
        };
        Ok(Self { path, value })
    }
}

/// Returns the names of a field's path, which may begin with `spec`.
pub(crate) fn path(field: &str) -> Option<Vec<String>> {
    let field = field.trim();
    let field = field.strip_prefix("spec.").unwrap_or(field);
    let names: Vec<_> = field.split('.').map(str::to_owned).collect();
    (!names.iter().any(String::is_empty)).then_some(names)
}

impl Assignment {
    /// Sets the field in a patch.
    pub(crate) fn set(self, patch: &mut Map<String, Value>) {
        let mut at = patch;
        let mut names = self.path.into_iter().peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                at.insert(name, self.value);
                return;
            }
            let below = at.entry(name).or_insert(Value::Null);
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            match below {
                Value::Object(fields) => at = fields,
                _ => return,
            }
        }
    }
}

/// Removes a field from a patch, with the groups that become empty. Returns whether it was there.
pub(crate) fn unset(patch: &mut Map<String, Value>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return patch.remove(first).is_some();
    }
    let Some(Value::Object(below)) = patch.get_mut(first) else {
        return false;
    };
    let found = unset(below, rest);
    if found && below.is_empty() {
        patch.remove(first);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(texts: &[&str]) -> Value {
        let mut patch = Map::new();
        for text in texts {
            text.parse::<Assignment>().unwrap().set(&mut patch);
        }
        Value::Object(patch)
    }

    #[test]
    fn values_are_yaml_and_fields_nest() {
        let patch = patched(&[
            "spec.tunnel.mtu=1380",
            "tunnel.endpoint=a.b:1",
            "bgp.policy=full",
        ]);
        let wanted =
            json!({"tunnel": {"mtu": 1380, "endpoint": "a.b:1"}, "bgp": {"policy": "full"}});
        assert_eq!(patch, wanted);
        assert_eq!(patched(&["a=[x, y]"]), json!({"a": ["x", "y"]}));
        assert_eq!(
            patched(&["a.b=null", "a.c=1"]),
            json!({"a": {"b": null, "c": 1}})
        );
        assert_eq!(patched(&["a=1", "a.b=2"]), json!({"a": {"b": 2}}));
    }

    #[test]
    fn texts_without_field_or_value_are_refused() {
        for bad in ["", "mtu", "=1", "a..b=1", ".=1"] {
            assert_eq!(
                bad.parse::<Assignment>(),
                Err(AssignmentError::Form),
                "{bad}"
            );
        }
        let broken = "a=[".parse::<Assignment>();
        assert!(
            matches!(broken, Err(AssignmentError::Value(_))),
            "{broken:?}"
        );
    }

    #[test]
    fn removed_field_leaves_no_empty_group() {
        let mut patch = json!({"tunnel": {"mtu": 1}, "asn": 2})
            .as_object()
            .cloned()
            .unwrap();
        let tunnel = |name: &str| vec!["tunnel".to_owned(), name.to_owned()];
        assert!(!unset(&mut patch, &tunnel("port")));
        assert!(unset(&mut patch, &tunnel("mtu")));
        assert_eq!(Value::Object(patch), json!({"asn": 2}));
    }
}
