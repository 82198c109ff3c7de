use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::glass::LookingGlass;
use super::view::{ObjectRow, ObjectView};
pub(crate) use crate::controller::{OverriddenField, OverrideView};
use crate::desired::HeldChange;
use crate::document::{Kind, StatusBody};
use crate::model::{InterfaceName, ObjectName};
pub use crate::sync::SyncView;

/// The interface between the local API and the agent. Each method answers a call (docs/contract/local-api.md#calls).
#[async_trait]
pub trait AgentApi: Send + Sync {
    /// Returns the answer of `GET /status`.
    async fn status(&self) -> StatusView;

    /// Returns the answer of `GET /status/OBJECT`, where an object has a status.
    async fn object_status(&self, kind: Kind, name: &ObjectName) -> Option<StatusBody>;

    /// Returns the looking glass; `None` while it is off.
    fn looking_glass(&self) -> Option<Arc<dyn LookingGlass>> {
        None
    }

    /// Returns the router and its objects, for the web page.
    async fn overview(&self) -> Overview;

    /// Returns an object in full, for the web page.
    async fn object_view(&self, kind: Kind, name: &ObjectName) -> Option<ObjectView>;

    /// Returns a receiver of a number that changes when the status of an object does.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Returns the phase of every object.
    fn phases(&self) -> BTreeMap<String, String>;

    /// Requests a sync without waiting for it; requests that come meanwhile coalesce.
    async fn trigger_sync(&self) -> Result<(), ApiRefusal>;

    /// Recreates exactly this interface and its BGP session; returns when both are configured again.
    async fn restart(&self, interface: InterfaceName) -> Result<(), ApiRefusal>;

    /// Returns whether the router is drained. While it is, `/sync` and `/restart` are refused
    /// before they reach the agent.
    async fn maintenance(&self) -> MaintenanceView;

    /// Asks the Control Plane whether the router may drain. Returns what prevented the question, if it could not be
    /// asked.
    async fn may_drain(&self, force: bool) -> Result<Option<String>, ApiRefusal>;

    /// Drains or undrains the router. Idempotent. Returns once BIRD has confirmed, or after 5 s.
    /// The request is recorded in any case.
    async fn set_maintenance(&self, enabled: bool) -> Result<Confirmation, ApiRefusal>;

    /// Returns the metrics as Prometheus text.
    async fn metrics(&self) -> String;

    /// Returns whether the agent has read its state and converges.
    async fn ready(&self) -> bool;
}

/// Result of a wait for BIRD's confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmation {
    /// BIRD runs the requested state.
    Confirmed,
    /// BIRD has not confirmed yet; the text names the missing part.
    Pending(String),
}

/// Why the agent refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiRefusal {
    /// No session of this router has this interface.
    #[error("no session has the interface {0}; `moenet-agent get` lists them")]
    UnknownInterface(InterfaceName),
    /// The router is drained.
    #[error("router is in maintenance: run `moenet-agent maintenance stop` first")]
    Maintenance,
    /// A budget of the network forbids the drain.
    #[error("the Control Plane refuses the drain: {0}")]
    DrainRefused(String),
    /// BIRD does not answer; the request is recorded, and takes effect when BIRD answers.
    #[error(
        "BIRD cannot be configured: {0}; the request is recorded and takes effect as soon as BIRD \
         answers"
    )]
    BirdUnavailable(String),
    /// The attempt failed; the text has the advice.
    #[error("{0}")]
    Failed(String),
}

