//! The wanted tunnel, and the observation that its plan needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::Refusal;
use super::action::NewLink;
use crate::effective::{MeshTunnel, Session};
use crate::model::{
    Address, InterfaceName, LinkLocal, Mtu, Port, PresharedKey, PublicKey, RouterKey, TunnelType,
    Uid,
};
use crate::observed::kernel::{KernelView, Sysctl};

/// The wanted state of a tunnel in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedTunnel {
    /// The mark of the link.
    pub uid: Uid,
    /// The link's name.
    pub interface: InterfaceName,
    pub kind: NewLink,
    /// The link's MTU.
    pub mtu: Mtu,
    /// All its addresses.
    pub addresses: BTreeSet<Address>,
    /// The WireGuard configuration, for such a link.
    pub wireguard: Option<WantedWireGuard>,
    /// Whether an unmarked WireGuard link of this name is taken over.
    pub adopt: bool,
}

/// The part of the observation that the plan of one object needs.
#[derive(Clone, Copy)]
pub struct ObjectObservation<'a> {
    /// The kernel, in one dump.
    pub kernel: &'a KernelView,
    /// The link whose creation was in progress when `applied/` was last written.
    pub creating: Option<&'a InterfaceName>,
    /// The peer's address, if its name has been resolved.
    pub resolved: Option<SocketAddr>,
    /// Whether the endpoint was set again since it was last applied.
    pub endpoint_changed: bool,
    /// Whether this object is part of a cycle of objects that wait for each other's interface names.
    pub gives_way: bool,
    /// The object's identity before the Control Plane gave it another uuid, while its applied record has the old one.
    pub formerly: Option<&'a Uid>,
    /// The current time.
    pub now: Timestamp,
    /// The object's file in BIRD's directory.
    pub fragment: Option<&'a str>,
}

/// Omits the text, which may hold a password.
impl fmt::Debug for ObjectObservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectObservation")
            .field("kernel", self.kernel)
            .field("creating", &self.creating)
            .field("resolved", &self.resolved)
            .finish_non_exhaustive()
    }
}

/// The wanted WireGuard configuration of a link: one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedWireGuard {
    pub key: RouterKey,
    /// The local UDP port.
    pub listen_port: Port,
    /// Whether the link's port is given up for any free one: another object waits for it, and this one waits
    /// for another.
    pub release_port: bool,
    pub peer: PublicKey,
    pub preshared_key: Option<PresharedKey>,
    /// Seconds between keepalives.
    pub keepalive: Option<u16>,
    /// Whether this router connects to the peer; otherwise it waits for the peer, and no endpoint is wanted.
    pub calls: bool,
}

impl WantedTunnel {
    /// Returns the tunnel of a session. GRE needs the resolved outer address of the neighbour; until then nothing
    /// can be planned, and the caller reports it.
    pub fn of_session(
        session: &Session,
        key: &RouterKey,
        resolved: Option<SocketAddr>,
    ) -> Result<Self, Refusal> {
        let tunnel = &session.tunnel;
        let kind = match tunnel.kind {
            TunnelType::Wireguard => NewLink::WireGuard,
            TunnelType::Gre | TunnelType::Ip6gre => gre(session, resolved)?,
        };
        let wireguard = tunnel
            .peer
            .zip(tunnel.listen_port)
            .map(|(peer, listen_port)| WantedWireGuard {
                key: key.clone(),
                listen_port,
                release_port: false,
                peer,
                preshared_key: tunnel.preshared_key.clone(),
                keepalive: tunnel.keepalive,
                calls: tunnel.endpoint.is_some(),
            });
        Ok(Self {
            uid: session.uid.clone(),
            interface: tunnel.interface.clone(),
            kind,
            mtu: tunnel.mtu,
            addresses: session.addresses.clone(),
            wireguard,
            adopt: tunnel.adopt,
        })
    }

