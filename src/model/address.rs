use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The local address and its prefix length.
    pub local: IpNet,
    /// The other end of a point-to-point address, when it differs from the local address.
    pub peer: Option<IpAddr>,
}

impl Address {
    /// Creates an address with its prefix; a peer that equals it becomes `None`.
    pub fn new(local: IpNet, peer: Option<IpAddr>) -> Self {
        Self {
            local,
            peer: peer.filter(|peer| *peer != local.addr()),
        }
    }

    /// Returns the destination of the route that the kernel creates for this address: the other end, or the network of
    /// the address (`fib_add_ifaddr`, `addrconf_prefix_route`). `None` for a host address.
    pub fn route(&self) -> Option<IpNet> {
        let length = self.local.prefix_len();
        let net = match self.peer {
            Some(peer) => IpNet::new(peer, length).ok()?,
            None if length == self.local.max_prefix_len() => return None,
            None => self.local,
        };
        Some(net.trunc())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(
                f,
                "{} peer {peer}/{}",
                self.local.addr(),
                self.local.prefix_len()
            ),
            None => self.local.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_has_a_route_to_peer_or_network() {
        let route = |local: &str, peer: Option<&str>| {
            let address = Address::new(
                local.parse().unwrap(),
                peer.map(|peer| peer.parse().unwrap()),
            );
            address.route().map(|net| net.to_string())
        };
        assert_eq!(
            route("172.20.0.1/32", Some("172.20.0.2")).as_deref(),
            Some("172.20.0.2/32")
        );
        assert_eq!(
            route("fd00::1/128", Some("fd00::2")).as_deref(),
            Some("fd00::2/128")
        );
        assert_eq!(route("fe80::998:1/64", None).as_deref(), Some("fe80::/64"));
        assert_eq!(route("172.20.0.1/32", None), None);
    }
}
