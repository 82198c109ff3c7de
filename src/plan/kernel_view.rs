//! What the kernel has, in our own types. The constructors of these types normalise, so that the
//! two sides of a comparison mean the same by construction: a preshared key of zeros is none,
//! a keepalive of 0 is none, a port of 0 is none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;

pub use super::mark::Mark;
use crate::model::{InterfaceName, Port, PresharedKey, PublicKey, Uid};

/// One dump of everything the plan of any object compares with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelView {
    /// Every link of the network namespace, ours and foreign.
    pub links: BTreeMap<InterfaceName, Link>,
    /// The sysctls of all links together (`conf/all`), as far as the kernel has them.
    pub all: BTreeMap<Sysctl, i64>,
}

impl KernelView {
    /// The links that carry the mark of this object.
    pub fn owned_by<'a>(
        &'a self,
        uid: &'a Uid,
    ) -> impl Iterator<Item = (&'a InterfaceName, &'a Link)> {
        self.links.iter().filter(move |(_, link)| link.mark.is(uid))
    }

    /// Takes the ports of links that could not be read from the view before.
    pub fn keep_ports(&mut self, before: &Self) {
        for (name, link) in &mut self.links {
            let earlier = before.links.get(name);
            let earlier = earlier.filter(|earlier| earlier.index == link.index);
            if let (Some(unread), Some(earlier)) = (&mut link.unread, earlier) {
                unread.last_port = unread.last_port.or(earlier.listen_port());
            }
        }
    }

    /// Every object that a link of this state directory belongs to.
    pub fn uids(&self) -> BTreeSet<Uid> {
        let marks = self.links.values().map(|link| &link.mark);
        marks.filter_map(Mark::object).cloned().collect()
    }

    /// The objects whose links have a mark that is to be written again: of a lost directory, or of an earlier build.
    pub fn earlier_uids(&self) -> BTreeSet<Uid> {
        let marks = self.links.values().map(|link| &link.mark);
        let earlier = marks.filter(|mark| matches!(mark, Mark::Earlier(_)));
        earlier.filter_map(Mark::object).cloned().collect()
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index; it changes only when a link is made anew.
    pub index: u32,
    /// What it is.
    pub kind: LinkKind,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Whose it is.
    pub mark: Mark,
    /// Whether the kernel has been told to make no link-local address of its own
    /// (`IN6_ADDR_GEN_MODE_NONE`).
    pub addrgen_none: bool,
    /// Its addresses.
    pub addresses: BTreeSet<Address>,
    /// Where the routes out of it lead that the kernel made for its addresses (protocol `kernel`); no other
    /// route is looked at.
    pub routes: BTreeSet<IpNet>,
    /// Its WireGuard configuration, when it is a WireGuard link that could be read. Read for links
    /// that carry our mark and for links of kind [`LinkKind::WireGuard`] and [`LinkKind::Tun`].
    pub wireguard: Option<WireGuard>,
    /// Set while its WireGuard configuration was asked for and not answered: nothing is known of it then, not even
    /// that it is absent.
    pub unread: Option<Unread>,
    /// The ends of a GRE tunnel.
    pub gre: Option<GreEnds>,
    /// Whether an IPv6 address on it was learnt and will expire: from router advertisements, or DHCP.
    pub learnt_address: bool,
    /// The sysctls of this interface that we care about; of links that are not ours they are read only
    /// where an address was learnt.
    pub sysctls: BTreeMap<Sysctl, i64>,
}

/// A WireGuard configuration that could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// The UDP port that it was last seen to listen on.
    pub last_port: Option<Port>,
}

impl Link {
    /// The UDP port that its WireGuard listens on, as far as is known.
    pub fn listen_port(&self) -> Option<Port> {
        match (&self.wireguard, self.unread) {
            (Some(wireguard), _) => wireguard.listen_port,
            (None, Some(unread)) => unread.last_port,
            (None, None) => None,
        }
    }

    /// Whether it is WireGuard, also one that could not be read.
    pub fn is_wireguard(&self) -> bool {
        self.wireguard.is_some() || self.unread.is_some()
    }
}

