//! The source address that the kernel would select.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Returns the local address that the kernel would use for packets to this address; `None` when there is no route.
/// Connecting a UDP socket looks the route up and sends nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "neither `bind` nor `connect` of a UDP socket waits"
)]
pub fn source_towards(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    // The discard port (RFC 863); any port works.
    socket.connect(SocketAddr::new(remote, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_reaches_itself_from_its_own_address() {
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(source_towards(here), Some(here));
    }
}
