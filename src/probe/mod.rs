//! Round-trip times and loss, by ICMP echo over IPv6 and IPv4.
//!
//! [`Prober::current`] answers at once with the last result; a task of its own sends the echoes, so
//! many targets at a time and spread over the interval. A target is an address and the interface it
//! is reached through: two tunnels may well have the same link-local address at their far end, and
//! one ASN may have two tunnels.

mod icmp;
mod prober;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::model::InterfaceName;

pub use icmp::IcmpPing;
pub use prober::Prober;

/// Whom to probe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The interface that the echoes must leave by and the replies come in by. A link-local address
    /// means nothing without one; none leaves the way to the routing table.
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

/// How often and how patiently to probe.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// The time between two probes of one target.
    pub interval: Duration,
    /// How many echoes make a probe.
    pub count: u16,
    /// How long each echo may take.
    pub timeout: Duration,
    /// How many targets are probed at the same time.
    pub concurrency: usize,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        // A probe of a dead target takes 6.5 s, so a thousand dead ones still fit into the interval.
        Self {
            interval: Duration::from_secs(300),
            count: 4,
            timeout: Duration::from_secs(5),
            concurrency: 32,
        }
    }
}

/// What one probe found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// The median of the round-trip times in milliseconds (the mean of the middle two when their
    /// number is even); none when nothing came back. The median, because the first echo often waits
    /// for a handshake or for neighbour discovery and says nothing about the path.
    pub rtt_ms: Option<f64>,
    /// The share of echoes without reply, 0 to 1.
    pub loss: f32,
    /// When the probe ended.
    pub at: Timestamp,
}

impl Probe {
    /// Sums up the echoes of one probe: a time for each reply, none for each that was lost.
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
    // At most 65535 echoes, so nothing is cut.
    let count = |number: usize| f32::from(u16::try_from(number).unwrap_or(u16::MAX));
    if sent == 0 {
        0.0
    } else {
        count(sent - received) / count(sent)
    }
}

/// Sends echoes. Tests have one that answers from memory.
#[async_trait]
pub trait Ping: Send + Sync {
    /// Sends `settings.count` echoes to the target. Each comes back with its time, or as none when no
    /// reply came within `settings.timeout`, or it could not even be sent for want of a route.
    async fn ping(
        &self,
        target: &Target,
        settings: &ProbeSettings,
    ) -> Result<Vec<Option<Duration>>, ProbeError>;
}

/// Why a target could not be probed at all; this is no loss.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The system grants no socket.
    #[error("open an ICMP socket to probe {target}: {source}; {}", advice(source))]
    Socket {
        /// Whom to probe.
        target: Target,
        /// The system's words.
        source: std::io::Error,
    },
    /// A link-local address without an interface.
    #[error("probe {target}: a link-local address needs the interface it is reached through")]
    NoInterface {
        /// Whom to probe.
        target: Target,
    },
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
    fn the_round_trip_time_is_the_median_and_one_slow_echo_does_not_move_it() {
        assert_eq!(probe(&[Some(900), Some(10), Some(12)]), (Some(12.0), 0.0));
        assert_eq!(
            probe(&[Some(900), Some(10), Some(12), Some(11)]),
            (Some(11.5), 0.0)
        );
    }

    #[test]
    fn what_does_not_come_back_is_counted_and_does_not_count_as_time() {
        assert_eq!(probe(&[None, Some(10), None, None]), (Some(10.0), 0.75));
        assert_eq!(probe(&[None, None]), (None, 1.0));
        assert_eq!(probe(&[]), (None, 0.0));
    }
}
