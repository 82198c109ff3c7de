//! Round-trip times and loss, by ICMP echo over IPv6 and IPv4.
//!
//! [`Prober::current`] returns the last result at once; a separate task sends the echoes, to a limited number of
//! targets at a time and spread over the interval. A target is an address and the interface
//! through which it is reached: two tunnels may have the same link-local address at their far end, and
//! one ASN may have two tunnels.

mod icmp;
mod prober;
mod trace;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::intervals::{ECHO_TIMEOUT, PROBE_INTERVAL};
use crate::model::InterfaceName;

pub use icmp::{Echo, IcmpPing, open};
pub use prober::Prober;
pub use trace::{Hop, trace};

/// A probed address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The interface for echoes and replies. A link-local address requires one; with `None`
    /// the routing table decides.
    pub interface: Option<InterfaceName>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Settings of the probes.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// The time between two probes of one target.
    pub interval: Duration,
    /// Number of echoes per probe.
    pub count: u16,
    pub timeout: Duration,
    /// Number of targets probed at the same time.
    pub concurrency: usize,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: PROBE_INTERVAL,
            count: 4,
            timeout: ECHO_TIMEOUT,
            concurrency: 32,
        }
    }
}

/// The result of one probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// The median of the round-trip times in milliseconds (the mean of the middle two when their
    /// number is even); `None` without any reply. The median, because the first echo often waits
    /// for a handshake or for neighbour discovery and says nothing about the path.
    pub rtt_ms: Option<f64>,
    /// The share of echoes without reply, 0 to 1.
    pub loss: f32,
    /// When the probe ended.
    pub at: Timestamp,
}

impl Probe {
    /// Summarises the echoes of one probe: a time for each reply, `None` for each lost echo.
    pub fn new(echoes: &[Option<Duration>], at: Timestamp) -> Self {
        let mut times: Vec<f64> = echoes
            .iter()
            .flatten()
            .map(|time| time.as_secs_f64() * 1e3)
            .collect();
        times.sort_by(f64::total_cmp);
        Self {
            rtt_ms: median(&times),
            loss: loss(echoes.len(), times.len()),
            at,
        }
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

fn loss(sent: usize, received: usize) -> f32 {
    // At most 65535 echoes, so the conversion loses nothing.
    let count = |number: usize| f32::from(u16::try_from(number).unwrap_or(u16::MAX));
    if sent == 0 {
        0.0
    } else {
        count(sent - received) / count(sent)
    }
}

/// Sends echoes. Tests use one that answers from memory.
#[async_trait]
pub trait Ping: Send + Sync {
    /// Sends `settings.count` echoes to the target. Returns the time of each, or `None` when no
    /// reply arrived within `settings.timeout`, or the echo could not be sent because there is no route.
    async fn ping(
        &self,
        target: &Target,
        settings: &ProbeSettings,
    ) -> Result<Vec<Option<Duration>>, ProbeError>;
}

/// Reason why a target could not be probed at all; this is not loss.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The system granted no socket.
    #[error("open an ICMP socket to probe {target}: {source}; {}", advice(source))]
    Socket {
        target: Target,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Only raw sockets receive the answers of routers on the way.
    #[error("trace {target}: the system grants no raw socket; give the agent CAP_NET_RAW")]
    NotRaw { target: Target },
    /// No echo left this machine.
    #[error(
        "send an echo to {target}: {source}; check that a route leads there and no filter drops it"
    )]
    Unsent {
        target: Target,
        source: std::io::Error,
    },
    /// A link-local address without an interface.
    #[error("probe {target}: a link-local address needs the interface it is reached through")]
    NoInterface { target: Target },
}

fn advice(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "give the agent CAP_NET_RAW, or its group a place in the sysctl net.ipv4.ping_group_range"
        }
        _ => "check that the interface exists and that the address family is enabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(milliseconds: &[Option<u64>]) -> (Option<f64>, f32) {
        let echoes: Vec<_> = milliseconds
            .iter()
            .map(|ms| ms.map(Duration::from_millis))
            .collect();
        let probe = Probe::new(&echoes, Timestamp::UNIX_EPOCH);
        (probe.rtt_ms, probe.loss)
    }

    #[test]
    fn one_slow_echo_does_not_move_the_median() {
        assert_eq!(probe(&[Some(900), Some(10), Some(12)]), (Some(12.0), 0.0));
        assert_eq!(
            probe(&[Some(900), Some(10), Some(12), Some(11)]),
            (Some(11.5), 0.0)
        );
    }

    #[test]
    fn lost_echoes_count_as_loss_and_not_as_time() {
        assert_eq!(probe(&[None, Some(10), None, None]), (Some(10.0), 0.75));
        assert_eq!(probe(&[None, None]), (None, 1.0));
        assert_eq!(probe(&[]), (None, 0.0));
    }
}
