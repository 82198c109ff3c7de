//! Lists the valid keys of an answer of the reference dialect, from its schema, to find misspelled ones in files that people write.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::super::FieldError;
use crate::document::unknown_field;
use crate::util::schemas;
use crate::util::sorted::Sorted as _;
use crate::wire::Call;

/// An object of a body: its known keys, each with the object inside it or inside its list.
#[derive(Debug, Default)]
struct Shape(BTreeMap<String, Option<Shape>>);

impl Shape {
    /// Returns the object that a schema describes, also as one of its forms or in a list. `root` has the schemas that it
    /// refers to.
    fn read(root: &Value, schema: &Value) -> Option<Self> {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let keys = properties.iter();
            let keys = keys.map(|(key, inside)| (key.clone(), Self::read(root, inside)));
            return Some(Self(keys.sorted_map()));
        }
        let target = schema.get("$ref").and_then(Value::as_str);
        let target = target.and_then(|target| root.pointer(target.strip_prefix('#')?));
        let forms = schema.get("anyOf").and_then(Value::as_array);
        let forms = forms.into_iter().flatten();
        let mut inside = forms.chain(schema.get("items")).chain(target);
        inside.find_map(|schema| Self::read(root, schema))
    }
}

/// The part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A session of `GET sessions`.
    Session,
    /// A peer of `GET mesh`.
    MeshPeer,
    /// `node` of `GET config`.
    Node,
    /// `node` of `GET bird-config`.
    PolicyNode,
    /// `policy` of `GET bird-config`.
    Policy,
    /// An internal neighbour of `GET bird-config`.
    IbgpPeer,
}

impl Part {
    /// In the order of their numbers.
    const ALL: [Self; 6] = [
        Self::Session,
        Self::MeshPeer,
        Self::Node,
        Self::PolicyNode,
        Self::Policy,
        Self::IbgpPeer,
    ];

    /// Returns the name of its schema in the description of the API.
    fn schema(self) -> &'static str {
        match self {
            Self::Session => "Session",
            Self::MeshPeer => "MeshPeer",
            Self::Node => "Node",
            Self::PolicyNode => "PolicyNode",
            Self::Policy => "Policy",
            Self::IbgpPeer => "IbgpPeer",
        }
    }

    fn shape(self) -> &'static Shape {
        static SHAPES: LazyLock<[Shape; 6]> = LazyLock::new(|| {
            let api = schemas::value("openapi-control-plane");
            Part::ALL.map(|part| {
                let schema = &api["components"]["schemas"][part.schema()];
                Shape::read(&api, schema).unwrap_or_default()
            })
        });
        &SHAPES[self as usize]
    }

    /// Returns the unknown keys of this part, each with the nearest known one. An agent ignores them, so a
    /// misspelled field silently takes its default.
    pub fn unknown_keys(self, value: &Value) -> Vec<FieldError> {
        let mut found = Vec::new();
        collect(self.shape(), value, "", &mut found);
        found
    }
}

/// Returns the top-level keys of an answer, including the key of its list or object.
pub fn top_keys(call: Call) -> &'static [&'static str] {
    match call {
        Call::Sessions => &["sessions"],
        Call::Mesh => &["peers"],
        Call::Config => &["node"],
        Call::BirdConfig => &["configHash", "node", "policy", "ibgpPeers"],
        Call::Heartbeat | Call::Report | Call::Modify | Call::Drain => &[],
    }
}

pub fn unknown_key(path: String, key: &str, known: &[&str]) -> FieldError {
    FieldError {
        field: path,
        message: unknown_field(key, known),
    }
}

fn collect(shape: &Shape, value: &Value, prefix: &str, found: &mut Vec<FieldError>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let path = format!("{prefix}{key}");
        let inner = match shape.0.get(key) {
            Some(Some(inner)) => inner,
            Some(None) => continue,
            None => {
                let known: Vec<&str> = shape.0.keys().map(String::as_str).collect();
                found.push(unknown_key(path, key, &known));
                continue;
            }
        };
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    collect(inner, item, &format!("{path}[{index}]."), found);
                }
            }
            other => collect(inner, other, &format!("{path}."), found),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelled_key_names_the_nearest_known_one() {
        let session = json!({"uuid": "a", "mtuu": 1400, "credential": {"publickey": "x"}});
        let found = Part::Session.unknown_keys(&session);
        let texts: Vec<String> = found
            .into_iter()
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect();
        assert_eq!(
            texts,
            [
                "mtuu: unknown field `mtuu`, did you mean `mtu`?",
                "credential.publickey: unknown field `publickey`, did you mean `publicKey`?",
            ]
        );
    }

    #[test]
    fn keys_inside_lists_are_checked() {
        let policy = json!({"rpkiServers": [{"host": "a", "port": 1}, {"hots": "b", "port": 1}]});
        let found = Part::Policy.unknown_keys(&policy);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].field, "rpkiServers[1].hots");
    }
}
