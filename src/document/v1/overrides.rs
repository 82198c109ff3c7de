use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::document::{Kind, Spec};

/// An operator's override of one document: a merge patch on its specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OverrideSpec {
    /// The reason, for readers of this file in a year.
    #[serde(deserialize_with = "super::rules::not_blank")]
    #[schemars(
        regex(pattern = r"\S"),
        example = "their side is on PPPoE until January"
    )]
    pub reason: String,
    /// The kind of the overridden document, where neither a folder nor the name says it: `apply -f` needs it if documents
    /// of several kinds have the name. In a state directory the folder says the kind.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::rules::overridable"
    )]
    #[schemars(
        with = "Option<String>",
        extend("enum" = ["BgpSession", "MeshPeer", "IbgpPeer", "Node", "RoutingPolicy", null]),
        example = &"MeshPeer"
    )]
    pub target_kind: Option<Kind>,
    /// When the override expires, in RFC 3339. Absent: never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::rules::moment"
    )]
    #[schemars(with = "Option<String>", extend("format" = "date-time"), example = "2027-01-31T00:00:00Z")]
    pub expires_at: Option<Timestamp>,
    /// Pause (hands off): observe and plan, and change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// A JSON Merge Patch (RFC 7396) on the specification: `tunnel: {mtu: 1380}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(example = serde_json::json!({"tunnel": {"mtu": 1380}}))]
    pub set: Map<String, Value>,
}

impl Spec for OverrideSpec {
    const KIND: Kind = Kind::Override;

    fn minimal() -> Value {
        json!({"reason": "sample"})
    }

    fn patch_example() -> Option<Value> {
        None
    }

    fn target(&self) -> Option<Kind> {
        self.target_kind
    }
}

impl OverrideSpec {
    /// Returns whether the override is in effect at this time.
    pub fn in_effect(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}
