//! The schemas in `schemas/` are what the types say, every field of them is explained, and every document
//! in `state/` and `examples/` keeps to them. `UPDATE_SCHEMAS=1` writes them anew.

mod rules;
mod samples;
mod types;

use std::fs;
use std::path::{Path, PathBuf};

use moenet_agent::cli::schemas;
use moenet_agent::config;
use serde_json::{Value, json};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(name: &str) -> PathBuf {
    repository().join("schemas").join(format!("{name}.json"))
}

fn text(schema: &Value) -> String {
    serde_json::to_string_pretty(schema).unwrap() + "\n"
}

/// Calls with every subschema and its path, from the root down.
fn walk(path: &str, value: &Value, seen: &mut impl FnMut(&str, &Value)) {
    seen(path, value);
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| walk(&format!("{path}/{key}"), value, seen)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, value)| walk(&format!("{path}/{at}"), value, seen));
        }
        _ => {}
    }
}

#[test]
fn the_schemas_on_disk_are_what_the_types_say() {
    for (name, schema) in schemas() {
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs::create_dir_all(repository().join("schemas")).unwrap();
            fs::write(file(&name), text(&schema)).unwrap();
        }
        let there = fs::read_to_string(file(&name)).unwrap_or_default();
        assert!(
            there == text(&schema),
            "schemas/{name}.json is out of date; UPDATE_SCHEMAS=1 writes it"
        );
    }
}

#[test]
fn there_is_no_schema_of_nothing() {
    let known: Vec<_> = schemas().into_iter().map(|(name, _)| file(&name)).collect();
    for entry in fs::read_dir(repository().join("schemas")).unwrap() {
        let path = entry.unwrap().path();
        // `openapi::` has the descriptions of the APIs.
        let name = path.file_name().unwrap().to_str().unwrap();
        let ours = name.ends_with(".json") && !name.starts_with("openapi-");
        assert!(
            !ours || known.contains(&path),
            "{} belongs to no type",
            path.display()
        );
    }
}

#[test]
fn every_schema_is_one_of_draft_2020_12() {
    for (name, schema) in schemas() {
        assert_eq!(
            schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
            "{name}"
        );
        assert!(jsonschema::meta::is_valid(&schema), "{name} is no schema");
    }
}

#[test]
fn every_field_is_explained() {
    let mut silent = Vec::new();
    for (name, schema) in schemas() {
        walk("", &schema, &mut |path, value| {
            let Some(properties) = value.get("properties").and_then(Value::as_object) else {
                return;
            };
            for (field, property) in properties {
                if !is_explained(&schema, property) {
                    silent.push(format!("{name}{path}/properties/{field}"));
                }
            }
        });
    }
    assert!(
        silent.is_empty(),
        "without a description:\n{}",
        silent.join("\n")
    );
}

fn is_explained(root: &Value, property: &Value) -> bool {
    let target = || {
        let reference = property.get("$ref")?.as_str()?.strip_prefix('#')?;
        root.pointer(reference)
    };
    property.get("description").is_some()
        || target().is_some_and(|target| target.get("description").is_some())
}

/// What a person who fills in a field sees: a default, an example, or the words that it may have.
#[test]
fn every_schema_field_with_rules_states_them() {
    let mut bare = Vec::new();
    for (name, schema) in schemas() {
        walk("", &schema, &mut |path, value| {
            let Some(properties) = value.get("properties").and_then(Value::as_object) else {
                return;
            };
            for (field, property) in properties {
                if !shows_a_value(&schema, property) {
                    bare.push(format!("{name}{path}/properties/{field}"));
                }
            }
        });
    }
    assert!(
        bare.is_empty(),
        "without default, example or choice:\n{}",
        bare.join("\n")
    );
}

fn shows_a_value(root: &Value, property: &Value) -> bool {
    let has = |key: &str| property.get(key).is_some();
    if ["default", "examples", "const", "enum", "oneOf"]
        .into_iter()
        .any(has)
    {
        return true;
    }
    // A section is filled in field by field, a list item by item, and a time is a time.
    let is = |kind: &str| property["type"] == kind || property["type"][0] == kind;
    if is("object") || is("boolean") || property["format"] == "date-time" {
        return true;
    }
    let below = |part: &Value| shows_a_value(root, part);
    let target = property["$ref"]
        .as_str()
        .and_then(|to| root.pointer(to.strip_prefix('#')?));
    let choices = property["anyOf"].as_array().into_iter().flatten();
    target.is_some_and(below)
        || choices.into_iter().any(below)
        || (is("array") && below(&property["items"]))
}

