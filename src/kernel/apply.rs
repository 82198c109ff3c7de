//! Applies each action, after a check that the link is the agent's at this very moment.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;

use super::counters::count;
use super::error::{ENODEV, Fault};
use super::{
    Backend, LinuxKernel, address_message, link_message, route_message, sysctl, uapi, wireguard,
};
use crate::model::{Address, Identity, InterfaceName, Uid};
use crate::observed::Mark;
use crate::observed::kernel::{Link, LinkKind, Sysctl};
use crate::observed::mark::Alias;
use crate::plan::action::{KernelAction, NewLink, WireGuardPatch};
use crate::util::task::blocking;

impl LinuxKernel {
    pub(super) async fn run(&self, action: &KernelAction) -> Result<(), Fault> {
        match action {
            KernelAction::CreateLink { interface, kind } => self.create(interface, kind).await,
            KernelAction::TryLink { interface, kind } => self.try_link(interface, kind).await,
            KernelAction::RenameLink { interface, uid, to } => {
                self.rename(interface, uid, to).await
            }
            KernelAction::SetMark { interface, uid } => self.set_mark(interface, uid).await,
            KernelAction::DisableKernelAddresses { interface } => {
                let link = self.ours(interface).await?;
                self.change_link(link_message::no_kernel_addresses(link.index))
                    .await
            }
            KernelAction::SetGreEnds {
                interface,
                local,
                remote,
            } => {
                let kind = NewLink::Gre {
                    local: *local,
                    remote: *remote,
                };
                self.set_gre_ends(interface, &kind).await
            }
            KernelAction::SetMtu { interface, mtu } => {
                let link = self.ours(interface).await?;
                self.change_link(link_message::mtu(link.index, *mtu)).await
            }
            KernelAction::SetUp { interface } => {
                let link = self.ours(interface).await?;
                self.change_link(link_message::up(link.index)).await
            }
            KernelAction::ConfigureWireGuard { interface, patch } => {
                self.configure(interface, patch).await
            }
            KernelAction::AddAddress { interface, address } => {
                self.add_address(interface, address).await
            }
            KernelAction::RemoveAddress { interface, address } => {
                self.remove_address(interface, address).await
            }
            KernelAction::AddRoute {
                interface,
                destination,
                source,
            } => {
                let link = self.ours(interface).await?;
                self.add_route(&link, *destination, *source).await
            }
            KernelAction::SetSysctl {
                interface,
                key,
                value,
            } => self.set_sysctl(interface.as_ref(), *key, *value).await,
            KernelAction::DeleteLink { interface, uid } => self.delete(interface, uid).await,
        }
    }

    async fn set_mark(&self, interface: &InterfaceName, uid: &Uid) -> Result<(), Fault> {
        let link = self.markable(interface).await?;
        let alias = Alias {
            identity: Some(self.identity()?),
            object: uid.clone(),
        };
        self.change_link(link_message::alias(link.index, &alias))
            .await
    }

    async fn set_gre_ends(&self, interface: &InterfaceName, kind: &NewLink) -> Result<(), Fault> {
        let link = self.ours(interface).await?;
        let message = link_message::new_gre_ends(link.index, interface, kind);
        self.change_link(message.ok_or_else(two_families)?).await
    }

    /// Reads the current state of the link.
    pub(super) async fn fresh(&self, interface: &InterfaceName) -> io::Result<Option<Link>> {
        let message = self.netlink.link(interface).await?;
        Ok(message
            .as_ref()
            .and_then(|message| link_message::parse(message, &self.ownership.get()))
            .map(|(_, link)| link))
    }

    async fn existing(&self, interface: &InterfaceName) -> io::Result<Link> {
        self.fresh(interface)
            .await?
            .ok_or_else(|| io::Error::from_raw_os_error(ENODEV))
    }

    /// Returns the link, if it carries one of the agent's marks. Later steps use its index, which the kernel does not
    /// reuse while it counts on: a link recreated under this name is not touched.
    async fn ours(&self, interface: &InterfaceName) -> Result<Link, Fault> {
        let link = self.existing(interface).await?;
        match link.mark.is_ours() {
            true => Ok(link),
            false => Err(Fault::not_ours(interface, &link.mark)),
        }
    }

    /// Returns the identity for new marks. The agent has one before it changes anything.
    fn identity(&self) -> Result<Identity, Fault> {
        self.ownership.get().identity.clone().ok_or_else(|| {
            Fault::said("the state directory has no identity; see `moenet-agent describe node`")
        })
    }

