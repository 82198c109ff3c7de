//! The schemas in `schemas/` are what the types say, every field of them is explained, and every document
//! in `state/` and `examples/` keeps to them. `UPDATE_SCHEMAS=1` writes them anew.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "schemas/rules.rs"]
mod rules;
#[path = "schemas/samples.rs"]
mod samples;
mod support;
#[path = "schemas/types.rs"]
mod types;

use std::fs;
use std::path::{Path, PathBuf};

use moenet_agent::document::{Kind, schema, status_schema};
use serde_json::Value;

/// Every schema by the name of its file. The schema of the configuration joins here.
fn schemas() -> Vec<(String, Value)> {
    let kinds = Kind::ALL.into_iter().map(|kind| (kind.to_string(), schema(kind)));
    kinds.chain([("Status".to_owned(), status_schema())]).collect()
}

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
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| walk(&format!("{path}/{key}"), value, seen))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| walk(&format!("{path}/{at}"), value, seen));
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
        assert!(there == text(&schema), "schemas/{name}.json is out of date; UPDATE_SCHEMAS=1 writes it");
    }
}

#[test]
fn there_is_no_schema_of_nothing() {
    let known: Vec<_> = schemas().into_iter().map(|(name, _)| file(&name)).collect();
    for entry in fs::read_dir(repository().join("schemas")).unwrap() {
        let path = entry.unwrap().path();
        let ours = path.extension().is_some_and(|extension| extension == "json");
        assert!(!ours || known.contains(&path), "{} belongs to no type", path.display());
    }
}

#[test]
fn every_schema_is_one_of_draft_2020_12() {
    for (name, schema) in schemas() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert!(jsonschema::meta::is_valid(&schema), "{name} is no schema");
    }
}

#[test]
fn every_field_is_explained() {
    let mut silent = Vec::new();
    for (name, schema) in schemas() {
        walk("", &schema, &mut |path, value| {
            let Some(properties) = value.get("properties").and_then(Value::as_object) else { return };
            for (field, property) in properties {
                if !is_explained(&schema, property) {
                    silent.push(format!("{name}{path}/properties/{field}"));
                }
            }
        });
    }
    assert!(silent.is_empty(), "without a description:\n{}", silent.join("\n"));
}

fn is_explained(root: &Value, property: &Value) -> bool {
    let target = || {
        let reference = property.get("$ref")?.as_str()?.strip_prefix('#')?;
        root.pointer(reference)
    };
    property.get("description").is_some()
        || target().is_some_and(|target| target.get("description").is_some())
}

#[test]
fn a_default_that_is_told_in_words_is_there_for_editors_too() {
    // Defaults that come from another field, from the configuration or from the policy have no value.
    let fixed = |text: &str| {
        let (_, default) = text.split_once("Default: ")?;
        default.trim_end_matches('.').parse::<u64>().ok()
    };
    for (name, schema) in schemas() {
        walk("", &schema, &mut |path, value| {
            let Some(default) = value.get("description").and_then(Value::as_str).and_then(fixed) else {
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
            let Some(examples) = value.get("examples").and_then(Value::as_array) else { return };
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
    let name = text.lines().next()?.strip_prefix("# yaml-language-server: $schema=")?;
    Some(document.parent()?.join(name))
}