    /// Returns the same tunnel with a local outer address, if the document leaves it open and the kernel does not
    /// choose: an
    /// `ip6gre` link without one does not send (measured, Linux 6.12: each packet counts as an error). An
    /// address that the link has already is kept while it is one of this router's.
    ///
    /// # Errors
    /// When there is no route to the neighbour, so that the address is unknown.
    pub fn sent_from(
        mut self,
        source: Option<IpAddr>,
        kernel: &KernelView,
    ) -> Result<Self, Refusal> {
        let NewLink::Gre {
            local: local @ None,
            remote: remote @ IpAddr::V6(_),
        } = &mut self.kind
        else {
            return Ok(self);
        };
        let ours = |address: &IpAddr| {
            kernel
                .links
                .values()
                .flat_map(|link| &link.addresses)
                .any(|there| there.local.addr() == *address)
        };
        let link = kernel
            .links
            .get(&self.interface)
            .filter(|link| link.mark.is(&self.uid));
        let before = link.and_then(|link| link.gre?.local).filter(ours);
        *local = before.or(source);
        match local {
            Some(_) => Ok(self),
            None => Err(Refusal {
                field: "spec.tunnel.localAddress",
                reason: format!(
                    "no route to {remote}, so the outer address of this router is unknown; set it"
                ),
            }),
        }
    }

    /// Returns the tunnel of a mesh peer, with this router's link-local address on it.
    pub fn of_mesh(mesh: &MeshTunnel, ours: LinkLocal, key: &RouterKey) -> Self {
        let net = ipnet::Ipv6Net::new_assert(ours.get(), 64);
        Self {
            uid: mesh.uid.clone(),
            interface: mesh.interface.clone(),
            kind: NewLink::WireGuard,
            mtu: mesh.mtu,
            addresses: BTreeSet::from([Address::new(net.into(), None)]),
            wireguard: Some(WantedWireGuard {
                key: key.clone(),
                listen_port: mesh.listen_port,
                release_port: false,
                peer: mesh.peer,
                preshared_key: None,
                keepalive: Some(mesh.keepalive).filter(|seconds| *seconds != 0),
                calls: mesh.endpoint.is_some(),
            }),
            adopt: false,
        }
    }

    /// Returns the sysctls of every tunnel link: it forwards, accepts asymmetric paths, and ignores router
    /// advertisements (DN42's network settings). If the kernel can forward IPv6 from one interface alone, only that is
    /// set, and `conf/all` stays unchanged.
    ///
    /// `accept_local`, which the same settings have for anycast, is not among them. Without it IPv4 drops packets
    /// from an address that the router has itself, also in transit and with `rp_filter` off
    /// (`fib_validate_source`; measured, Linux 6.18). This is the only protection against a peer that spoofs the
    /// router's own addresses, and only the operator knows whether there is anycast. The operator sets it for
    /// all links at once: the kernel takes `conf/all` or the interface's own (`IN_DEV_ORCONF`).
    pub fn sysctls(kernel: &KernelView) -> BTreeMap<Sysctl, i64> {
        let mut sysctls = BTreeMap::from([
            (Sysctl::Ipv4Forwarding, 1),
            (Sysctl::RpFilter, 0),
            (Sysctl::Ipv6Forwarding, 1),
            (Sysctl::AcceptRa, 0),
            (Sysctl::Autoconf, 0),
        ]);
        if kernel.all.contains_key(&Sysctl::ForceForwarding) {
            sysctls.insert(Sysctl::ForceForwarding, 1);
        }
        sysctls
    }
}

fn gre(session: &Session, resolved: Option<SocketAddr>) -> Result<NewLink, Refusal> {
    const FIELD: &str = "spec.tunnel.endpoint";
    let remote = resolved
        .map(|address| address.ip())
        .ok_or_else(|| Refusal {
            field: FIELD,
            reason: "the neighbour's name does not resolve yet".into(),
        })?;
    if remote.is_ipv4() != (session.tunnel.kind == TunnelType::Gre) {
        let reason = format!(
            "{remote} is of the wrong family for {}",
            session.tunnel.kind
        );
        return Err(Refusal {
            field: FIELD,
            reason,
        });
    }
    Ok(NewLink::Gre {
        local: session.tunnel.local_address,
        remote,
    })
}