    /// Returns the link, if the agent creates this kind of link and it is not foreign: hardware, bridges and `lo` are
    /// never
    /// marked, even if a document names them.
    async fn markable(&self, interface: &InterfaceName) -> Result<Link, Fault> {
        let link = self.existing(interface).await?;
        match &link.kind {
            LinkKind::Loopback | LinkKind::Other(_) => Err(Fault::not_ours(interface, &link.mark)),
            _ if matches!(link.mark, Mark::Foreign(_)) => {
                Err(Fault::not_ours(interface, &link.mark))
            }
            _ => Ok(link),
        }
    }

    /// Returns the link, if it is the agent's or `lo`, which may carry the agent's loopback addresses.
    async fn addressable(
        &self,
        interface: &InterfaceName,
        address: &Address,
    ) -> Result<Link, Fault> {
        let link = self.existing(interface).await?;
        match (&link.kind, &link.mark) {
            (_, mark) if mark.is_ours() => Ok(link),
            (LinkKind::Loopback, _) if !address.local.addr().is_loopback() => Ok(link),
            (_, mark) => Err(Fault::not_ours(interface, mark)),
        }
    }

    async fn change_link(&self, message: LinkMessage) -> Result<(), Fault> {
        count(&self.counters.link_writes);
        Ok(self
            .netlink
            .change(RouteNetlinkMessage::NewLink(message), 0)
            .await?)
    }

