//! JSON Schema (draft 2020-12) of the documents, and the nearest known field for a mistyped one.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use super::{
    BgpSessionSpec, Document, IbgpPeerSpec, Kind, MaintenanceSpec, MeshPeerSpec, NodeSpec, OverrideSpec,
    RoutingPolicySpec, Spec, StatusDocument,
};

/// The schema of a kind's documents, as `schemas/<Kind>.json` holds it.
pub fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Node => of::<NodeSpec>(),
        Kind::RoutingPolicy => of::<RoutingPolicySpec>(),
        Kind::Maintenance => of::<MaintenanceSpec>(),
        Kind::BgpSession => of::<BgpSessionSpec>(),
        Kind::MeshPeer => of::<MeshPeerSpec>(),
        Kind::IbgpPeer => of::<IbgpPeerSpec>(),
        Kind::Override => of::<OverrideSpec>(),
    }
}

/// The schema of the documents below `status/`, as `schemas/Status.json` holds it.
pub fn status_schema() -> Value {
    root::<StatusDocument>("Status")
}

fn of<S: Spec>() -> Value {
    let kind = S::KIND.to_string();
    let mut schema = root::<Document<S>>(&kind);
    let about = S::json_schema(&mut SchemaGenerator::default()).to_value();
    schema["description"] = about["description"].clone();
    // The envelope's type allows every kind; a document in its place has one.
    schema["properties"]["kind"] = json!({"const": kind, "description": "What the document is about."});
    if let Some(types) = schema["$defs"].as_object_mut() {
        types.remove("Kind");
    }
    polish(&mut schema);
    schema
}

fn root<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    schema["title"] = json!(title);
    polish(&mut schema);
    schema
}

/// For editors: descriptions flow instead of keeping the line breaks of the sources, and a switch or a
/// counter that may be left out shows what it is then.
fn polish(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text.replace("\n\n", "\0").replace('\n', " ").replace('\0', "\n\n");
            }
            let required = fields.get("required").cloned().unwrap_or_default();
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                properties.iter_mut().for_each(|(name, property)| show_default(name, &required, property));
            }
            fields.values_mut().for_each(polish);
        }
        Value::Array(items) => items.iter_mut().for_each(polish),
        _ => {}
    }
}

fn show_default(name: &str, required: &Value, property: &mut Value) {
    let is_required = required.as_array().is_some_and(|names| names.iter().any(|required| required == name));
    let default = match property.get("type").and_then(Value::as_str) {
        Some("boolean") => json!(false),
        Some("integer") => json!(0),
        _ => return,
    };
    if let Some(property) = property.as_object_mut().filter(|_| !is_required) {
        property.entry("default").or_insert(default);
    }
}

/// Adds "did you mean …?" to "unknown field `x`, expected one of a, b", as serde and the YAML crate
/// word it.
pub(crate) fn with_nearest(message: &str) -> String {
    nearest(message).unwrap_or_else(|| message.to_owned())
}

fn nearest(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, known) = rest.split_once("`, expected ")?;
    let known = known.trim_start_matches("one of ").split(", ").map(|word| word.trim_matches('`'));
    let (_, nearest) = known
        .map(|known| (strsim::damerau_levenshtein(&unknown.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 3)
        .min()?;
    Some(format!("unknown field `{unknown}`, did you mean `{nearest}`?"))
}
