//! Holds answers of a server to its own description in OpenAPI.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use serde_json::{Value, json};

/// A description, and what it says of answers.
pub struct Description(Value);

/// The local API.
pub static LOCAL: LazyLock<Description> =
    LazyLock::new(|| Description(moenet_agent::http::openapi()));

/// The Control Plane API.
pub static CONTROL_PLANE: LazyLock<Description> =
    LazyLock::new(|| Description(moenet_agent::fleet::openapi()));

impl Description {
    /// The operations of a path, if it is described.
    fn item(&self, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap();
        let paths = self.0["paths"].as_object().unwrap();
        let matches = |template: &str| {
            let (wanted, given) = (template.split('/'), path.split('/'));
            wanted.clone().count() == given.clone().count()
                && wanted.zip(given).all(|(wanted, given)| {
                    wanted.starts_with('{') && !given.is_empty() || wanted == given
                })
        };
        let found = paths.iter().filter(|(template, _)| matches(template));
        // A path without parameters has precedence.
        found
            .min_by_key(|(template, _)| template.contains('{'))
            .map(|(_, item)| item)
    }

    /// Panics unless the description has this answer.
    pub fn check(&self, method: &str, path: &str, status: u16, headers: &HeaderMap, body: &str) {
        let shown = format!("{method} {path}: {status} {body}");
        let operation = self
            .item(path)
            .and_then(|item| item.get(method.to_ascii_lowercase()));
        let Some(operation) = operation else {
            // The door refuses before the path is looked at.
            assert!([400, 401, 404, 405, 413, 429].contains(&status), "{shown}");
            if method != "HEAD" {
                self.check_body("ErrorBody", body, &shown);
            }
            return;
        };
        let response = &operation["responses"][status.to_string()];
        let content = response["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("not described: {shown}"));
        let (kind, content) = content.iter().next().unwrap();
        assert_eq!(headers["content-type"].to_str().unwrap(), kind, "{shown}");
        for name in response["headers"]
            .as_object()
            .into_iter()
            .flat_map(|all| all.keys())
        {
            assert!(headers.contains_key(name.as_str()), "{name}: {shown}");
        }
        if let Some(reference) = content["schema"]["$ref"].as_str() {
            let (_, name) = reference.rsplit_once('/').unwrap();
            self.check_body(name, body, &shown);
        }
    }

    fn check_body(&self, schema: &str, body: &str, shown: &str) {
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {shown}"));
        let errors = self.errors(schema, &body);
        assert!(errors.is_empty(), "{shown}\nis no {schema}: {errors:?}");
    }

    /// What is wrong with a value of a schema.
    pub fn errors(&self, schema: &str, value: &Value) -> Vec<String> {
        let reference = format!("#/components/schemas/{schema}");
        let root = json!({"$ref": reference, "components": self.0["components"]});
        let validator = jsonschema::validator_for(&root).unwrap();
        let errors = validator.iter_errors(value);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }
}
