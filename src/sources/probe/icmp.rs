use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use surge_ping::{Client, Config, ConfigBuilder, ICMP, PingIdentifier, PingSequence, SurgeError};
use tokio::time::sleep;

use super::{Ping, ProbeError, ProbeSettings, Target};
use crate::intervals::ECHO_SPACING;

/// Payload of an echo, of the same size as that of `ping`.
pub(super) const PAYLOAD: [u8; 56] = [0; 56];

/// Sends real echoes.
///
/// Uses an unprivileged datagram socket if the system grants one (`net.ipv4.ping_group_range`, for both
/// families), else a raw one (`CAP_NET_RAW`). Each probe has its own socket: on a datagram socket
/// the kernel selects the identifier, so replies from the same link-local address on two tunnels could
/// not be distinguished on a shared one.
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
        let client = open(target)?;
        let identifier = PingIdentifier(rand::random());
        let echoes = (0..settings.count)
            .map(|number| echo(&client, target, identifier, number, settings.timeout));
        Ok(join_all(echoes).await)
    }
}

fn open(target: &Target) -> Result<Client, ProbeError> {
    socket(target, |config| config)
}

/// Opens a socket for this target, with more settings.
pub(super) fn socket(
    target: &Target,
    with: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> Result<Client, ProbeError> {
    if is_link_local(target.address) && target.interface.is_none() {
        return Err(ProbeError::NoInterface {
            target: target.clone(),
        });
    }
    let kind = if target.address.is_ipv6() {
        ICMP::V6
    } else {
        ICMP::V4
    };
    let mut config = Config::builder().kind(kind);
    if let Some(interface) = &target.interface {
        // SO_BINDTODEVICE is also what gives a link-local destination its scope: ping_v6_sendmsg and
        // rawv6_sendmsg take `sk_bound_dev_if` when the address has no scope id of its own.
        config = config.interface(interface.as_str());
    }
    Client::new(&with(config).build()).map_err(|source| ProbeError::Socket {
        target: target.clone(),
        source,
    })
}

async fn echo(
    client: &Client,
    target: &Target,
    identifier: PingIdentifier,
    number: u16,
    timeout: Duration,
) -> Echo {
    sleep(ECHO_SPACING * u32::from(number)).await;
    let mut pinger = client.pinger(target.address, identifier).await;
    match pinger
        .timeout(timeout)
        .ping(PingSequence(number), &PAYLOAD)
        .await
    {
        Ok((packet, time)) if is_reply(&packet) => Echo::Answered(time),
        Ok(_) => Echo::Lost,
        Err(SurgeError::IOError(error)) => {
            tracing::trace!(%target, number, %error, "echo not sent");
            Echo::Unsent
        }
        Err(error) => {
            tracing::trace!(%target, number, %error, "echo lost");
            Echo::Lost
        }
    }
}

/// Returns whether it is a reply of the target. A router that sends "unreachable" also quotes the echo.
pub(super) fn is_reply(packet: &surge_ping::IcmpPacket) -> bool {
    use surge_ping::IcmpPacket::{V4, V6};
    // ICMP type 0 (RFC 792) and ICMPv6 type 129 (RFC 4443, section 4.2) are the echo replies.
    match packet {
        V4(packet) => packet.get_icmp_type().0 == 0,
        V6(packet) => packet.get_icmpv6_type().0 == 129,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
