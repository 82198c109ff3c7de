use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::{Ping, ProbeError, ProbeSettings, Target};
use crate::intervals::ECHO_SPACING;

/// Payload of an echo, of the same size as that of `ping`.
const PAYLOAD: [u8; 56] = [0; 56];
/// Length of the head of an echo: type, code, checksum, identifier and number (RFC 792; RFC 4443, section 4.1).
pub(super) const HEAD: usize = 8;
/// More than an IP header with options, and an echo.
pub(super) const MESSAGE_MAX: usize = 256;

/// Sends real echoes.
///
/// Uses an unprivileged datagram socket if the system grants one (`net.ipv4.ping_group_range`, for both
/// families), else a raw one (`CAP_NET_RAW`). Each probe has its own socket: on a datagram socket
/// the kernel selects the identifier, so replies from the same link-local address on two tunnels could
/// not be distinguished on a shared one. It is connected to the target: a datagram socket then keeps the route, and to find
/// one in `fe80::/64` takes 0.2 ms with a thousand tunnels.
#[derive(Debug, Default, Clone, Copy)]
pub struct IcmpPing;

#[async_trait]
impl Ping for IcmpPing {
    async fn ping(
        &self,
        target: &Target,
        settings: &ProbeSettings,
    ) -> Result<Vec<Option<Duration>>, ProbeError> {
        let echoes = self.echoes(target, settings).await?;
        Ok(echoes.into_iter().map(Echo::time).collect())
    }
}

/// What became of one echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// The reply came after this time.
    Answered(Duration),
    /// It was sent, and no reply came.
    Lost,
    /// It could not be sent, such as without a route.
    Unsent,
}

impl Echo {
    /// Returns the time to the reply.
    pub fn time(self) -> Option<Duration> {
        match self {
            Self::Answered(time) => Some(time),
            Self::Lost | Self::Unsent => None,
        }
    }
}

impl IcmpPing {
    /// Sends `settings.count` echoes to the target, and returns what became of each.
    ///
    /// # Errors
    /// The target cannot be probed at all.
    pub async fn echoes(
        &self,
        target: &Target,
        settings: &ProbeSettings,
    ) -> Result<Vec<Echo>, ProbeError> {
        check_scope(target)?;
        let failed = |source| ProbeError::Socket {
            target: target.clone(),
            source,
        };
        let (socket, is_raw) = open(target).map_err(failed)?;
        if let Err(error) = socket.connect(SocketAddr::new(target.address, 0)).await {
            tracing::trace!(%target, %error, "no route for an echo");
            return Ok(vec![Echo::Unsent; usize::from(settings.count)]);
        }
        let probe = Connected {
            socket,
            is_raw,
            address: target.address,
            identifier: rand::random(),
        };
        Ok(probe.echoes(settings).await)
    }
}

/// Opens a socket through the target's interface. Returns whether it is a raw one.
///
/// # Errors
/// The system grants neither, or the interface does not exist.
pub fn open(target: &Target) -> io::Result<(UdpSocket, bool)> {
    let (socket, is_raw) = match socket(target, Type::DGRAM) {
        Ok(socket) => (socket, false),
        Err(_) => (socket(target, Type::RAW)?, true),
    };
    Ok((UdpSocket::from_std(socket.into())?, is_raw))
}

pub(super) fn socket(target: &Target, kind: Type) -> io::Result<Socket> {
    let (domain, protocol) = match target.address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, kind.nonblocking(), Some(protocol))?;
    // This is also what gives a link-local destination its scope: the kernel takes `sk_bound_dev_if` when the address has no
    // scope id of its own.
    if let Some(interface) = &target.interface {
        socket.bind_device(Some(interface.as_str().as_bytes()))?;
    }
    Ok(socket)
}

/// A socket that is connected to the target. Its type is that of UDP because the calls are the same.
struct Connected {
    socket: UdpSocket,
    is_raw: bool,
    address: IpAddr,
    /// Identifies the replies on a raw socket.
    identifier: u16,
}

impl Connected {
    async fn echoes(&self, settings: &ProbeSettings) -> Vec<Echo> {
        let (begun, mut echoes) = (Instant::now(), Vec::new());
        for number in 0..settings.count {
            let until = begun + ECHO_SPACING * u32::from(number);
            self.receive(&mut echoes, until, settings.timeout).await;
            let (at, sent) = (Instant::now(), self.send(number).await);
            if let Err(error) = &sent {
                tracing::trace!(target = %self.address, number, %error, "echo not sent");
            }
            echoes.push((at, sent.map_or(Echo::Unsent, |()| Echo::Lost)));
        }
        let is_open = |(_, echo): &(Instant, Echo)| *echo == Echo::Lost;
        while let Some((sent, _)) = echoes.iter().rfind(|it| is_open(it)) {
            let until = *sent + settings.timeout;
            if !self.receive_one(&mut echoes, until, settings.timeout).await {
                break;
            }
        }
        echoes.into_iter().map(|(_, echo)| echo).collect()
    }

