//! Lists the valid keys of an answer of the reference dialect, to find misspelled ones in files that people write.

use serde_json::Value;

use super::super::FieldError;
use crate::document::with_nearest;
use crate::wire::Call;

/// An object of a body: its known keys, and its nested objects and lists of objects.
struct Shape {
    keys: &'static [&'static str],
    inside: &'static [(&'static str, &'static Shape)],
}

const SESSION: Shape = Shape {
    keys: &[
        "uuid",
        "asn",
        "status",
        "error",
        "ipv6",
        "ipv6LinkLocal",
        "ipv4",
        "mtu",
        "interface",
        "endpoint",
        "credential",
        "presharedKey",
        "password",
        "name",
        "description",
        "listenPort",
        "port",
        "type",
        "extensions",
        "policy",
        "multihop",
        "importLimit",
        "exportLimit",
    ],
    inside: &[("credential", &CREDENTIAL)],
};

const CREDENTIAL: Shape = Shape {
    keys: &["publicKey", "presharedKey"],
    inside: &[],
};

const MESH_PEER: Shape = Shape {
    keys: &[
        "nodeId",
        "name",
        "nodeName",
        "interface",
        "endpoint",
        "publicKey",
        "listenPort",
        "mtu",
        "loopbackIpv4",
        "loopbackIpv6",
        "isRr",
        "uuid",
    ],
    inside: &[],
};

const IBGP_PEER: Shape = Shape {
    keys: &[
        "nodeId",
        "name",
        "nodeName",
        "loopbackIpv4",
        "loopbackIpv6",
        "isRr",
    ],
    inside: &[],
};

const NODE: Shape = Shape {
    keys: &[
        "id",
        "name",
        "region",
        "asn",
        "loopbackIpv4",
        "loopbackIpv6",
        "linkLocal",
    ],
    inside: &[],
};

const POLICY_NODE: Shape = Shape {
    keys: &[
        "id",
        "name",
        "type",
        "bandwidth",
        "regionCode",
        "continentLc",
        "subregionLc",
        "regionCommunity",
        "bandwidthCommunity",
        "country",
    ],
    inside: &[],
};

const POLICY: Shape = Shape {
    keys: &[
        "dn42As",
        "dn42Ipv4Prefix",
        "dn42Ipv6Prefix",
        "extraRanges",
        "rpkiServers",
        "rejectUnknownRoa",
        "ebgpImportLimit",
        "ebgpExportLimit",
        "ibgpImportLimit",
        "ibgpExportLimit",
        "asPathMaxLen",
    ],
    inside: &[("rpkiServers", &RPKI_SERVER)],
};

const RPKI_SERVER: Shape = Shape {
    keys: &["host", "port"],
    inside: &[],
};

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
    fn shape(self) -> &'static Shape {
        match self {
            Self::Session => &SESSION,
            Self::MeshPeer => &MESH_PEER,
            Self::Node => &NODE,
            Self::PolicyNode => &POLICY_NODE,
            Self::Policy => &POLICY,
            Self::IbgpPeer => &IBGP_PEER,
        }
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
        Call::Heartbeat | Call::Report | Call::Modify => &[],
    }
}

pub fn unknown_key(path: String, key: &str, known: &[&str]) -> FieldError {
    let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    let text = format!(
        "unknown field `{key}`, expected one of {}",
        known.join(", ")
    );
    FieldError {
        field: path,
        message: with_nearest(&text),
    }
}

fn collect(shape: &Shape, value: &Value, prefix: &str, found: &mut Vec<FieldError>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let path = format!("{prefix}{key}");
        if !shape.keys.contains(&key.as_str()) {
            found.push(unknown_key(path, key, shape.keys));
            continue;
        }
        let Some((_, inner)) = shape.inside.iter().find(|(name, _)| name == key) else {
            continue;
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
