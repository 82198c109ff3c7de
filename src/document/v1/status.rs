use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::{ApiVersion, Kind, Metadata};

/// Observations and steps of one object. Written by the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusDocument {
    /// The document's schema version.
    pub api_version: ApiVersion,
    /// The object's kind.
    pub kind: Kind,
    /// The object's metadata.
    pub metadata: Metadata,
    /// Observations and steps.
    pub status: StatusBody,
}

/// Observations and steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusBody {
    /// The document's generation at this status.
    #[serde(default)]
    pub observed_generation: u64,
    /// The one-word summary.
    pub phase: Phase,
    /// Conditions as Kubernetes has them.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The fields that an override sets, as `spec.tunnel.mtu`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["spec.tunnel.mtu"])]
    pub overridden: Vec<String>,
    /// The tunnel, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelStatus>,
    /// The BGP session, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bgp: Option<BgpStatus>,
    /// Round-trip time to the peer in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 25.1)]
    pub rtt_ms: Option<f64>,
    /// The share of echoes to the peer that were lost in the last probe, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.25)]
    pub loss: Option<f64>,
    /// The steps of the last plan that was not empty, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["set MTU of wg_4242421080 to 1380 (tunnel.mtu: want 1380, have 1420)"])]
    pub last_steps: Vec<String>,
    /// The last error, with what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"BIRD configuration failed: syntax error")]
    pub last_error: Option<String>,
}

/// The one-word summary of a status.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Phase {
    /// Not configured: it waits for approval, or was not reconciled yet.
    #[default]
    Pending,
    /// Not configured: its document or an override disables it.
    Disabled,
    /// Being configured.
    Configuring,
    /// Configured in the kernel and in BIRD; the neighbour has not answered yet.
    Configured,
    /// Configured, and the BGP session is up.
    Established,
    /// As desired, with a warning: an import limit hit, a stale handshake.
    Degraded,
    /// Cannot be configured.
    Error,
    /// An override pauses it.
    Paused,
    /// Being removed.
    Deleting,
}

/// Writes the word for the phase, the same in `get`, `describe`, `/status` and the metrics.
impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "Pending",
            Self::Disabled => "Disabled",
            Self::Configuring => "Configuring",
            Self::Configured => "Configured",
            Self::Established => "Established",
            Self::Degraded => "Degraded",
            Self::Error => "Error",
            Self::Paused => "Paused",
            Self::Deleting => "Deleting",
        })
    }
}

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// The condition's type.
    #[serde(rename = "type")]
    pub condition_type: ConditionType,
    /// The condition's status.
    pub status: ConditionStatus,
    /// The reason, one word for programs.
    #[schemars(example = &"NotEstablished")]
    pub reason: String,
    /// The message for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(example = &"ebgp_wg_4242421080 is active: Socket: Connection refused")]
    pub message: String,
    /// What to do about it; absent where nothing is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"ask the peer whether its BGP daemon runs and listens on TCP port 179")]
    pub next_action: Option<String>,
    /// When `status` last changed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_transition_time: Timestamp,
}

/// The type of a condition.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionType {
    /// The document is valid and clashes with no other.
    Accepted,
    /// The object is meant to carry traffic: it is enabled, and neither paused nor drained.
    InService,
    /// The name of the peer's endpoint resolves; in the policy's status, the names of RPKI servers do.
    EndpointResolved,
    /// This host has a route to the peer's endpoint.
    EndpointRouted,
    /// The tunnel is configured.
    TunnelConfigured,
    /// The peer has answered lately.
    HandshakeRecent,
    /// Babel has a neighbour in the tunnel.
    BabelAdjacent,
    /// BIRD runs the session as configured.
    BirdConfigured,
    /// The BGP session is up.
    BgpEstablished,
    /// No limit is exceeded.
    WithinLimits,
    /// A removal waits for approval.
    RemovalHeld,
    /// A change of the node that resets every session waits for approval.
    ChangeHeld,
    /// The history could be written.
    HistoryRecorded,
    /// The documents are read from the tree of the history's branch; while Git has moved the tree, the last ones stay.
    WorkTreeCurrent,
    /// Origins of routes are validated.
    OriginsValidated,
    /// The operator's templates are in use.
    TemplatesAccepted,
    /// No file beside the agent's in BIRD's directory was quarantined.
    BirdFilesAccepted,
    /// The version of BIRD is one that the agent was tested with.
    BirdSupported,
    /// The agent's table in nftables is configured.
    FirewallConfigured,
    /// The kernel forwards packets between tunnels.
    Forwarding,
    /// There is a routing policy; without one BGP sessions import and export no routes (RFC 8212).
    PolicyInEffect,
    /// The router's WireGuard private key can be read.
    KeyAvailable,
    /// The sysctls of the tunnels could be set.
    SysctlsConfigured,
    /// The local API listens on its address.
    ApiListening,
    /// Every list of the Control Plane could be fetched lately.
    ControlPlaneSynced,
    /// The state directory is this host's; False while it looks like a copy of another host's.
    StateDirectoryUnique,
    /// The files of tokens can be read.
    TokensReadable,
    /// Every line of the log could be written lately.
    LogWritten,
}

/// The status of a condition.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionStatus {
    /// The condition is met.
    True,
    /// The condition is not met.
    False,
    /// Unknown.
    Unknown,
}

/// A tunnel as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelStatus {
    /// Time of the last handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_handshake: Option<Timestamp>,
    /// Bytes received.
    #[schemars(example = 48211)]
    pub rx_bytes: u64,
    /// Bytes sent.
    #[schemars(example = 50012)]
    pub tx_bytes: u64,
    /// The peer's current endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"203.0.113.9:51820")]
    pub endpoint: Option<String>,
}

/// A BGP session as observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpStatus {
    /// As in the report: `established`, `active`, `connect`, `idle`, `opensent`, `openconfirm`, `down`.
    #[schemars(example = &"established")]
    pub state: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub since: Option<Timestamp>,
    /// Routes taken from the neighbour, of both families.
    #[schemars(example = 150)]
    pub routes_imported: u64,
    /// Routes announced to the neighbour, of both families.
    #[schemars(example = 10)]
    pub routes_exported: u64,
    /// BIRD's last error of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"Socket: Connection refused")]
    pub last_error: Option<String>,
}
