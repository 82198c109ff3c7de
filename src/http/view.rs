//! What the web page shows of the objects.

use jiff::Timestamp;
use serde::Serialize;

use crate::controller::provenance::Field;
use crate::document::Condition;
use crate::status::Cause;

/// One object in a list.
#[derive(Debug, Default, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRow {
    /// As `sessions/wg_4242421080`.
    pub object: String,
    pub asn: Option<String>,
    pub description: String,
    pub phase: String,
    /// Whether an operator should look at it.
    pub is_bad: bool,
    /// State of the BGP session.
    pub bgp: Option<String>,
    /// Since when the BGP session is in its state.
    pub since: Option<Timestamp>,
    pub rtt_ms: Option<f64>,
    /// Share of lost echoes, 0 to 1.
    pub loss: Option<f64>,
    pub routes_imported: Option<u64>,
    pub routes_exported: Option<u64>,
    pub received_bytes: Option<u64>,
    pub sent_bytes: Option<u64>,
    /// What is wrong, root cause first.
    pub causes: Vec<Cause>,
}

/// One object in full.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectView {
    pub row: ObjectRow,
    pub conditions: Vec<Condition>,
    /// Every field with the origin of its value.
    pub fields: Vec<Field>,
    /// The reason of the override in effect.
    pub override_reason: Option<String>,
    pub override_expires: Option<Timestamp>,
    /// The steps that the controller would run now.
    pub plan: Vec<String>,
    /// Why there is no plan, or what it waits for.
    pub plan_note: Option<String>,
    /// The steps of the last plan that was not empty.
    pub last_steps: Vec<String>,
    /// Transitions of conditions and commits of the history, the newest first.
    pub events: Vec<ObjectEvent>,
    /// Why the events lack the history.
    pub history_error: Option<String>,
}

/// What happened to an object.
#[derive(Debug, Serialize)]
pub struct ObjectEvent {
    pub time: Timestamp,
    /// The condition, or the author of the commit.
    pub of: String,
    /// The condition's new status, or the commit.
    pub what: String,
    pub message: String,
}

/// A change of an object's phase, or its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PhaseChange {
    /// As `sessions/wg_4242421080`.
    pub object: String,
    /// The new phase; absent when the object is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}
