//! The observed kernel state, in the agent's own types. The constructors of these types normalise, so that both
//! sides of a comparison have the same meaning: a preshared key of zeros, a keepalive of 0 and a port of 0 all
//! become `None`.

mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use links::Links;

use super::mark::Mark;
use crate::model::{Address, InterfaceName, Port, PresharedKey, PublicKey, Uid};
use crate::util::sorted::Sorted as _;

/// One dump of all kernel state that plans compare with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelView {
    /// Every link of the network namespace, the agent's and foreign ones.
    pub links: Links,
    /// The sysctls of all links together (`conf/all`), if the kernel has them.
    pub all: BTreeMap<Sysctl, i64>,
}

impl KernelView {
    /// Returns the links that carry the mark of this object.
    pub fn owned_by<'a>(
        &'a self,
        uid: &Uid,
    ) -> impl Iterator<Item = (&'a InterfaceName, &'a Link)> + use<'a> {
        self.links.owned_by(uid)
    }

    /// Copies the ports of links that could not be read from the previous view.
    pub fn keep_ports(&mut self, before: &Self) {
        let unread = self.links.iter().filter(|(_, link)| link.unread.is_some());
        let unread: Vec<_> = unread
            .map(|(name, link)| (name.clone(), link.index))
            .collect();
        for (name, index) in unread {
            let earlier = before.links.get(&name).filter(|link| link.index == index);
            let port = earlier.and_then(Link::listen_port);
            let unread = self
                .links
                .get_mut(&name)
                .and_then(|link| link.unread.as_mut());
            if let Some(unread) = unread {
                unread.last_port = unread.last_port.or(port);
            }
        }
    }

    /// Returns every object of this state directory that has a link.
    pub fn uids(&self) -> BTreeSet<Uid> {
        let marks = self.links.values().map(|link| &link.mark);
        marks.filter_map(Mark::object).cloned().sorted_set()
    }

    /// Returns the objects whose links carry a mark that must be rewritten: of a lost directory, or of an earlier
    /// build.
    pub fn earlier_uids(&self) -> BTreeSet<Uid> {
        let marks = self.links.values().map(|link| &link.mark);
        let earlier = marks.filter(|mark| matches!(mark, Mark::Earlier(_)));
        earlier.filter_map(Mark::object).cloned().sorted_set()
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index; it changes only when a link is recreated.
    pub index: u32,
    pub kind: LinkKind,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    pub mark: Mark,
    /// Whether the kernel's link-local addresses are turned off (`IN6_ADDR_GEN_MODE_NONE`).
    pub addrgen_none: bool,
    pub addresses: BTreeSet<Address>,
    /// The destinations of the routes through this link that the kernel created for its addresses (protocol `kernel`);
    /// other
    /// routes are ignored.
    pub routes: BTreeSet<IpNet>,
    /// Its WireGuard configuration, when it is a WireGuard link that could be read. Read for links
    /// that carry the agent's mark and for links of kind [`LinkKind::WireGuard`] and [`LinkKind::Tun`].
    pub wireguard: Option<WireGuard>,
    /// Set when the query for its WireGuard configuration failed: nothing is known about it then, not even
    /// that it is absent.
    pub unread: Option<Unread>,
    pub gre: Option<GreEnds>,
    /// Whether it has a learnt IPv6 address that will expire, from router advertisements or DHCP, or a route from router
    /// advertisements.
    pub learnt: bool,
    /// The sysctls of this interface that the agent uses; for foreign links they are read only
    /// if an address or route was learnt.
    pub sysctls: BTreeMap<Sysctl, i64>,
}

/// A WireGuard configuration that could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// The error of the query.
    pub why: String,
    /// The last known UDP listening port.
    pub last_port: Option<Port>,
}

impl Unread {
    /// Creates the result of a query that failed with this error.
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            last_port: None,
        }
    }
}

impl Link {
    /// Returns the UDP port on which its WireGuard listens, if known.
    pub fn listen_port(&self) -> Option<Port> {
        match (&self.wireguard, &self.unread) {
            (Some(wireguard), _) => wireguard.listen_port,
            (None, Some(unread)) => unread.last_port,
            (None, None) => None,
        }
    }

    /// Returns whether everything but the counters of traffic is the same.
    pub fn is_same_but_traffic(&self, other: &Self) -> bool {
        let Self {
            index,
            kind,
            mtu,
            up,
            mark,
            addrgen_none,
            addresses,
            routes,
            wireguard,
            unread,
            gre,
            learnt,
            sysctls,
        } = self;
        let of_wireguard = match (wireguard, &other.wireguard) {
            (Some(this), Some(other)) => this.is_same_but_traffic(other),
            (this, other) => this == other,
        };
        of_wireguard
            && (index, kind, mtu, up) == (&other.index, &other.kind, &other.mtu, &other.up)
            && (mark, unread, gre) == (&other.mark, &other.unread, &other.gre)
            && (addresses, routes, sysctls) == (&other.addresses, &other.routes, &other.sysctls)
            && (addrgen_none, learnt) == (&other.addrgen_none, &other.learnt)
    }

