//! Generates JSON Schema (draft 2020-12) for the documents.

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use super::{Document, Kind, OverrideSpec, Spec, StatusDocument, with_spec};

/// Returns the schema of a kind's documents, the content of `schemas/<Kind>.json`.
pub fn schema(kind: Kind) -> Value {
    with_spec!(kind, S => of::<S>())
}

/// Returns the schema of the documents below `status/`, the content of `schemas/Status.json`.
pub fn status_schema() -> Value {
    root::<StatusDocument>("Status")
}

/// Returns the schema of an override of this kind of object, the content of `schemas/<Kind>Override.json`: `set`
/// accepts the kind's specification without required fields, and `null` removes a field (RFC 7396). `None`: objects
/// of this kind have no overrides.
pub fn override_schema(kind: Kind) -> Option<Value> {
    let example = with_spec!(kind, S => S::patch_example())?;
    let file = if kind.is_single() {
        kind.folder().to_owned()
    } else {
        format!("{}/<name>", kind.folder())
    };
    let (target, mut schema) = (schema(kind), of::<OverrideSpec>());
    schema["title"] = json!(format!("{kind}Override"));
    schema["description"] = json!(format!(
        "An operator's override of a {kind}: overrides/{file}.yaml."
    ));
    let set = target["properties"]["spec"].clone();
    schema["$defs"]["OverrideSpec"]["properties"]["targetKind"]["enum"] = json!([kind, null]);
    schema["$defs"]["OverrideSpec"]["properties"]["targetKind"]["examples"] = json!([kind]);
    let about = schema["$defs"]["OverrideSpec"]["properties"]["set"].clone();
    for (name, mut definition) in target["$defs"].as_object().cloned().unwrap_or_default() {
        if name != "Metadata" {
            patched(&mut definition);
        }
        schema["$defs"][name] = definition;
    }
    schema["$defs"]["OverrideSpec"]["properties"]["set"] =
        json!({"$ref": set["$ref"], "description": about["description"], "examples": [example]});
    Some(schema)
}

/// Turns an object of a specification into the form that a merge patch accepts.
fn patched(definition: &mut Value) {
    let Some(fields) = definition.as_object_mut() else {
        return;
    };
    fields.remove("required");
    let Some(Value::Object(properties)) = fields.get_mut("properties") else {
        return;
    };
    for property in properties.values_mut() {
        let mut whole = std::mem::take(property);
        let Some(parts) = whole.as_object_mut() else {
            continue;
        };
        // A patch has no defaults; a former default shows the form of a value.
        let default = parts.remove("default").map(|default| json!([default]));
        let (about, examples) = (
            parts.remove("description"),
            parts.remove("examples").or(default),
        );
        let nothing = json!({"type": "null"});
        let takes_null = parts.get("type").is_some_and(|kind| {
            kind.as_array()
                .is_some_and(|kinds| kinds.contains(&json!("null")))
        }) || parts.get("anyOf").is_some_and(|choices| {
            choices
                .as_array()
                .is_some_and(|choices| choices.contains(&nothing))
        });
        let mut open = if takes_null {
            whole
        } else {
            json!({"anyOf": [whole, nothing]})
        };
        for (key, value) in [("description", about), ("examples", examples)] {
            if let Some(value) = value {
                open[key] = value;
            }
        }
        *property = open;
    }
}

fn of<S: Spec>() -> Value {
    let kind = S::KIND.to_string();
    let mut schema = root::<Document<S>>(&kind);
    let about = S::json_schema(&mut SchemaGenerator::default()).to_value();
    schema["description"] = about["description"].clone();
    // The envelope's type allows every kind; a document at this path has exactly one.
    schema["properties"]["kind"] =
        json!({"const": kind, "description": "What the document is about."});
    if let Some(types) = schema["$defs"].as_object_mut() {
        types.remove("Kind");
    }
    polish(&mut schema);
    schema
}

/// Returns the schema of a whole file, with the title that editors show.
pub(crate) fn root<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    schema["title"] = json!(title);
    polish(&mut schema);
    schema
}

/// Adapts a schema for editors: descriptions lose the line breaks of the sources, and an optional switch or counter
/// shows its default; another optional field has none.
pub(crate) fn polish(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(text)) = fields.get_mut("description") {
                *text = text
                    .replace("\n\n", "\0")
                    .replace('\n', " ")
                    .replace('\0', "\n\n");
            }
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            let required = fields.get("required").cloned().unwrap_or_default();
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                properties
                    .iter_mut()
                    .for_each(|(name, property)| show_default(name, &required, property));
            }
            fields.values_mut().for_each(polish);
        }
        Value::Array(items) => items.iter_mut().for_each(polish),
        _ => {}
    }
}

fn show_default(name: &str, required: &Value, property: &mut Value) {
    let is_required = required
        .as_array()
        .is_some_and(|names| names.iter().any(|required| required == name));
    let default = match property.get("type").and_then(Value::as_str) {
        Some("boolean") => json!(false),
        Some("integer") => json!(0),
        _ => return,
    };
    if let Some(property) = property.as_object_mut().filter(|_| !is_required) {
        property.entry("default").or_insert(default);
    }
}
