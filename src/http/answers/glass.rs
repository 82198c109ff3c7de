//! The answers of the looking glass.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;

use crate::bird::Client;
use crate::config::{Config, TokenSource};
use crate::controller::Context;
use crate::http::glass::{GlassError, HopView, LookingGlass, PingView, RouteView, TraceView};
use crate::intervals::GLASS_ECHO;
use crate::model::is_dn42;
use crate::sources::probe::{Echo, IcmpPing, ProbeSettings, Target, trace};
use crate::telemetry::chain;

/// The most lines of BIRD in an answer.
const LINES: usize = 200;
/// Echoes of a ping.
const ECHOES: u16 = 4;

/// The looking glass of a running agent.
pub(crate) struct Glass {
    pub(crate) token: TokenSource,
    bird: Client,
    context: Arc<Context>,
}

impl Glass {
    /// Returns the looking glass of this configuration; `None`: it is off.
    pub(crate) fn of(config: &Config, bird: &Client, context: &Arc<Context>) -> Option<Self> {
        let glass = config.server.looking_glass.as_ref()?;
        Some(Self {
            token: glass.token_source(),
            bird: bird.clone(),
            context: Arc::clone(context),
        })
    }
}

#[async_trait]
impl LookingGlass for Glass {
    fn token(&self) -> &TokenSource {
        &self.token
    }

    fn may_reach(&self, address: IpAddr) -> bool {
        let desired = self.context.desired();
        let extra = &desired.router_documents.policy.spec.extra_ranges;
        let mut extra = extra.iter();
        is_dn42(address) || extra.any(|range| range.contains(address))
    }

    async fn route(&self, net: IpNet) -> Result<RouteView, GlassError> {
        let lines = self.bird.routes_to(net).await;
        let mut lines = lines.map_err(|error| GlassError::Bird(chain(&error)))?;
        let cut = lines.len() > LINES;
        lines.truncate(LINES);
        Ok(RouteView {
            target: net.to_string(),
            lines,
            cut,
        })
    }

    async fn ping(&self, address: IpAddr) -> Result<PingView, GlassError> {
        let settings = ProbeSettings {
            count: ECHOES,
            timeout: GLASS_ECHO,
            ..ProbeSettings::default()
        };
        let echoes = IcmpPing.echoes(&target(address), &settings).await;
        let echoes = echoes.map_err(|error| GlassError::Probe(error.to_string()))?;
        let sent = echoes.iter().filter(|echo| **echo != Echo::Unsent).count();
        if sent == 0 {
            return Err(GlassError::Probe(format!(
                "no echo to {address} could be sent; check that a route leads there and no filter drops it"
            )));
        }
        let times = echoes.iter().filter_map(|echo| echo.time());
        Ok(PingView {
            target: address.to_string(),
            sent: sent as u64,
            times_ms: times.map(milliseconds).collect(),
        })
    }

    async fn trace(&self, address: IpAddr) -> Result<TraceView, GlassError> {
        let hops = trace(&target(address), GLASS_ECHO).await;
        let hops = hops.map_err(|error| GlassError::Probe(error.to_string()))?;
        let last = hops.last().copied().flatten();
        let view = |hop: crate::sources::probe::Hop| HopView {
            address: hop.address.to_string(),
            time_ms: milliseconds(hop.time),
        };
        Ok(TraceView {
            target: address.to_string(),
            reached: last.is_some_and(|hop| hop.is_target),
            hops: hops.into_iter().map(|hop| hop.map(view)).collect(),
        })
    }
}

/// By the routing table, as any packet of this router.
fn target(address: IpAddr) -> Target {
    Target {
        address,
        interface: None,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