    /// Returns whether it is WireGuard, including a link that could not be read.
    pub fn is_wireguard(&self) -> bool {
        self.wireguard.is_some() || self.unread.is_some()
    }
}

/// Kind of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    WireGuard,
    /// A tun device: a userspace WireGuard when it has a control socket.
    Tun,
    /// GRE over IPv4.
    Gre,
    /// GRE over IPv6.
    Ip6Gre,
    Dummy,
    Loopback,
    /// Any other kind, by the kernel's name (`veth`, `bridge`; empty for hardware).
    Other(String),
}

/// A route through a link that an operator made, as the kernel's message in hexadecimal: a program of the kernel's routes
/// saves and restores it without understanding each attribute, as `ip route save` does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SavedRoute(pub String);

/// The outer addresses of a GRE tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GreEnds {
    /// The local outer address, when the tunnel is bound to one.
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
    /// The local public key; `None` when the interface has no private key yet.
    pub public_key: Option<PublicKey>,
    /// The UDP port it listens on.
    pub listen_port: Option<Port>,
    /// Apart from the map, which has room for eleven: mostly there is one.
    pub peers: BTreeMap<PublicKey, Box<WireGuardPeer>>,
}

impl WireGuard {
    fn is_same_but_traffic(&self, other: &Self) -> bool {
        let Self {
            public_key,
            listen_port,
            peers,
        } = self;
        (public_key, listen_port) == (&other.public_key, &other.listen_port)
            && peers.len() == other.peers.len()
            && peers.iter().all(|(key, peer)| {
                let other = other.peers.get(key);
                other.is_some_and(|other| peer.is_same_but_traffic(other))
            })
    }
}

/// While the last handshake is younger than this, the peer answers, and WireGuard's own endpoint of it is more accurate
/// (docs/contract/safety.md#rule-7; a session's keys live 180 s, WireGuard's `REJECT_AFTER_TIME`).
pub const HANDSHAKE_FRESH_SECONDS: i64 = 180;

/// One peer of a WireGuard interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireGuardPeer {
    pub preshared_key: Option<PresharedKey>,
    /// The current endpoint: as configured, or where the peer last roamed to.
    pub endpoint: Option<SocketAddr>,
    /// Persistent keepalive in seconds.
    pub keepalive: Option<u16>,
    /// The source prefixes that it may use.
    pub allowed_ips: BTreeSet<IpNet>,
    pub last_handshake: Option<Timestamp>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

impl WireGuardPeer {
    /// A handshake that follows another one in time is traffic too: each peer has one every two minutes.
    fn is_same_but_traffic(&self, other: &Self) -> bool {
        let Self {
            preshared_key,
            endpoint,
            keepalive,
            allowed_ips,
            last_handshake,
            rx_bytes: _,
            tx_bytes: _,
        } = self;
        (preshared_key, endpoint, keepalive)
            == (&other.preshared_key, &other.endpoint, &other.keepalive)
            && *allowed_ips == other.allowed_ips
            && match (last_handshake, &other.last_handshake) {
                (Some(one), Some(other)) => {
                    (one.as_second() - other.as_second()).abs() < HANDSHAKE_FRESH_SECONDS
                }
                (one, other) => one == other,
            }
    }

    /// Returns the same peer with the kernel's "none" values replaced by `None`.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        self.preshared_key = self.preshared_key.filter(|key| !key.is_zero());
        self.keepalive = self.keepalive.filter(|seconds| *seconds != 0);
        self
    }
}

/// A sysctl that a router's interfaces need (`/proc/sys/net/<family>/conf/<interface>/<key>`).
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
    /// `ipv6 … force_forwarding`: this interface forwards independent of `conf/all/forwarding` (Linux 6.17).
    ForceForwarding,
}

impl Sysctl {
    pub const ALL: [Self; 6] = [
        Self::Ipv4Forwarding,
        Self::RpFilter,
        Self::Ipv6Forwarding,
        Self::AcceptRa,
        Self::Autoconf,
        Self::ForceForwarding,
    ];

    /// Returns family and key as they appear in the path.
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
    fn zeros_of_the_kernel_are_none() {
        let peer = WireGuardPeer {
            preshared_key: Some(PresharedKey::new([0; 32])),
            keepalive: Some(0),
            ..Default::default()
        };
        assert_eq!(peer.normalised(), WireGuardPeer::default());
    }
}
