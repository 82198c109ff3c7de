use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::controller::world::HeldChange;
use crate::model::InterfaceName;

/// What the local API asks of the agent. Each method of it answers a call (docs/contract/local-api.md#calls).
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

    /// Drains the router, or ends that. Idempotent. Returns once BIRD has confirmed, or after 5 s. What is asked
    /// is written down in any case.
    async fn set_maintenance(&self, enabled: bool) -> Result<Confirmation, ApiRefusal>;

    /// The metrics as Prometheus text.
    async fn metrics(&self) -> String;

    /// Whether the agent has read its state and converges.
    async fn ready(&self) -> bool;
}

/// How far BIRD has got with what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmation {
    /// BIRD runs it.
    Confirmed,
    /// BIRD is slow; this is missing.
    Pending(String),
}

/// Why the agent does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiRefusal {
    /// No session of ours has this interface.
    #[error("no session has the interface {0}; `moenet-agent get` lists them")]
    UnknownInterface(InterfaceName),
    /// The router is drained.
    #[error("router is in maintenance: run `moenet-agent maintenance stop` first")]
    Maintenance,
    /// BIRD cannot be told; what was asked is written down, and takes effect when it can.
    #[error(
        "BIRD cannot be told: {0}; the request is written down and takes effect as soon as BIRD answers"
    )]
    BirdUnavailable(String),
    /// It was tried and failed; the text says what to do.
    #[error("{0}")]
    Failed(String),
}

/// `GET /status`. Its size is bounded: long lists are cut, and end with a count.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// `ok`, `degraded` or `failed`.
    pub status: String,
    /// Why it is not `ok`, the worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
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
    /// The syncs that `/sync` asked for.
    pub sync: SyncView,
    /// Changes that wait for `moenet-agent approve`.
    pub held: Vec<HeldView>,
    /// Number of held changes, also of those that the list leaves out.
    pub held_total: u64,
    /// What the agent waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitView>,
    /// The sessions that an override changes, as `wg_4242421080: spec.tunnel.mtu`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    /// The overrides that are in force, with what the documents say beside what is here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<OverrideView>,
    /// Number of overrides in effect, also of those that the list leaves out.
    pub overrides_total: u64,
    /// What the operator ought to know, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// The BIRD daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BirdView {
    /// Whether it answers on its control socket.
    pub running: bool,
    /// The version of the running daemon.
    pub version: Option<String>,
    /// Why it does not answer, with the path of the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The last fetch of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListView {
    /// When it last succeeded, since the agent started.
    pub last_success: Option<Timestamp>,
    /// Failures since then.
    pub consecutive_failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
    /// When it is tried again, while it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

/// The syncs that `/sync` asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SyncView {
    /// Number of the last request.
    pub requested: u64,
    /// Number of the last request that is finished.
    pub finished: u64,
    /// When that was.
    pub at: Option<Timestamp>,
    /// Sessions in the list.
    pub sessions: u64,
    /// Documents that the sync changed.
    pub changed: u64,
    /// Why it failed.
    pub error: Option<String>,
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

/// Something that the agent waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitView {
    /// The object that waits, as `node`.
    pub object: String,
    /// What it waits for, with its path or name.
    pub waits_for: String,
    /// What to do about it.
    pub action: String,
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its number.
    pub id: Option<u16>,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub region: Option<String>,
}

/// How many sessions there are (docs/contract/local-api.md#status).
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