    async fn send(&self, number: u16) -> io::Result<()> {
        let message = request(self.address, self.identifier, number);
        let sent = match self.socket.send(&message).await {
            // The error that an earlier echo caused.
            Err(_) => self.socket.send(&message).await,
            sent => sent,
        };
        sent.map(drop)
    }

    /// Receives replies until this time.
    async fn receive(&self, echoes: &mut [(Instant, Echo)], until: Instant, limit: Duration) {
        while self.receive_one(echoes, until, limit).await {}
    }

    /// Receives a message, and takes it if it is a reply. Returns whether the time is not over.
    async fn receive_one(
        &self,
        echoes: &mut [(Instant, Echo)],
        until: Instant,
        limit: Duration,
    ) -> bool {
        let mut message = [0; MESSAGE_MAX];
        let received = match timeout_at(until, self.socket.recv_from(&mut message)).await {
            Err(_) => return false,
            Ok(Ok((length, from))) if from.ip() == self.address => {
                message.get(..length).unwrap_or_default()
            }
            // Another sender, or the error of an echo that a router refused.
            Ok(_) => return Instant::now() < until,
        };
        let number = self.answered(received).map(usize::from);
        if let Some((sent, echo)) = number.and_then(|number| echoes.get_mut(number))
            && sent.elapsed() <= limit
            && *echo == Echo::Lost
        {
            *echo = Echo::Answered(sent.elapsed());
        }
        Instant::now() < until
    }

    /// Returns the number of the echo that a message answers. A router that sends "unreachable" also quotes the echo.
    fn answered(&self, message: &[u8]) -> Option<u16> {
        // A raw socket of IPv4 receives the IP header too.
        let is_whole = self.is_raw && self.address.is_ipv4();
        let message = if is_whole { body(message)? } else { message };
        let [kind, _, _, _, identifier @ .., high, low] = *message.first_chunk::<HEAD>()?;
        // The kernel selects the identifier on a datagram socket, and its replies.
        let is_own = !self.is_raw || u16::from_be_bytes(identifier) == self.identifier;
        let is_reply = kind == reply_type(self.address);
        (is_reply && is_own).then(|| u16::from_be_bytes([high, low]))
    }
}

/// Returns what follows the header of an IPv4 packet, which has its length in words.
pub(super) fn body(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0xf) * 4..)
}

/// Returns the type of a reply (RFC 792; RFC 4443, section 4.2).
pub(super) fn reply_type(address: IpAddr) -> u8 {
    if address.is_ipv6() { 129 } else { 0 }
}

/// Returns an echo.
pub(super) fn request(address: IpAddr, identifier: u16, number: u16) -> [u8; HEAD + PAYLOAD.len()] {
    let mut message = [0; HEAD + PAYLOAD.len()];
    message[0] = if address.is_ipv6() { 128 } else { 8 };
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&number.to_be_bytes());
    // The kernel computes that of ICMPv6, whose sum has the addresses too.
    if address.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Returns the checksum of a message whose own field is zero (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Checks that a link-local target has an interface.
pub(super) fn check_scope(target: &Target) -> Result<(), ProbeError> {
    let is_link_local = matches!(target.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    match is_link_local && target.interface.is_none() {
        true => Err(ProbeError::NoInterface {
            target: target.clone(),
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connected(is_raw: bool, address: &str) -> Connected {
        Connected {
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            is_raw,
            address: address.parse().unwrap(),
            identifier: 0x1234,
        }
    }

    #[tokio::test]
    async fn only_own_replies_are_answers() {
        for (is_raw, is_v6) in [(false, false), (false, true), (true, false), (true, true)] {
            let probe = connected(is_raw, if is_v6 { "::1" } else { "127.0.0.1" }).await;
            let mut reply = request(probe.address, probe.identifier, 7).to_vec();
            let header = if is_raw && !is_v6 { 24 } else { 0 };
            reply.splice(0..0, [0x46].into_iter().chain([0; 23]).take(header));
            assert_eq!(probe.answered(&reply), None, "it is a request");
            reply[header] = if is_v6 { 129 } else { 0 };
            assert_eq!(probe.answered(&reply), Some(7));
            reply[header + 4] ^= 1;
            assert_eq!(probe.answered(&reply), (!is_raw).then_some(7));
            for length in 0..header + HEAD {
                assert_eq!(probe.answered(&reply[..length]), None, "{length} bytes");
            }
        }
    }

    #[test]
    fn checksum_is_that_of_the_rfc() {
        let message = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&message), !0xddf2);
    }
}