    async fn create(&self, interface: &InterfaceName, kind: &NewLink) -> Result<(), Fault> {
        count(&self.counters.link_writes);
        if *kind == NewLink::WireGuard {
            return self.create_wireguard(interface).await;
        }
        let message = link_message::new_link(interface, kind).ok_or_else(two_families)?;
        match self.create_in_kernel(message).await {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(Fault::Unsupported(no_driver(kind)))
            }
            done => Ok(done?),
        }
    }

    /// Creates a link and deletes it. A link left by a crash is treated like one just created: it is
    /// down, without a mark, and its name is derived from one of the agent's objects.
    async fn try_link(&self, interface: &InterfaceName, kind: &NewLink) -> Result<(), Fault> {
        if self.fresh(interface).await?.is_none() {
            self.create(interface, kind).await?;
        }
        let link = self.markable(interface).await?;
        if link.mark != Mark::None || link.up {
            return Err(Fault::not_ours(interface, &link.mark));
        }
        self.delete_link(interface, &link).await
    }

    /// Renames a link. Before Linux 6.2 the kernel renames no link that is up (`dev_change_name`).
    async fn rename(
        &self,
        interface: &InterfaceName,
        uid: &Uid,
        to: &InterfaceName,
    ) -> Result<(), Fault> {
        let link = self.existing(interface).await?;
        if !link.mark.is(uid) {
            return Err(Fault::not_ours(interface, &link.mark));
        }
        if link.kind == LinkKind::Tun {
            return Err(Fault::said(
                "the control socket of userspace WireGuard goes by the first name of its link",
            ));
        }
        if link.up {
            self.change_link(link_message::down(link.index)).await?;
        }
        let renamed = self.change_link(link_message::rename(link.index, to)).await;
        if renamed.is_err() && link.up {
            // The link keeps working under its old name.
            self.change_link(link_message::up(link.index)).await?;
        }
        renamed
    }

    async fn create_in_kernel(&self, message: LinkMessage) -> io::Result<()> {
        self.netlink
            .change(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await
    }

    async fn create_wireguard(&self, interface: &InterfaceName) -> Result<(), Fault> {
        let in_kernel = match self.backend {
            Backend::Auto => !self.kernel_lacks_wireguard.load(Ordering::Relaxed),
            Backend::Kernel => true,
            Backend::Userspace => false,
        };
        if in_kernel && let Some(message) = link_message::new_link(interface, &NewLink::WireGuard) {
            match self.create_in_kernel(message).await {
                // The kernel's answer to an unknown kind (`rtnl_newlink`).
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    self.without_kernel()?
                }
                done => return Ok(done?),
            }
        }
        self.create_userspace(interface).await
    }

    /// Remembers that the kernel has no WireGuard, unless the configuration allows only the kernel's.
    fn without_kernel(&self) -> Result<(), Fault> {
        if self.backend == Backend::Kernel {
            return Err(Fault::Unsupported(
                "the kernel has no WireGuard; load it with `modprobe wireguard`, \
                 or set wireguard.backend to auto"
                    .to_owned(),
            ));
        }
        self.kernel_lacks_wireguard.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn create_userspace(&self, interface: &InterfaceName) -> Result<(), Fault> {
        // A process that finds a tun of its name would use it, even a foreign one.
        if self.netlink.link(interface).await?.is_some() {
            return Err(Fault::said("a link of this name exists already"));
        }
        self.userspace.start(interface).await?;
        match self.fresh(interface).await? {
            Some(_) => Ok(()),
            None => Err(Fault::said(
                "the userspace WireGuard runs, but its link is not in this namespace",
            )),
        }
    }

    async fn configure(
        &self,
        interface: &InterfaceName,
        patch: &WireGuardPatch,
    ) -> Result<(), Fault> {
        let link = self.ours(interface).await?;
        match link.kind {
            LinkKind::Tun => {
                count(&self.counters.wireguard_writes);
                Ok(uapi::set(&self.userspace.socket(interface), patch).await?)
            }
            LinkKind::WireGuard => {
                count(&self.counters.wireguard_writes);
                let (interface, patch) = (interface.clone(), patch.clone());
                let set = move || wireguard::set(&interface, &patch);
                Ok(blocking(set).await?)
            }
            _ => Err(Fault::said("it is not a WireGuard link")),
        }
    }

    /// Adds an address. The kernel creates the route to the other end of an IPv6 address a moment later, after
    /// duplicate
    /// address detection, even if that is off (`__ipv6_ifa_notify`; measured, Linux 6.18: a dump at once
    /// does not have it). It is created here, so that it does not count as missing, and BGP can connect.
    async fn add_address(&self, interface: &InterfaceName, address: &Address) -> Result<(), Fault> {
        let link = self.addressable(interface, address).await?;
        count(&self.counters.address_writes);
        let message =
            RouteNetlinkMessage::NewAddress(address_message::message(link.index, address));
        self.netlink
            .change(message, NLM_F_CREATE | NLM_F_EXCL)
            .await?;
        match address.route() {
            Some(route) if address.peer.is_some_and(|peer| peer.is_ipv6()) && link.up => {
                self.add_route(&link, route, None).await
            }
            _ => Ok(()),
        }
    }

    /// Removes an address. IPv4 compares the peer too. IPv6 identifies an address of a link by the address and its
    /// length
    /// alone (`inet6_addr_del`); there is only one such.
    async fn remove_address(
        &self,
        interface: &InterfaceName,
        address: &Address,
    ) -> Result<(), Fault> {
        let link = self.addressable(interface, address).await?;
        count(&self.counters.address_writes);
        let message =
            RouteNetlinkMessage::DelAddress(address_message::message(link.index, address));
        match self.netlink.change(message, 0).await {
            // Already gone, which is the wanted state.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            done => Ok(done?),
        }
    }

    /// Adds a route, in addition to any other route to the same destination, as the kernel itself does (`fib_magic`).
    async fn add_route(
        &self,
        link: &Link,
        destination: IpNet,
        source: Option<Ipv4Addr>,
    ) -> Result<(), Fault> {
        count(&self.counters.route_writes);
        let message =
            RouteNetlinkMessage::NewRoute(route_message::message(link.index, destination, source));
        match self
            .netlink
            .change(message, NLM_F_CREATE | NLM_F_APPEND)
            .await
        {
            // Already there, which is the wanted state.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => Ok(done?),
        }
    }

    async fn set_sysctl(
        &self,
        interface: Option<&InterfaceName>,
        key: Sysctl,
        value: i64,
    ) -> Result<(), Fault> {
        if let Some(interface) = interface {
            self.ours(interface).await?;
        }
        count(&self.counters.sysctl_writes);
        let interface = interface.cloned();
        let write = move || sysctl::write(interface.as_ref(), key, value);
        Ok(blocking(write).await?)
    }

    async fn delete(&self, interface: &InterfaceName, uid: &Uid) -> Result<(), Fault> {
        let Some(link) = self.fresh(interface).await? else {
            return Ok(());
        };
        if !link.mark.is(uid) {
            return Err(Fault::not_ours(interface, &link.mark));
        }
        self.delete_link(interface, &link).await
    }

    async fn delete_link(&self, interface: &InterfaceName, link: &Link) -> Result<(), Fault> {
        count(&self.counters.link_writes);
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        match self
            .netlink
            .change(RouteNetlinkMessage::DelLink(message), 0)
            .await
        {
            Err(error) if error.raw_os_error() == Some(ENODEV) => {}
            done => done?,
        }
        if link.kind == LinkKind::Tun {
            self.userspace.wait_for_end(interface).await?;
        }
        Ok(())
    }
}

fn two_families() -> Fault {
    Fault::said("both ends of a GRE tunnel must be of one address family")
}

/// Returns what to do about a kind of link that the kernel does not know.
fn no_driver(kind: &NewLink) -> String {
    let module = match kind {
        NewLink::WireGuard => "wireguard",
        NewLink::Dummy => "dummy",
        NewLink::Gre { remote, .. } if remote.is_ipv4() => "ip_gre",
        NewLink::Gre { .. } => "ip6_gre",
    };
    format!("the kernel has no such links; load its module with `modprobe {module}`")
}