#[test]
fn override_accepts_any_part_of_a_spec_and_null() {
    let override_ = |kind: &str, set: Value| {
        let document = json!({
            "apiVersion": "moenet.work/v1", "kind": "Override", "metadata": {"name": "x"},
            "spec": {"reason": "a test", "set": set}
        });
        let (_, schema) = schemas()
            .into_iter()
            .find(|(name, _)| *name == format!("{kind}Override"))
            .unwrap();
        jsonschema::validator_for(&schema)
            .unwrap()
            .is_valid(&document)
    };
    for (kind, set) in [
        ("BgpSession", json!({"tunnel": {"mtu": 1380}})),
        (
            "BgpSession",
            json!({"tunnel": {"endpoint": null}, "description": null}),
        ),
        (
            "BgpSession",
            json!({"adminState": "Disabled", "bgp": {"drained": true, "extensions": ["mp-bgp"]}}),
        ),
        ("BgpSession", json!({})),
        ("MeshPeer", json!({"endpoint": "hk.example.com:23456"})),
        ("IbgpPeer", json!({"isRr": true})),
    ] {
        assert!(override_(kind, set.clone()), "{kind} refuses {set}");
    }
    for (kind, set) in [
        ("BgpSession", json!({"tunnel": {"mtu": 1}})),
        ("BgpSession", json!({"tunnel": {"mtuu": 1380}})),
        ("BgpSession", json!({"mtu": 1380})),
        ("MeshPeer", json!({"tunnel": {"mtu": 1380}})),
        ("IbgpPeer", json!({"isRr": "yes"})),
    ] {
        assert!(!override_(kind, set.clone()), "{kind} takes {set}");
    }
}

#[test]
fn schema_defaults_equal_the_effective_defaults() {
    let (_, schema) = schemas()
        .into_iter()
        .find(|(name, _)| name == "Config")
        .unwrap();
    let mut whole =
        json!({"node": {"name": "jp1"}, "controlPlane": {"url": "https://example.com"}});
    let mut count = 0;
    for (section, property) in schema["properties"].as_object().unwrap() {
        let reference = property["$ref"]
            .as_str()
            .or(property["anyOf"][0]["$ref"].as_str())
            .unwrap();
        let fields = schema.pointer(&reference[1..]).unwrap()["properties"]
            .as_object()
            .unwrap();
        for (field, property) in fields
            .iter()
            .filter(|(_, property)| property.get("default").is_some())
        {
            whole[section][field] = property["default"].clone();
            count += 1;
        }
    }
    let least = "node: {name: jp1}\ncontrolPlane: {url: https://example.com}\n";
    let [least, whole] = [least, &whole.to_string()].map(|text| config::parse(text).unwrap());
    assert_eq!(format!("{least:?}"), format!("{whole:?}"));
    assert!(count > 25, "only {count} defaults are shown");
}

#[test]
fn default_in_a_comment_is_in_the_schema_too() {
    // Defaults that come from another field, from the configuration or from the policy have no value.
    let fixed = |text: &str| {
        let (_, default) = text.split_once("Default: ")?;
        default.trim_end_matches('.').parse::<u64>().ok()
    };
    // In a patch nothing is the default of anything.
    for (name, schema) in schemas()
        .into_iter()
        .filter(|(name, _)| !name.ends_with("Override"))
    {
        walk("", &schema, &mut |path, value| {
            let Some(default) = value
                .get("description")
                .and_then(Value::as_str)
                .and_then(fixed)
            else {
                return;
            };
            assert_eq!(value.get("default"), Some(&default.into()), "{name}{path}");
        });
    }
}

#[test]
fn every_example_keeps_to_its_schema() {
    for (name, schema) in schemas() {
        walk("", &schema, &mut |path, value| {
            let Some(examples) = value.get("examples").and_then(Value::as_array) else {
                return;
            };
            let mut alone = value.clone();
            alone["$defs"] = schema["$defs"].clone();
            let validator = jsonschema::validator_for(&alone).unwrap();
            for example in examples {
                assert!(validator.is_valid(example), "{name}{path}: {example}");
            }
        });
    }
}

/// The schema that a document names in its first line, which is where editors look for it.
fn named_schema(document: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(document).ok()?;
    let name = text
        .lines()
        .next()?
        .strip_prefix("# yaml-language-server: $schema=")?;
    Some(document.parent()?.join(name))
}
