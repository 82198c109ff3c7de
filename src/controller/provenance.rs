//! The fields of an object, with the origin of each value, for `describe` and the web page.

use serde::Serialize;
use serde_json::Value;

use crate::desired::Object;
use crate::document::{Kind, PackedSpec};
use crate::effective::{Origin, leaves};

/// One field and its origin.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Field {
    /// The field, as `spec.tunnel.mtu`.
    pub field: String,
    /// Its value here; `null` if an override removes the field.
    pub value: Value,
    /// The origin of the value.
    pub origin: Origin,
    /// The value of the document, if an override changes it; `null` if the document has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Value>,
}

/// Returns the leaves of a document, all of one origin.
pub(crate) fn of_document(spec: &Value, origin: Origin) -> Vec<Field> {
    let field = |(path, value): (String, &Value)| Field {
        field: format!("spec.{path}"),
        value: value.clone(),
        origin,
        document: None,
    };
    leaves(spec).into_iter().map(field).collect()
}

/// Returns the leaves of the effective specification, each with its origin, and those that an override removes.
/// `said` is the specification in the document; `None` where the document is broken, or missing.
pub(crate) fn of_object(object: &Object, said: Option<&Value>, is_broken: bool) -> Vec<Field> {
    let said_leaves = said.map(leaves).unwrap_or_default();
    let theirs = if object.operator_owned {
        Origin::Operator
    } else {
        Origin::ControlPlane
    };
    let spec = object.spec.as_ref().map(PackedSpec::value);
    let Some(spec) = spec.as_ref().or(said) else {
        return Vec::new();
    };
    let field = |(path, value): (String, &Value)| {
        let field = format!("spec.{path}");
        let before = object.overridden.get(&field).cloned();
        let origin = match &before {
            Some(_) => Origin::Override,
            None if is_broken => Origin::LastGood,
            // The configuration of the node takes precedence over its document.
            None if object.kind == Kind::Node && said_leaves.get(&path) != Some(&value) => {
                Origin::Default
            }
            None if said_leaves.contains_key(&path) => theirs,
            None => Origin::Default,
        };
        Field {
            field,
            value: value.clone(),
            origin,
            document: before,
        }
    };
    let mut fields: Vec<Field> = leaves(spec).into_iter().map(field).collect();
    let gone = object
        .overridden
        .iter()
        .filter(|(name, _)| !fields.iter().any(|field| field.field == **name));
    let gone: Vec<Field> = gone
        .map(|(name, before)| Field {
            field: name.clone(),
            value: Value::Null,
            origin: Origin::Override,
            document: Some(before.clone()),
        })
        .collect();
    fields.extend(gone);
    fields.sort_by(|a, b| a.field.cmp(&b.field));
    fields
}
