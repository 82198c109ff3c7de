//! Changes that a plan makes to the kernel. Each names its object and the new value, so that it can be
//! printed, applied and counted; none says how to apply it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use crate::model::{Address, InterfaceName, Mtu, Port, PresharedKey, PrivateKey, PublicKey, Uid};
use crate::observed::kernel::Sysctl;

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelAction {
    /// Creates a link, down and without a mark.
    CreateLink {
        interface: InterfaceName,
        kind: NewLink,
    },
    /// Creates a link and deletes it at once, to test whether the kernel and the helper programs can create it.
    TryLink {
        /// An unused name.
        interface: InterfaceName,
        kind: NewLink,
    },
    /// Renames a link, if it carries this mark at the moment of renaming. A link that is up goes down for it.
    RenameLink {
        interface: InterfaceName,
        /// The owner it must have.
        uid: Uid,
        to: InterfaceName,
    },
    /// Sets the alias `moenet-agent:2:<identity>:<object>`.
    SetMark {
        interface: InterfaceName,
        /// The new owner.
        uid: Uid,
    },
    /// Removes the alias, if the link carries this mark at that moment.
    ClearMark {
        interface: InterfaceName,
        /// The owner it must have.
        uid: Uid,
    },
    /// Changes the outer addresses of a GRE tunnel, within their family.
    SetGreEnds {
        interface: InterfaceName,
        /// The local outer address.
        local: Option<IpAddr>,
        /// The neighbour's outer address.
        remote: IpAddr,
    },
    /// Stops the kernel from creating a link-local address (`addrgenmode none`).
    DisableKernelAddresses {
        interface: InterfaceName,
    },
    /// Lets the kernel create link-local addresses again (`addrgenmode eui64`).
    AllowKernelAddresses {
        interface: InterfaceName,
    },
    /// Changes keys, port or peers.
    ConfigureWireGuard {
        interface: InterfaceName,
        /// The changed settings; all others stay.
        patch: WireGuardPatch,
    },
    AddAddress {
        interface: InterfaceName,
        address: Address,
    },
    RemoveAddress {
        interface: InterfaceName,
        address: Address,
    },
    /// Restores the route that the kernel creates for an address, after it was removed.
    AddRoute {
        interface: InterfaceName,
        destination: IpNet,
        /// The local source address of this route for IPv4; IPv6 selects its own.
        source: Option<Ipv4Addr>,
    },
    SetMtu {
        interface: InterfaceName,
        mtu: Mtu,
    },
    /// Sets a sysctl of the link, or of all links (`conf/all`).
    SetSysctl {
        /// The link; `None` means `all`.
        interface: Option<InterfaceName>,
        key: Sysctl,
        value: i64,
    },
    /// Brings the link up.
    SetUp {
        interface: InterfaceName,
    },
    /// Brings the link down, as it was before an adoption.
    SetDown {
        interface: InterfaceName,
    },
    /// Deletes the link, if it still carries this mark at the moment of deletion.
    DeleteLink {
        interface: InterfaceName,
        /// The owner it must have.
        uid: Uid,
    },
}

/// A link to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewLink {
    /// WireGuard: the kernel's if it has it, otherwise a userspace one.
    WireGuard,
    /// GRE over the family of the addresses.
    Gre {
        /// The local outer address.
        local: Option<IpAddr>,
        /// The neighbour's outer address.
        remote: IpAddr,
    },
    Dummy,
}

/// A change of a WireGuard interface. `None` or empty fields leave the setting unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WireGuardPatch {
    pub private_key: Option<PrivateKey>,
    pub listen_port: Option<Port>,
    /// Whether the kernel chooses any free UDP port.
    pub release_port: bool,
    /// Peers to remove, before any is added: a peer in both lists is recreated.
    pub remove_peers: Vec<PublicKey>,
    /// Peers to add or change.
    pub peers: Vec<PeerPatch>,
}

/// A change of one peer; a missing peer is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPatch {
    pub public_key: PublicKey,
    /// A new preshared key, or `Some(None)` to remove it.
    pub preshared_key: Option<Option<PresharedKey>>,
    pub endpoint: Option<SocketAddr>,
    /// A new persistent keepalive in seconds, or `Some(None)` to remove it.
    pub keepalive: Option<Option<u16>>,
    /// The whole new set of allowed IPs.
    pub allowed_ips: Option<BTreeSet<IpNet>>,
}

