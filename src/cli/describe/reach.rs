//! Active probes. A few packets, sent only for a session that is not up; they change nothing at either end.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use crate::intervals::REACH_ANSWER;
use crate::model::InterfaceName;
use crate::sources::probe::{IcmpPing, Ping, ProbeSettings, Target, open};

/// The network's answer to a datagram to an endpoint; silence gives no information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// No process listens on that port (ICMP port unreachable, RFC 792 and RFC 4443).
    Closed,
    /// The network has no path to it, in the system's words.
    Unreachable(String),
    /// This router itself has no route to it, in the system's words.
    NoRoute(String),
}

/// All nodes on the link (RFC 4291, section 2.7.1). WireGuard links deliver it although they have no
/// multicast flag, which is also how Babel works over them.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// Sends an endpoint an empty datagram, which no WireGuard answers. A connected socket receives ICMP errors
/// (udp(7)); silence means nothing.
pub(super) async fn datagram(endpoint: SocketAddr) -> Option<Answer> {
    let any: IpAddr = match endpoint {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    // A connect sends nothing: it fails because of this router's routes.
    if let Err(error) = socket.connect(endpoint).await {
        return match judged(&error) {
            Some(Answer::Unreachable(why)) => Some(Answer::NoRoute(why)),
            other => other,
        };
    }
    // A datagram may be lost, and routers limit their ICMP errors.
    for _ in 0..2 {
        if let Err(error) = socket.send(&[]).await {
            return judged(&error);
        }
        if let Ok(Err(error)) = timeout(REACH_ANSWER, socket.recv(&mut [0; 1])).await {
            return judged(&error);
        }
    }
    None
}

fn judged(error: &std::io::Error) -> Option<Answer> {
    match error.kind() {
        ErrorKind::ConnectionRefused => Some(Answer::Closed),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Some(Answer::Unreachable(error.to_string()))
        }
        _ => None,
    }
}

/// Returns whether an address answers an echo. `None`: none could be sent.
pub(super) async fn echo(address: IpAddr, interface: &InterfaceName) -> Option<bool> {
    let target = Target {
        address,
        interface: Some(interface.clone()),
    };
    let settings = ProbeSettings {
        count: 2,
        timeout: REACH_ANSWER,
        ..ProbeSettings::default()
    };
    let answers = IcmpPing.ping(&target, &settings).await.ok()?;
    Some(answers.iter().any(Option::is_some))
}

/// Returns the addresses that answer an echo to all nodes of a link, including this router's.
pub(super) async fn everybody(interface: &InterfaceName, index: u32) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let target = Target {
        address: ALL_NODES.into(),
        interface: Some(interface.clone()),
    };
    let Ok((socket, _)) = open(&target) else {
        return found;
    };
    // The kernel writes the checksum (RFC 3542, section 3.1), and on a datagram socket the identifier too, so
    // the answers are recognised by the payload of the echo.
    let cookie: [u8; 16] = rand::random();
    let request = [[ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 1].as_slice(), &cookie].concat();
    let everybody = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    if socket.send_to(&request, everybody).await.is_err() {
        return found;
    }
    let end = Instant::now() + REACH_ANSWER;
    let mut answer = [0; 256];
    while let Ok(Ok((length, from))) = timeout_at(end, socket.recv_from(&mut answer)).await {
        let answer = answer.get(..length).unwrap_or_default();
        if answer.first() == Some(&ECHO_REPLY) && answer.get(8..) == Some(&cookie[..]) {
            found.insert(from.ip());
        }
    }
    found
}
