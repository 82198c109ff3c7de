//! The overrides in effect, for `/status` and `/metrics`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::controller::World;
use crate::controller::world::Object;
use crate::http::{OverriddenField, OverrideView};
use crate::redact::redact_value;

/// Lists every override in effect. Leaves out refused and expired ones.
pub(super) fn of(world: &World) -> Vec<OverrideView> {
    let singles = world.router_documents.objects();
    let objects = world.objects.values().filter_map(view);
    objects.chain(singles.iter().filter_map(view)).collect()
}

fn view(object: &Object) -> Option<OverrideView> {
    Some(OverrideView {
        object: object.path(),
        reason: object.reason.clone()?,
        expires_at: object.expires_at,
        paused: object.paused.is_some(),
        fields: fields(&object.overridden, object.spec.as_ref()),
    })
}

/// Each overridden field with its effective value and the document's value, without secrets.
fn fields(overridden: &BTreeMap<String, Value>, in_force: Option<&Value>) -> Vec<OverriddenField> {
    let shown = |field: &str, mut value: Value| {
        if !field.ends_with("publicKey") {
            redact_value(&mut value);
        }
        value
    };
    let field = |(field, document): (&String, &Value)| OverriddenField {
        field: field.clone(),
        value: shown(field, value_at(in_force, field)),
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

/// Maximum length of a value in a label, in characters.
const LABEL: usize = 80;

/// Formats a value as a label: one line of bounded length.
pub(super) fn label(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let mut kept: String = text
        .chars()
        .take(LABEL)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LABEL).is_some() {
        kept.push('…');
    }
    kept
}

/// Returns a value as a gauge; `None` for texts.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        value => value.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_numbers_and_switches_are_gauges() {
        assert_eq!(number(&json!(1380)), Some(1380.0));
        assert_eq!(number(&json!(true)), Some(1.0));
        for text in [json!("1380"), json!(null), json!(["a"])] {
            assert_eq!(number(&text), None, "{text}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_path() {
        let spec = json!({"tunnel": {"mtu": 1380}});
        assert_eq!(value_at(Some(&spec), "spec.tunnel.mtu"), json!(1380));
        assert_eq!(value_at(Some(&spec), "spec.tunnel.endpoint"), Value::Null);
    }
}
