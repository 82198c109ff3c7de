//! The fields of a session that an operator reviews: those that its owner may set, without secrets.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::tagged;
use crate::model::PublicKey;
use crate::wire::WireStatus;
use crate::wire::reference::written_status;

/// The fields of an owner without a secret, but its public key.
const SHOWN: [&str; 8] = [
    "endpoint",
    "listenPort",
    "mtu",
    "ipv6LinkLocal",
    "ipv6",
    "ipv4",
    "description",
    "extensions",
];

/// A session that waits for review.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Review {
    /// The version of these fields, for `tag` of a change.
    pub(crate) tag: String,
    /// The fields, without secrets.
    pub(crate) spec: Map<String, Value>,
}

impl Review {
    /// Returns the review of a session; `None` if it does not wait.
    pub(super) fn of(item: &Value) -> Option<Self> {
        let waits = written_status(item) == Some(WireStatus::PendingReview);
        waits.then(|| Self {
            tag: tag(item),
            spec: shown(item),
        })
    }
}

/// Returns the version of the fields and the status of a session in a file.
pub(super) fn tag(item: &Value) -> String {
    let reviewed = json!([item.get("asn"), item.get("status"), shown(item)]);
    let tag = tagged::tag(reviewed.to_string().as_bytes());
    tag.trim_matches('"').to_owned()
}

/// Returns the fields that an owner may set and see.
pub(super) fn shown(item: &Value) -> Map<String, Value> {
    let fields = SHOWN.iter().filter_map(|name| {
        let value = item.get(*name)?;
        Some(((*name).to_owned(), value.clone()))
    });
    let mut shown: Map<String, Value> = fields.collect();
    let key = item.pointer("/credential/publicKey");
    let text = item.get("credential").and_then(Value::as_str);
    let text: Option<PublicKey> = text.and_then(|text| text.parse().ok());
    let key = key.cloned().or_else(|| text.map(|key| json!(key)));
    shown.extend(key.map(|key| ("publicKey".to_owned(), key)));
    shown
}
