//! The fields of a JSON Schema, each with its type, range, default and description: what the manual page of the
//! configuration, the commented configuration and `explain` say of it.

use serde_json::{Map, Value};

/// Depth at which references are no longer followed.
const DEEPEST: usize = 8;

/// A JSON Schema, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Schema<'a> {
    root: &'a Value,
    at: Map<String, Value>,
}

/// One field of an object.
#[derive(Debug, Clone)]
pub(super) struct Field<'a> {
    pub(super) name: String,
    pub(super) is_required: bool,
    pub(super) schema: Schema<'a>,
}

impl<'a> Schema<'a> {
    /// Returns the whole schema.
    pub(super) fn of(root: &'a Value) -> Self {
        Self::resolved(root, root)
    }

    /// Returns a part of a schema. What the part says of itself replaces what its type says.
    fn resolved(root: &'a Value, part: &Value) -> Self {
        let mut at = part.as_object().cloned().unwrap_or_default();
        for _ in 0..DEEPEST {
            let Some(below) = target(root, &mut at) else {
                break;
            };
            for (key, value) in below {
                at.entry(key).or_insert(value);
            }
        }
        Self { root, at }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.at.get(key)?.as_str()
    }

    /// Returns the description, as one line.
    pub(super) fn description(&self) -> String {
        let text = self.text("description").unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Returns the default, if there is a value.
    pub(super) fn default(&self) -> Option<&Value> {
        self.at.get("default").filter(|value| !value.is_null())
    }

    /// Returns the first example.
    pub(super) fn example(&self) -> Option<&Value> {
        self.at.get("examples")?.as_array()?.first()
    }

    /// Returns the type in words: `integer`, `list of strings`.
    pub(super) fn type_name(&self) -> String {
        let named = match self.at.get("type") {
            Some(Value::String(name)) => name.clone(),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                let names: Vec<_> = names.filter(|name| *name != "null").collect();
                names.join(" or ")
            }
            _ if self.values().is_empty() => "any value".to_owned(),
            _ => "string".to_owned(),
        };
        match (named.as_str(), self.items(), self.entries()) {
            ("array", Some(items), _) => format!("list of {}", items.type_name()),
            ("object", _, Some(entries)) => format!("map of {}", entries.type_name()),
            _ => named,
        }
    }

    /// Returns the range of a number in words, if it has one.
    pub(super) fn range(&self) -> Option<String> {
        let limit = |key: &str| self.at.get(key).map(ToString::to_string);
        match (limit("minimum"), limit("maximum")) {
            (Some(least), Some(most)) => Some(format!("{least} to {most}")),
            (Some(least), None) if least != "0" => Some(format!("at least {least}")),
            (None, Some(most)) => Some(format!("at most {most}")),
            _ => None,
        }
    }

    /// Returns the allowed words, each with its description.
    pub(super) fn values(&self) -> Vec<(String, String)> {
        let plain = self.at.get("enum").and_then(Value::as_array);
        let plain = plain.into_iter().flatten().filter_map(Value::as_str);
        let described = self.at.get("oneOf").and_then(Value::as_array);
        let described = described.into_iter().flatten().flat_map(|one| {
            let one = Self::resolved(self.root, one);
            let description = one.description();
            let word = one.text("const").map(str::to_owned);
            let own = word.map(|word| (word, description));
            own.into_iter().chain(match one.at.contains_key("oneOf") {
                true => Vec::new(),
                false => one.values(),
            })
        });
        plain
            .map(|word| (word.to_owned(), String::new()))
            .chain(described)
            .collect()
    }

    /// Returns the fields of an object, or of the objects of a list or a map.
    pub(super) fn fields(&self) -> Vec<Field<'a>> {
        let Some(fields) = self.at.get("properties").and_then(Value::as_object) else {
            let inner = self.items().or_else(|| self.entries());
            return inner.map(|inner| inner.fields()).unwrap_or_default();
        };
        let required = self.at.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|it| it == name));
        let field = |(name, part): (&String, &Value)| Field {
            name: name.clone(),
            is_required: is_required(name),
            schema: Self::resolved(self.root, part),
        };
        fields.iter().map(field).collect()
    }

    /// Returns whether it is a list.
    pub(super) fn is_list(&self) -> bool {
        self.items().is_some()
    }

    /// Returns the schema of a list's items.
    fn items(&self) -> Option<Self> {
        let items = self.at.get("items").filter(|items| items.is_object())?;
        Some(Self::resolved(self.root, items))
    }

    /// Returns the schema of a map's values.
    fn entries(&self) -> Option<Self> {
        let entries = self.at.get("additionalProperties");
        let entries = entries.filter(|entries| entries.is_object())?;
        Some(Self::resolved(self.root, entries))
    }
}

/// Takes the reference out of a part, also one behind "or null", and returns its target.
fn target(root: &Value, at: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    if let Some(Value::String(reference)) = at.remove("$ref") {
        let target = root.pointer(reference.strip_prefix('#')?)?;
        return target.as_object().cloned();
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        let is_null = |one: &&Value| one.get("type").is_some_and(|it| it == "null");
        let choices = at.get(key).and_then(Value::as_array);
        let choices: Vec<_> = choices
            .into_iter()
            .flatten()
            .filter(|it| !is_null(it))
            .collect();
        let [only] = choices.as_slice() else { continue };
        if only.get("const").is_some() {
            continue;
        }
        let only = only.as_object().cloned();
        at.remove(key);
        return only;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Kind;
    use crate::util::schemas;

    fn field<'a>(root: &'a Value, path: &[&str]) -> Field<'a> {
        let mut schema = Schema::of(root);
        let mut found = None;
        for name in path {
            let fields = schema.fields().into_iter();
            let field = fields
                .into_iter()
                .find(|field| field.name == *name)
                .unwrap();
            schema = field.schema.clone();
            found = Some(field);
        }
        found.unwrap()
    }

    #[test]
    fn references_and_nulls_are_resolved() {
        let root = schemas::value("Config");
        let asn = field(&root, &["node", "asn"]);
        assert_eq!(asn.schema.type_name(), "integer");
        assert_eq!(asn.schema.description(), "This router's AS number.");
        assert_eq!(asn.schema.range().unwrap(), "1 to 4294967294");
        assert!(asn.schema.default().is_none(), "null is no default");
        assert!(field(&root, &["node"]).is_required);
        let backend = field(&root, &["wireguard", "backend"]).schema;
        let words: Vec<_> = backend.values().into_iter().map(|(word, _)| word).collect();
        assert_eq!(words, ["auto", "kernel", "userspace"]);
        assert_eq!(backend.default().unwrap(), "auto");
    }

    #[test]
    fn fields_of_a_document_are_found_at_any_depth() {
        let root = schemas::value("BgpSession");
        let mtu = field(&root, &["spec", "tunnel", "mtu"]).schema;
        assert_eq!(mtu.type_name(), "integer");
        assert!(!mtu.description().is_empty());
    }

    #[test]
    fn every_schema_is_walked_to_its_leaves() {
        fn walk(schema: &Schema<'_>, depth: usize) -> usize {
            assert!(depth < 10, "{schema:?}");
            let fields = schema.fields();
            fields
                .iter()
                .map(|field| 1 + walk(&field.schema, depth + 1))
                .sum()
        }
        for kind in Kind::ALL {
            assert!(
                walk(&Schema::of(&schemas::value(&kind.to_string())), 0) > 5,
                "{kind}"
            );
        }
    }
}