/// `GET /status`. Its size is bounded: long lists are cut, and end with a count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// `ok`, `degraded` or `failed`.
    pub status: String,
    /// Reasons why the status is not `ok`, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The agent's version.
    pub version: String,
    /// The commit of the build.
    pub commit: String,
    /// Whole seconds since the agent started.
    pub uptime: u64,
    /// The identity of the router.
    pub node: NodeView,
    /// Number of sessions by state.
    pub sessions: SessionCounts,
    /// External BGP sessions by state: `established`, `active`, `connect`, `idle`, `opensent`, `openconfirm`, `down`.
    pub bgp: BTreeMap<String, u64>,
    /// All objects by phase, as `get` shows it.
    pub phases: BTreeMap<String, u64>,
    /// `closed`, `open` or `half-open`.
    pub circuit_breaker: String,
    /// Drained or not.
    pub maintenance: MaintenanceView,
    /// The BIRD daemon.
    pub bird: BirdView,
    /// The last fetch of each list, by its name in the API: `sessions`, `mesh`, `config`, `bird-config`.
    pub last_sync: BTreeMap<String, ListView>,
    /// The syncs that `/sync` requested.
    pub sync: SyncView,
    /// Changes that wait for `moenet-agent approve`.
    pub held: Vec<HeldView>,
    /// Number of held changes, also of those that the list leaves out.
    pub held_total: u64,
    /// Everything the agent waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitView>,
    /// The sessions that an override changes, as `wg_4242421080: spec.tunnel.mtu`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    /// The overrides in effect, with the effective and the documents' values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<OverrideView>,
    /// Number of overrides in effect, also of those that the list leaves out.
    pub overrides_total: u64,
    /// Notices for the operator, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// The router and all its objects.
#[derive(Debug, Default, Serialize)]
pub struct Overview {
    pub status: StatusView,
    pub objects: Vec<ObjectRow>,
}

/// The BIRD daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BirdView {
    /// Whether BIRD answers on its control socket.
    pub running: bool,
    /// The version of the running daemon.
    pub version: Option<String>,
    /// Why BIRD does not answer, with the path of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The last fetch of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListView {
    /// Time of the last success since the agent started.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_success: Option<Timestamp>,
    /// Number of failures since the last success.
    pub consecutive_failures: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// Time of the next attempt, while the fetch fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub retry_at: Option<Timestamp>,
}

/// A held change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldView {
    /// The object, as `sessions/wg_4242421080` or `node`; what `approve` takes.
    pub object: String,
    /// The change: `removal`, or the fields with both values.
    pub change: String,
    /// Why the change is held.
    pub reason: String,
    /// Start of the wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
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

/// A wait of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitView {
    /// The object that waits, as `node`.
    pub object: String,
    /// What the object waits for, with its path or name.
    pub waits_for: String,
    /// Advice for the operator.
    pub action: String,
}

/// The identity of the router; `null` where it is not known yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NodeView {
    /// The number of the node.
    pub id: Option<u16>,
    /// The name of the node.
    pub name: String,
    /// The region of the node.
    pub region: Option<String>,
}

/// Number of sessions by state (docs/contract/local-api.md#status).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SessionCounts {
    /// All known sessions.
    pub total: u64,
    /// Configured, and healthy in configuration.
    pub active: u64,
    /// Sessions that cannot be configured.
    pub error: u64,
    /// Sessions that wait for approval, setup or removal.
    pub pending: u64,
}

/// `GET /maintenance`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MaintenanceView {
    /// Drained or not.
    pub enabled: bool,
    /// Start of the drain, in RFC 3339 UTC.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub since: Option<Timestamp>,
}

/// The content type of Prometheus' text format.
pub(crate) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer of `/sync`.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(super) struct SyncTriggered {
    /// Always `sync_triggered`.
    #[schemars(extend("const" = "sync_triggered"))]
    pub(super) status: &'static str,
}

/// The answer of `/healthz` and `/readyz`.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(super) struct Ready {
    /// Always `ok`.
    #[schemars(extend("const" = "ok"))]
    pub(super) status: &'static str,
}

/// The answer of `/maintenance/start` and `/maintenance/stop`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct MaintenanceDone {
    /// `pending`: BIRD has not confirmed yet.
    #[schemars(extend("enum" = ["ok", "pending"]))]
    pub(super) status: &'static str,
    /// The state, and what is missing.
    pub(super) message: String,
    /// Why the Control Plane was not asked before the drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) warning: Option<String>,
}

/// The body of `/maintenance/start`, which may be left out.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DrainBody {
    /// Whether the router drains even if a budget of the network forbids it.
    pub(super) force: bool,
}

/// The body of `/restart`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct RestartBody {
    /// The interface of a session or of a backbone tunnel.
    pub(super) interface: InterfaceName,
}

/// The answer of `/restart`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct RestartDone {
    /// Always `ok`.
    #[schemars(extend("const" = "ok"))]
    pub(super) status: &'static str,
    /// The interface.
    pub(super) interface: InterfaceName,
}
