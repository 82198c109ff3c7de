use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::controller::world::HeldChange;
use crate::model::InterfaceName;

/// What the local API asks of the agent. Each method of it answers a call (semantics, section 4).
#[async_trait]
pub trait AgentApi: Send + Sync {
    /// What `GET /status` says.
    async fn status(&self) -> StatusView;

    /// Starts a sync and does not wait for it; calls that come meanwhile coalesce.
    async fn trigger_sync(&self) -> Result<(), ApiRefusal>;

    /// Re-creates exactly this interface and its BGP session; returns when both are configured again.
    async fn restart(&self, interface: InterfaceName) -> Result<(), ApiRefusal>;

    /// Whether the router is drained. While it is, `/sync` and `/restart` are refused before they
    /// get here.
    async fn maintenance(&self) -> MaintenanceView;

    /// Drains the router, or ends that. Idempotent.
    async fn set_maintenance(&self, enabled: bool) -> Result<(), ApiRefusal>;

    /// The metrics as Prometheus text.
    async fn metrics(&self) -> String;

    /// Whether the agent has read its state and converges.
    async fn ready(&self) -> bool;
}

/// Why the agent does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiRefusal {
    /// No session of ours has this interface.
    #[error("no session has the interface {0}; `moenet-agent get` lists them")]
    UnknownInterface(InterfaceName),
    /// The router is drained.
    #[error("the router is in maintenance mode; POST /maintenance/stop ends it")]
    Maintenance,
    /// It was tried and failed; the text says what to do.
    #[error("{0}")]
    Failed(String),
}

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// `ok`.
    pub status: String,
    /// The agent's version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// Whole seconds since the agent started.
    pub uptime: u64,
    /// Who the router is.
    pub node: NodeView,
    /// How many sessions there are.
    pub sessions: SessionCounts,
    /// `closed`, `open` or `half-open`.
    pub circuit_breaker: String,
    /// The sessions that an override changes, as `wg_4242421080: spec.tunnel.mtu`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    /// The overrides that are in force, with what the documents say beside what is here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<OverrideView>,
    /// Changes that wait for `moenet-agent approve`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldView>,
    /// What the operator ought to know, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// A change that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldView {
    /// The object, as `sessions/wg_4242421080` or `node`; what `approve` takes.
    pub object: String,
    /// What would happen: `removal`, or the fields with both values.
    pub change: String,
    /// Why it waits.
    pub reason: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl From<HeldChange> for HeldView {
    fn from(held: HeldChange) -> Self {
        Self {
            object: held.key.to_string(),
            change: held.change,
            reason: held.reason,
            since: held.since,
        }
    }
}

/// An override that is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverrideView {
    /// The object, as `sessions/wg_4242421080`.
    pub object: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether nothing is written for the object.
    pub paused: bool,
    /// The fields that it sets.
    pub fields: Vec<OverriddenField>,
}

/// One field that an override sets. A specification names files in `secrets/` and holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverriddenField {
    /// The field, as `spec.tunnel.mtu`.
    pub field: String,
    /// Its value here; `null` where the override takes it away.
    pub value: Value,
    /// What the Control Plane's document says, or the operator's own; `null` where it says nothing.
    pub document: Value,
}

/// Who the router is; `null` where nobody has said yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its number.
    pub id: Option<u16>,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub region: Option<String>,
}

/// How many sessions there are (semantics, section 4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SessionCounts {
    /// All known.
    pub total: u64,
    /// Configured, and healthy in configuration.
    pub active: u64,
    /// Those that cannot be configured.
    pub error: u64,
    /// Those that wait for approval, setup or removal.
    pub pending: u64,
}

/// `GET /maintenance`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MaintenanceView {
    /// Drained or not.
    pub enabled: bool,
    /// Since when, in RFC 3339 UTC.
    pub since: Option<Timestamp>,
}