impl KernelAction {
    /// Returns the link that the action changes; `None` for sysctls of all links.
    pub fn interface(&self) -> Option<&InterfaceName> {
        match self {
            Self::CreateLink { interface, .. }
            | Self::TryLink { interface, .. }
            | Self::RenameLink { interface, .. }
            | Self::SetMark { interface, .. }
            | Self::ClearMark { interface, .. }
            | Self::SetGreEnds { interface, .. }
            | Self::DisableKernelAddresses { interface }
            | Self::AllowKernelAddresses { interface }
            | Self::ConfigureWireGuard { interface, .. }
            | Self::AddAddress { interface, .. }
            | Self::RemoveAddress { interface, .. }
            | Self::AddRoute { interface, .. }
            | Self::SetMtu { interface, .. }
            | Self::SetUp { interface }
            | Self::SetDown { interface }
            | Self::DeleteLink { interface, .. } => Some(interface),
            Self::SetSysctl { interface, .. } => interface.as_ref(),
        }
    }
}

impl fmt::Display for KernelAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateLink { interface, kind } => write!(f, "create {kind} link {interface}"),
            Self::TryLink { interface, kind } => {
                write!(f, "try {kind} link {interface} (make and delete)")
            }
            Self::RenameLink { interface, to, .. } => write!(f, "rename link {interface} to {to}"),
            Self::SetMark { interface, uid } => write!(f, "mark {interface} as {uid}"),
            Self::ClearMark { interface, .. } => write!(f, "clear the mark of {interface}"),
            Self::SetGreEnds {
                interface,
                local,
                remote,
            } => {
                write!(f, "set ends of {interface} to ")?;
                match local {
                    Some(local) => write!(f, "{local} and {remote}"),
                    None => write!(f, "{remote}"),
                }
            }
            Self::DisableKernelAddresses { interface } => {
                write!(f, "turn off kernel-made addresses on {interface}")
            }
            Self::AllowKernelAddresses { interface } => {
                write!(f, "turn on kernel-made addresses on {interface}")
            }
            Self::ConfigureWireGuard { interface, patch } => {
                write!(f, "set WireGuard on {interface}: {patch}")
            }
            Self::AddAddress { interface, address } => {
                write!(f, "add address {address} to {interface}")
            }
            Self::RemoveAddress { interface, address } => {
                write!(f, "remove address {address} from {interface}")
            }
            Self::AddRoute {
                interface,
                destination,
                ..
            } => {
                write!(f, "add route to {destination} out of {interface}")
            }
            Self::SetMtu { interface, mtu } => write!(f, "set MTU of {interface} to {mtu}"),
            Self::SetSysctl {
                interface,
                key,
                value,
            } => {
                let interface = interface.as_ref().map_or("all", InterfaceName::as_str);
                write!(f, "set sysctl {key} of {interface} to {value}")
            }
            Self::SetUp { interface } => write!(f, "bring {interface} up"),
            Self::SetDown { interface } => write!(f, "bring {interface} down"),
            Self::DeleteLink { interface, .. } => write!(f, "delete link {interface}"),
        }
    }
}

impl fmt::Display for NewLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WireGuard => f.write_str("WireGuard"),
            Self::Gre { remote, .. } => write!(f, "GRE (to {remote})"),
            Self::Dummy => f.write_str("dummy"),
        }
    }
}

impl fmt::Display for WireGuardPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.private_key.as_ref().map(|_| "private key".to_owned()));
        parts.extend(self.listen_port.map(|port| format!("listen port {port}")));
        parts.extend(self.release_port.then(|| "any free listen port".to_owned()));
        parts.extend(
            self.remove_peers
                .iter()
                .map(|key| format!("remove peer (public key {key})")),
        );
        parts.extend(self.peers.iter().map(ToString::to_string));
        f.write_str(&parts.join(", "))
    }
}

impl fmt::Display for PeerPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer (public key {})", self.public_key)?;
        match &self.preshared_key {
            Some(Some(_)) => f.write_str(" with a new preshared key")?,
            Some(None) => f.write_str(" without preshared key")?,
            None => {}
        }
        if let Some(endpoint) = self.endpoint {
            write!(f, " at {endpoint}")?;
        }
        match self.keepalive {
            Some(Some(seconds)) => write!(f, " keepalive {seconds} s")?,
            Some(None) => f.write_str(" without keepalive")?,
            None => {}
        }
        if let Some(allowed) = &self.allowed_ips {
            let list: Vec<_> = allowed.iter().map(ToString::to_string).collect();
            write!(f, " allowed IPs {}", list.join(" "))?;
        }
        Ok(())
    }
}
