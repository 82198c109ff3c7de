//! The looking glass, as the API needs it: routes, ping and trace. Off unless the configuration has a token for it.

use std::net::IpAddr;

use async_trait::async_trait;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::TokenSource;

/// What the looking glass asks the router.
#[async_trait]
pub trait LookingGlass: Send + Sync {
    /// The token that opens it.
    fn token(&self) -> &TokenSource;

    /// Returns whether echoes may be sent to an address: it is in DN42's space, or in a range of the policy.
    fn may_reach(&self, address: IpAddr) -> bool;

    /// Returns BIRD's routes to a network.
    async fn route(&self, net: IpNet) -> Result<RouteView, GlassError>;

    /// Sends a few echoes.
    async fn ping(&self, target: IpAddr) -> Result<PingView, GlassError>;

    /// Returns the routers on the way.
    async fn trace(&self, target: IpAddr) -> Result<TraceView, GlassError>;
}

/// Why the router cannot answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlassError {
    #[error("BIRD does not answer: {0}")]
    Bird(String),
    #[error("{0}")]
    Probe(String),
}

/// The routes to a network, as BIRD prints them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// The network or address.
    pub target: String,
    /// Lines of BIRD; none: it has no route.
    pub lines: Vec<String>,
    /// Whether more lines were left out.
    pub cut: bool,
}

/// The answers to a few echoes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PingView {
    /// The address.
    pub target: String,
    /// Echoes that were sent; fewer than asked for without a route.
    pub sent: u64,
    /// The time of each answer, in milliseconds.
    pub times_ms: Vec<f64>,
}

/// The routers on the way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceView {
    /// The address.
    pub target: String,
    /// Whether the target has answered, as the last hop.
    pub reached: bool,
    /// The hops in their order; `null` for one that does not answer.
    pub hops: Vec<Option<HopView>>,
}

/// A router on the way.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HopView {
    /// Where the answer came from.
    pub address: String,
    /// The time of the answer, in milliseconds.
    pub time_ms: f64,
}