/// What a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A WireGuard link of the kernel.
    WireGuard,
    /// A tun device: a userspace WireGuard when it has a control socket.
    Tun,
    /// GRE over IPv4.
    Gre,
    /// GRE over IPv6.
    Ip6Gre,
    /// A dummy device.
    Dummy,
    /// The loopback device.
    Loopback,
    /// Anything else, by the kernel's name (`veth`, `bridge`; empty for hardware).
    Other(String),
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Our address and its prefix length.
    pub local: IpNet,
    /// The other end of a point-to-point address, when it differs from ours.
    pub peer: Option<IpAddr>,
}

impl Address {
    /// An address with its prefix; a peer that equals it is none.
    pub fn new(local: IpNet, peer: Option<IpAddr>) -> Self {
        Self {
            local,
            peer: peer.filter(|peer| *peer != local.addr()),
        }
    }

    /// Where the route leads that the kernel makes for this address: to the other end, or to the network that
    /// the address is in (`fib_add_ifaddr`, `addrconf_prefix_route`). None for an address alone.
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

/// The outer addresses of a GRE tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GreEnds {
    /// Our outer address, when the tunnel is bound to one.
    pub local: Option<IpAddr>,
    /// The neighbour's outer address.
    pub remote: Option<IpAddr>,
}

impl fmt::Display for GreEnds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |address: Option<IpAddr>| {
            address.map_or("any".to_owned(), |address| address.to_string())
        };
        write!(f, "{} to {}", end(self.local), end(self.remote))
    }
}

/// The configuration and state of a WireGuard interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireGuard {
    /// Our public key on it; none when it has no private key yet.
    pub public_key: Option<PublicKey>,
    /// The UDP port it listens on.
    pub listen_port: Option<Port>,
    /// Its peers.
    pub peers: BTreeMap<PublicKey, WireGuardPeer>,
}

/// One peer of a WireGuard interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireGuardPeer {
    /// The preshared key.
    pub preshared_key: Option<PresharedKey>,
    /// Where packets go now: as configured, or where the peer last roamed to.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive in seconds.
    pub keepalive: Option<u16>,
    /// What may come from it.
    pub allowed_ips: BTreeSet<IpNet>,
    /// When the last handshake was.
    pub last_handshake: Option<Timestamp>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
}

impl WireGuardPeer {
    /// The same peer with what means "none" to the kernel read as none.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        self.preshared_key = self.preshared_key.filter(|key| !key.is_zero());
        self.keepalive = self.keepalive.filter(|seconds| *seconds != 0);
        self
    }
}

/// A sysctl that a router's interfaces need set (`/proc/sys/net/<family>/conf/<interface>/<key>`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sysctl {
    /// `ipv4 … forwarding`
    Ipv4Forwarding,
    /// `ipv4 … rp_filter`
    RpFilter,
    /// `ipv6 … forwarding`
    Ipv6Forwarding,
    /// `ipv6 … accept_ra`
    AcceptRa,
    /// `ipv6 … autoconf`
    Autoconf,
    /// `ipv6 … force_forwarding`: this interface forwards whatever `conf/all/forwarding` says (Linux 6.17).
    ForceForwarding,
}

impl Sysctl {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ipv4Forwarding,
        Self::RpFilter,
        Self::Ipv6Forwarding,
        Self::AcceptRa,
        Self::Autoconf,
        Self::ForceForwarding,
    ];

    /// Family and key as they stand in the path.
    pub fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Ipv4Forwarding => ("ipv4", "forwarding"),
            Self::RpFilter => ("ipv4", "rp_filter"),
            Self::Ipv6Forwarding => ("ipv6", "forwarding"),
            Self::AcceptRa => ("ipv6", "accept_ra"),
            Self::Autoconf => ("ipv6", "autoconf"),
            Self::ForceForwarding => ("ipv6", "force_forwarding"),
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (family, key) = self.path();
        write!(f, "{family}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_route_to_its_other_end_or_its_network() {
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

    #[test]
    fn zeros_of_the_kernel_are_none() {
        let peer = WireGuardPeer {
            preshared_key: Some(PresharedKey::new([0; 32])),
            keepalive: Some(0),
            ..Default::default()
        };
        assert_eq!(peer.normalised(), WireGuardPeer::default());
    }
}
