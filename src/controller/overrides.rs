//! The overrides in effect, for `/status` and `/metrics`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::desired::{Desired, Object};
use crate::document::PackedSpec;
use crate::redact::redact_value;

/// An override in effect.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverrideView {
    /// The object, as `sessions/wg_4242421080`.
    pub object: String,
    /// The reason, in the operator's words.
    pub reason: String,
    /// Time of its expiry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub expires_at: Option<Timestamp>,
    /// Whether writes for the object are paused.
    pub paused: bool,
    /// The overridden fields.
    pub fields: Vec<OverriddenField>,
}

/// One field that an override sets. A specification names files in `secrets/` and holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverriddenField {
    /// The field, as `spec.tunnel.mtu`.
    pub field: String,
    /// The effective value; `null` if the override removes the field.
    pub value: Value,
    /// The value in the document, from the Control Plane or the operator; `null` if it is not set there.
    pub document: Value,
}

/// Lists every override in effect. Leaves out refused and expired ones.
pub fn of(desired: &Desired) -> Vec<OverrideView> {
    let singles = desired.router_documents.objects();
    let objects = desired.objects.values().filter_map(view);
    objects.chain(singles.iter().filter_map(view)).collect()
}

fn view(object: &Object) -> Option<OverrideView> {
    let reason = object.reason.clone()?;
    Some(OverrideView {
        object: object.path(),
        reason,
        expires_at: object.expires_at,
        paused: object.paused.is_some(),
        fields: fields(
            &object.overridden,
            object.spec.as_ref().map(PackedSpec::value).as_ref(),
        ),
    })
}

/// Each overridden field with its effective value and the document's value, without secrets.
fn fields(overridden: &BTreeMap<String, Value>, spec: Option<&Value>) -> Vec<OverriddenField> {
    let shown = |field: &str, mut value: Value| {
        if !field.ends_with("publicKey") {
            redact_value(&mut value);
        }
        value
    };
    let field = |(field, document): (&String, &Value)| OverriddenField {
        field: field.clone(),
        value: shown(field, value_at(spec, field)),
        document: shown(field, document.clone()),
    };
    overridden.iter().map(field).collect()
}

/// The value at a path like `spec.tunnel.mtu`.
fn value_at(spec: Option<&Value>, field: &str) -> Value {
    let path = field.strip_prefix("spec.").unwrap_or(field);
    let pointer = format!("/{}", path.replace('.', "/"));
    spec.and_then(|spec| spec.pointer(&pointer))
        .cloned()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_found_by_its_path() {
        let spec = json!({"tunnel": {"mtu": 1380}});
        assert_eq!(value_at(Some(&spec), "spec.tunnel.mtu"), json!(1380));
        assert_eq!(value_at(Some(&spec), "spec.tunnel.endpoint"), Value::Null);
    }
}
