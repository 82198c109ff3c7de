//! What routers post, and which status of a session is served after a post. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Uid;
use crate::wire::WireStatus;
use crate::wire::reference::{identity, write_status, written_status};

/// The last segment of the path that shows a router's posts.
pub(super) const REPORTED: &str = "reported";

/// The newest status of each session, by uuid.
pub(super) type Statuses = BTreeMap<String, ReportedStatus>;

/// The newest status of a session that its router has posted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedStatus {
    /// The session's uuid.
    pub(super) uuid: Uid,
    /// The posted status.
    pub(super) status: WireStatus,
    /// The posted reason.
    pub(super) error: Option<String>,
    /// The status in `sessions.yaml` that the post answered. If the operator changes it, the
    /// operator's status takes precedence.
    pub(super) file_status: Option<WireStatus>,
    /// The time of its arrival.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) at: Timestamp,
}

/// The answer to a post.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct PostDone {
    /// Always `ok`.
    #[schemars(extend("const" = "ok"))]
    pub(super) status: &'static str,
    /// Items of a report that were left out, because a field breaks a rule; an addition to the API.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rejected: Vec<String>,
}

/// A post with the time of its arrival.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Post {
    /// The time of its arrival.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub(super) received_at: Timestamp,
    /// The post, unknown fields included.
    pub(super) body: Value,
}

impl Post {
    /// Reads the post; `None` for one of another kind of agent, which may lack fields.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_value(self.body.clone()).ok()
    }
}

/// The newest posts of a router.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub(super) struct Posts {
    /// The newest heartbeat.
    pub(super) heartbeat: Option<Post>,
    /// The newest report.
    pub(super) report: Option<Post>,
    /// The newest status of each session, by uuid.
    pub(super) sessions: Statuses,
}

/// Returns a body in JSON with U+FFFD for each U+0000, with which PostgreSQL reads no value of the text: one router's
/// post would fail a query about all routers.
pub(super) fn without_nul(body: &[u8]) -> Cow<'_, [u8]> {
    const ESCAPED: &[u8] = br"\u0000";
    let mut body = Cow::Borrowed(body);
    let mut at = 0;
    while let Some(next) = body[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        if body[at..].starts_with(ESCAPED) {
            body.to_mut()[at..at + ESCAPED.len()].copy_from_slice(br"\ufffd");
        }
        // The escaped character too, which may be another backslash.
        at = body.len().min(at + 2);
    }
    body
}

/// Returns the status to serve for a session: the one its router has posted, as long as the file
/// has the same status as at the post. `None`: the session is gone, acknowledged.
pub(super) fn served_status(item: &Value, statuses: &Statuses) -> Option<Option<WireStatus>> {
    match standing(item, statuses) {
        Some(entry) if entry.status == WireStatus::Disabled => None,
        Some(entry) => Some(Some(entry.status)),
        None => Some(written_status(item)),
    }
}

fn standing<'a>(item: &Value, statuses: &'a Statuses) -> Option<&'a ReportedStatus> {
    let entry = statuses.get(identity(item)?.as_str())?;
    (entry.file_status == written_status(item)).then_some(entry)
}

/// Returns whether a post answered another status than the file has now: the operator changed it,
/// and that post is no longer valid, even if the file returns to the earlier status.
pub(super) fn superseded(entry: &ReportedStatus, items: &[Value]) -> bool {
    let mut items = items.iter();
    is_outdated(
        entry,
        items.find(|item| identity(item).as_ref() == Some(&entry.uuid)),
    )
}

/// Returns all posts that are superseded.
pub(super) fn outdated(statuses: &Statuses, items: &[Value]) -> Vec<ReportedStatus> {
    let mut by_uuid = HashMap::new();
    for item in items {
        // Of two items with one uuid the first counts, as in `superseded`.
        if let Some(uuid) = identity(item) {
            by_uuid.entry(uuid).or_insert(item);
        }
    }
    let entries = statuses.values();
    let entries = entries.filter(|entry| is_outdated(entry, by_uuid.get(&entry.uuid).copied()));
    entries.cloned().collect()
}

fn is_outdated(entry: &ReportedStatus, item: Option<&Value>) -> bool {
    item.is_none_or(|item| entry.file_status != written_status(item))
}

/// Applies the routers' posts to the sessions of the file.
pub(super) fn overlay(items: &mut Vec<Value>, statuses: &Statuses) {
    items.retain(|item| served_status(item, statuses).is_some());
    for item in items {
        if let Some(entry) = standing(item, statuses) {
            write_status(item, entry.status, entry.error.as_deref());
        }
    }
}

/// Returns whether a post is a valid answer to the served status. Otherwise it is from a router
/// that has not received the operator's current status yet, and must not undo it.
pub(super) fn applies(posted: WireStatus, served: Option<WireStatus>) -> bool {
    match posted {
        WireStatus::Disabled => served == Some(WireStatus::QueuedForDelete),
        WireStatus::Active | WireStatus::Error => served.is_some_and(WireStatus::takes_error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_replaced_and_nothing_else() {
        let replaced = |body: &str| String::from_utf8(without_nul(body.as_bytes()).into_owned());
        for (body, wanted) in [
            (
                r#"{"a\u0000":"\u0000\u0000b"}"#,
                r#"{"a\ufffd":"\ufffd\ufffdb"}"#,
            ),
            (r#"["\\\u0000","\n\u0001"]"#, r#"["\\\ufffd","\n\u0001"]"#),
            // A backslash, then the digits.
            (r#"["\\u0000"]"#, r#"["\\u0000"]"#),
            (r#"["\u000"#, r#"["\u000"#),
            ("\\", "\\"),
            ("", ""),
        ] {
            assert_eq!(replaced(body).unwrap(), wanted);
        }
    }
}
