use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::document::{Kind, Spec};

/// Whether the router is drained (RFC 8326). Editing this document does the same
/// as the calls of the local API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceSpec {
    /// Drained or not.
    #[serde(default)]
    pub enabled: bool,
    /// Start of the drain, in RFC 3339. Default: when the agent first saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"), example = "2026-11-23T20:00:00Z")]
    pub since: Option<Timestamp>,
}

impl Spec for MaintenanceSpec {
    const KIND: Kind = Kind::Maintenance;

    fn minimal() -> Value {
        json!({})
    }

    fn patch_example() -> Option<Value> {
        None
    }
}
