//! The way to a target: one echo for each number of hops, all at once.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use socket2::Type;
use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};

use super::icmp::{PAYLOAD, check_scope};
use super::{ProbeError, Target};

/// The most hops of a trace.
const MOST_HOPS: u8 = 30;

/// A router on the way, or the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The sender of the answer.
    pub address: IpAddr,
    pub time: Duration,
    /// Whether the target has answered the echo.
    pub is_target: bool,
}

/// Returns the hops up to the target; `None` for each that does not answer. Without an answer of the target the hops end with
/// the last one that has answered.
///
/// # Errors
/// The system grants no raw socket: only those receive the answers of routers. Or an echo could not be sent, and no other was
/// answered.
pub async fn trace(target: &Target, timeout: Duration) -> Result<Vec<Option<Hop>>, ProbeError> {
    let asked = (1..=MOST_HOPS).map(|hops| ask(target, hops, timeout));
    let (mut hops, mut unsent) = (Vec::new(), None);
    for answer in join_all(asked).await {
        hops.push(match answer {
            Err(error @ ProbeError::Unsent { .. }) => {
                unsent.get_or_insert(error);
                None
            }
            answer => answer?,
        });
    }
    match unsent {
        Some(error) if hops.iter().all(Option::is_none) => Err(error),
        _ => Ok(way(hops)),
    }
}

/// Ends the list with the target, or with the last hop that answered. A router that rejects the target answers all later
/// echoes too, and is one hop.
fn way(mut hops: Vec<Option<Hop>>) -> Vec<Option<Hop>> {
    let is_target = |hop: &Option<Hop>| hop.is_some_and(|hop| hop.is_target);
    let end = hops.iter().position(is_target);
    let end = end.or_else(|| hops.iter().rposition(Option::is_some));
    hops.truncate(end.map_or(0, |end| end + 1));
    if let Some(Some(last)) = hops.last().copied().filter(|last| !is_target(last)) {
        let of_others = |hop: &Option<Hop>| hop.is_some_and(|hop| hop.address != last.address);
        let others = hops.iter().rposition(of_others).map_or(0, |at| at + 1);
        let first = hops.iter().skip(others).position(Option::is_some);
        hops.truncate(others + first.unwrap_or_default() + 1);
    }
    hops
}

async fn ask(target: &Target, hops: u8, timeout: Duration) -> Result<Option<Hop>, ProbeError> {
    let client = raw_socket(target, hops)?;
    let identifier = PingIdentifier(rand::random());
    let mut pinger = client.pinger(target.address, identifier).await;
    let pinger = pinger.timeout(timeout);
    match pinger.ping(PingSequence(hops.into()), &PAYLOAD).await {
        Ok((packet, time)) => Ok(Some(Hop {
            address: sender(&packet),
            time,
            is_target: is_reply(&packet),
        })),
        Err(SurgeError::IOError(source)) => Err(ProbeError::Unsent {
            target: target.clone(),
            source,
        }),
        Err(_) => Ok(None),
    }
}

/// Opens a raw socket for echoes that live for some hops. The library falls back to a datagram socket, which would hear nothing
/// of the routers on the way.
fn raw_socket(target: &Target, hops: u8) -> Result<Client, ProbeError> {
    let not_raw = || ProbeError::NotRaw {
        target: target.clone(),
    };
    check_scope(target)?;
    let kind = if target.address.is_ipv6() {
        ICMP::V6
    } else {
        ICMP::V4
    };
    let mut config = Config::builder().kind(kind);
    if let Some(interface) = &target.interface {
        config = config.interface(interface.as_str());
    }
    let config = config.ttl(hops.into()).sock_type_hint(Type::RAW);
    match Client::new(&config.build()) {
        Ok(client) if client.get_socket().get_type() == Type::RAW => Ok(client),
        Ok(_) => Err(not_raw()),
        Err(source) if source.kind() == ErrorKind::PermissionDenied => Err(not_raw()),
        Err(source) => Err(ProbeError::Socket {
            target: target.clone(),
            source,
        }),
    }
}

/// Returns whether it is a reply of the target. A router that sends "unreachable" also quotes the echo.
fn is_reply(packet: &IcmpPacket) -> bool {
    // ICMP type 0 (RFC 792) and ICMPv6 type 129 (RFC 4443, section 4.2) are the echo replies.
    match packet {
        IcmpPacket::V4(packet) => packet.get_icmp_type().0 == 0,
        IcmpPacket::V6(packet) => packet.get_icmpv6_type().0 == 129,
    }
}

fn sender(packet: &IcmpPacket) -> IpAddr {
    match packet {
        IcmpPacket::V4(packet) => packet.get_source().into(),
        IcmpPacket::V6(packet) => packet.get_source().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn way_ends_with_the_target_or_the_last_answer() {
        let hop = |is_target| {
            Some(Hop {
                address: "10.0.0.1".parse().unwrap(),
                time: Duration::ZERO,
                is_target,
            })
        };
        let length = |hops: &[Option<Hop>]| way(hops.to_vec()).len();
        assert_eq!(length(&[hop(false), None, hop(true), hop(true)]), 3);
        assert_eq!(length(&[hop(false), None, None]), 1);
        assert_eq!(length(&[None, None]), 0);
    }

    #[test]
    fn router_that_rejects_the_target_is_one_hop() {
        let hop = |last: u8| {
            Some(Hop {
                address: [10, 0, 0, last].into(),
                time: Duration::ZERO,
                is_target: false,
            })
        };
        let ways = [
            (
                vec![hop(1), hop(2), hop(2), None, hop(2)],
                vec![hop(1), hop(2)],
            ),
            (vec![None, hop(2), hop(2), None], vec![None, hop(2)]),
            (
                vec![hop(1), None, hop(2), hop(2)],
                vec![hop(1), None, hop(2)],
            ),
            // A loop is shown.
            (vec![hop(1), hop(2), hop(1)], vec![hop(1), hop(2), hop(1)]),
        ];
        for (answers, wanted) in ways {
            assert_eq!(way(answers), wanted);
        }
    }
}
