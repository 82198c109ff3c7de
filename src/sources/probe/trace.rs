//! The way to a target: one echo for each number of hops, all at once.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use socket2::Type;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::icmp::{HEAD, MESSAGE_MAX, body, check_scope, reply_type, request, socket};
use super::{ProbeError, Target};

/// The most hops of a trace.
const MOST_HOPS: u8 = 30;

/// Length of an IPv6 header.
const IPV6_HEADER: usize = 40;

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
    let socket = raw_socket(target, hops)?;
    let echo = request(target.address, rand::random(), hops.into());
    let sent = Instant::now();
    let address = SocketAddr::new(target.address, 0);
    if let Err(source) = socket.send_to(&echo, address).await {
        let target = target.clone();
        return Err(ProbeError::Unsent { target, source });
    }
    let mut message = [0; MESSAGE_MAX];
    while let Ok(received) = timeout_at(sent + timeout, socket.recv_from(&mut message)).await {
        // An error is one that an echo caused.
        let Ok((length, from)) = received else {
            continue;
        };
        let message = message.get(..length).unwrap_or_default();
        if let Some(is_target) = answer(target.address, &echo, message) {
            return Ok(Some(Hop {
                address: from.ip(),
                time: sent.elapsed(),
                is_target,
            }));
        }
    }
    Ok(None)
}

/// Opens a raw socket for echoes that live for some hops.
fn raw_socket(target: &Target, hops: u8) -> Result<UdpSocket, ProbeError> {
    check_scope(target)?;
    let open = || {
        let socket = socket(target, Type::RAW)?;
        match target.address {
            IpAddr::V4(_) => socket.set_ttl_v4(hops.into())?,
            IpAddr::V6(_) => socket.set_unicast_hops_v6(hops.into())?,
        }
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|source: io::Error| {
        let target = target.clone();
        match source.kind() {
            ErrorKind::PermissionDenied => ProbeError::NotRaw { target },
            _ => ProbeError::Socket { target, source },
        }
    })
}

/// Returns whether a message answers an echo: `true` for the reply of the target, `false` for the error of a router, which
/// quotes the echo.
fn answer(target: IpAddr, echo: &[u8], message: &[u8]) -> Option<bool> {
    let message = if target.is_ipv4() {
        body(message)?
    } else {
        message
    };
    let rest = message.get(HEAD..)?;
    // Identifier and number.
    let of_echo = |head: &[u8]| head.get(4..HEAD) == echo.get(4..HEAD);
    let quoted = match (target, *message.first()?) {
        (_, kind) if kind == reply_type(target) => return of_echo(message).then_some(true),
        // Unreachable, time exceeded and parameter problem (RFC 792; RFC 4443, section 3).
        (IpAddr::V4(_), 3 | 11 | 12) => body(rest)?,
        (IpAddr::V6(_), 1..=4) => rest.get(IPV6_HEADER..)?,
        _ => return None,
    };
    (quoted.first() == echo.first() && of_echo(quoted)).then_some(false)
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

    #[test]
    fn answers_are_replies_and_errors_that_quote_the_echo() {
        for (target, header, errors) in [("10.0.0.1", 20, [3, 11, 12]), ("fd00::1", 40, [1, 3, 4])]
        {
            let target: IpAddr = target.parse().unwrap();
            let echo = request(target, 0x1234, 7);
            // An IPv4 packet of five words; a raw socket of IPv6 receives no header.
            let packet =
                |message: &[u8]| [&[0x45; 20][..target.is_ipv4() as usize * 20], message].concat();
            let mut reply = echo;
            reply[0] = reply_type(target);
            assert_eq!(answer(target, &echo, &packet(&reply)), Some(true));
            assert_eq!(answer(target, &echo, &packet(&echo)), None, "a request");
            let quoting = |kind, echo: &[u8]| {
                packet(&[&[kind, 0, 0, 0, 0, 0, 0, 0], &[0x45; 40][..header], echo].concat())
            };
            for kind in errors {
                assert_eq!(answer(target, &echo, &quoting(kind, &echo)), Some(false));
                assert_eq!(answer(target, &echo, &quoting(kind, &reply)), None);
                let other = request(target, 0x1234, 8);
                assert_eq!(answer(target, &echo, &quoting(kind, &other)), None);
                let message = quoting(kind, &echo);
                for length in 0..message.len() - 56 {
                    assert_eq!(
                        answer(target, &echo, &message[..length]),
                        None,
                        "{length} bytes"
                    );
                }
            }
        }
    }
}
