//! Applies the changes of one object, after a check that its links are the agent's at this very moment.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;

use super::counters::count;
use super::error::{ENODEV, Fault};
use super::joint::{joint, setting_of};
use super::sysctl::Setting;
use super::{Backend, LinuxKernel, address_message, link_message, route_message, uapi};
use crate::model::{Address, Identity, InterfaceName, Uid};
use crate::observed::Mark;
use crate::observed::kernel::{Link, LinkKind, SavedRoute};
use crate::observed::mark::Alias;
use crate::plan::action::{KernelAction, NewLink, WireGuardPatch};
use crate::ports::KernelError;
use crate::util::task::block_here;

impl LinuxKernel {
    /// Makes the changes of one object in their order, up to the first failure. A failed sysctl does not stop the later
    /// changes.
    pub(super) async fn run(&self, actions: &[&KernelAction]) -> Vec<Result<(), KernelError>> {
        let mut batch = Batch {
            kernel: self,
            links: BTreeMap::new(),
        };
        let (mut results, mut rest) = (Vec::with_capacity(actions.len()), actions);
        while !rest.is_empty() {
            let (together, later) = rest.split_at(joint(rest));
            let done = batch.take(together).await;
            let is_over = done.len() < together.len() || done.iter().any(Result::is_err);
            let is_needed = !matches!(together, [KernelAction::SetSysctl { .. }, ..]);
            // The text of an action shows no key.
            let named = done.into_iter().zip(together);
            results.extend(
                named.map(|(done, action)| done.map_err(|fault| fault.at(action.to_string()))),
            );
            if is_over && is_needed {
                break;
            }
            rest = later;
        }
        results
    }

    /// Creates a saved route again through a link that carries one of the agent's marks.
    pub(super) async fn put_back(
        &self,
        interface: &InterfaceName,
        route: &SavedRoute,
    ) -> Result<(), Fault> {
        let mut batch = Batch {
            kernel: self,
            links: BTreeMap::new(),
        };
        let link = batch.ours(interface).await?;
        let message = route_message::saved(route, link.index)
            .ok_or_else(|| Fault::said("the record has no such route through this link"))?;
        count(&self.counters.route_writes);
        let message = RouteNetlinkMessage::NewRoute(message);
        match self
            .netlink
            .change(message, NLM_F_CREATE | NLM_F_APPEND)
            .await
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => Ok(done?),
        }
    }

    /// Reads the current state of the link.
    pub(super) async fn fresh(&self, interface: &InterfaceName) -> io::Result<Option<Link>> {
        let message = self.netlink.link(interface).await?;
        Ok(message.as_ref().and_then(|message| self.parsed(message)))
    }

    fn parsed(&self, message: &LinkMessage) -> Option<Link> {
        let parsed = link_message::parse(message, &self.ownership.get());
        parsed.map(|(_, link)| link)
    }

    /// Returns the identity for new marks. The agent has one before it changes anything.
    fn identity(&self) -> Result<Identity, Fault> {
        self.ownership.get().identity.clone().ok_or_else(|| {
            Fault::said("the state directory has no identity; see `moenet-agent describe node`")
        })
    }

    async fn change_link(&self, message: LinkMessage) -> io::Result<()> {
        count(&self.counters.link_writes);
        let message = RouteNetlinkMessage::NewLink(message);
        self.netlink.change(message, 0).await
    }
}

/// The changes of one object. Each link is read before its first change; from then on its index is used. The kernel does
/// not reuse an index, so a link that was recreated under this name is not touched.
struct Batch<'a> {
    kernel: &'a LinuxKernel,
    links: BTreeMap<InterfaceName, Link>,
}

impl Batch<'_> {
    /// Makes joint changes. Returns the results up to the first failure; those of sysctls are all returned.
    async fn take(&mut self, actions: &[&KernelAction]) -> Vec<Result<(), Fault>> {
        let Some(first) = actions.first() else {
            return Vec::new();
        };
        let done = match first {
            KernelAction::SetMark { .. }
            | KernelAction::DisableKernelAddresses { .. }
            | KernelAction::AllowKernelAddresses { .. }
            | KernelAction::SetMtu { .. }
            | KernelAction::SetUp { .. } => return self.set(actions).await,
            KernelAction::SetSysctl { .. } => return self.set_sysctls(actions).await,
            KernelAction::CreateLink { interface, kind } => self.create(interface, kind).await,
            KernelAction::TryLink { interface, kind } => self.try_link(interface, kind).await,
            KernelAction::RenameLink { interface, uid, to } => {
                self.rename(interface, uid, to).await
            }
            KernelAction::SetGreEnds {
                interface,
                local,
                remote,
            } => {
                let (local, remote) = (*local, *remote);
                let kind = NewLink::Gre { local, remote };
                self.set_gre_ends(interface, &kind).await
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
            } => match self.ours(interface).await {
                Ok(link) => self.add_route(link.index, *destination, *source).await,
                Err(fault) => Err(fault),
            },
            KernelAction::SetDown { interface } => self.set_down(interface).await,
            KernelAction::ClearMark { interface, uid } => self.clear_mark(interface, uid).await,
            KernelAction::DeleteLink { interface, uid } => self.delete(interface, uid).await,
        };
        vec![done]
    }

    /// Returns the link, read now or earlier in this batch.
    async fn find(&mut self, interface: &InterfaceName) -> io::Result<Option<Link>> {
        if let Some(link) = self.links.get(interface) {
            return Ok(Some(link.clone()));
        }
        let found = self.kernel.fresh(interface).await?;
        if let Some(link) = &found {
            self.links.insert(interface.clone(), link.clone());
        }
        Ok(found)
    }

    /// Reads the link again: what follows uses its name, or cannot be undone.
    async fn find_now(&mut self, interface: &InterfaceName) -> io::Result<Option<Link>> {
        self.links.remove(interface);
        self.find(interface).await
    }

    async fn existing(&mut self, interface: &InterfaceName) -> io::Result<Link> {
        self.find(interface)
            .await?
            .ok_or_else(|| io::Error::from_raw_os_error(ENODEV))
    }

    /// Returns the link, if it carries one of the agent's marks.
    async fn ours(&mut self, interface: &InterfaceName) -> Result<Link, Fault> {
        let link = self.existing(interface).await?;
        match link.mark.is_ours() {
            true => Ok(link),
            false => Err(Fault::not_ours(interface, &link.mark)),
        }
    }

    /// Returns the link, if the agent creates this kind of link and it is not foreign: hardware, bridges and `lo` are
    /// never marked, even if a document names them.
    async fn markable(&mut self, interface: &InterfaceName) -> Result<Link, Fault> {
        let link = self.existing(interface).await?;
        match &link.kind {
            LinkKind::Loopback | LinkKind::Other(_) => Err(Fault::not_ours(interface, &link.mark)),
            _ if matches!(link.mark, Mark::Foreign(_)) => {
                Err(Fault::not_ours(interface, &link.mark))
            }
            _ => Ok(link),
        }
    }

    /// Begins the change of an address: returns its link, which is the agent's, or `lo`, which may carry the agent's loopback
    /// addresses, and the message.
    async fn address_change(
        &mut self,
        interface: &InterfaceName,
        address: &Address,
    ) -> Result<(Link, AddressMessage), Fault> {
        let link = self.existing(interface).await?;
        match (&link.kind, &link.mark) {
            (_, mark) if mark.is_ours() => {}
            (LinkKind::Loopback, _) if !address.local.addr().is_loopback() => {}
            (_, mark) => return Err(Fault::not_ours(interface, mark)),
        }
        count(&self.kernel.counters.address_writes);
        let message = address_message::message(link.index, address);
        Ok((link, message))
    }

    /// Makes settings of one link with one message. If the kernel refuses it, they are made one by one, so that each
    /// has its own result.
    async fn set(&mut self, actions: &[&KernelAction]) -> Vec<Result<(), Fault>> {
        match self.set_joined(actions).await {
            Ok(()) => actions.iter().map(|_| Ok(())).collect(),
            Err(Fault::Io(error)) if actions.len() > 1 && error.raw_os_error().is_some() => {
                let mut results = Vec::new();
                for action in actions {
                    let result = self.set_joined(&[action]).await;
                    let is_over = result.is_err();
                    results.push(result);
                    if is_over {
                        break;
                    }
                }
                results
            }
            Err(fault) => vec![Err(fault)],
        }
    }

    async fn set_joined(&mut self, actions: &[&KernelAction]) -> Result<(), Fault> {
        let Some((interface, first)) = actions.first().and_then(|it| Some((setting_of(it)?, it)))
        else {
            return Ok(());
        };
        let mut link = match first {
            KernelAction::SetMark { .. } => self.markable(interface).await?,
            _ => self.ours(interface).await?,
        };
        let index = link.index;
        let mut messages = Vec::with_capacity(actions.len());
        for action in actions {
            messages.push(match action {
                KernelAction::SetMark { uid, .. } => {
                    let alias = Alias {
                        identity: Some(self.kernel.identity()?),
                        object: uid.clone(),
                    };
                    link.mark = Mark::Ours(uid.clone());
                    link_message::alias(index, &alias)
                }
                KernelAction::DisableKernelAddresses { .. } => {
                    link_message::no_kernel_addresses(index)
                }
                KernelAction::AllowKernelAddresses { .. } => link_message::kernel_addresses(index),
                KernelAction::SetMtu { mtu, .. } => link_message::mtu(index, *mtu),
                _ => {
                    link.up = true;
                    link_message::up(index)
                }
            });
        }
        let message = link_message::joined(messages);
        self.kernel.change_link(message).await?;
        self.links.insert(interface.clone(), link);
        Ok(())
    }

    async fn set_down(&mut self, interface: &InterfaceName) -> Result<(), Fault> {
        let mut link = self.ours(interface).await?;
        let message = link_message::down(link.index);
        self.kernel.change_link(message).await?;
        link.up = false;
        self.links.insert(interface.clone(), link);
        Ok(())
    }

    /// Removes the mark, so that the agent does not touch the link any more.
    async fn clear_mark(&mut self, interface: &InterfaceName, uid: &Uid) -> Result<(), Fault> {
        let Some(link) = self.find_now(interface).await? else {
            return Ok(());
        };
        if !link.mark.is(uid) {
            return Err(Fault::not_ours(interface, &link.mark));
        }
        self.links.remove(interface);
        let message = link_message::no_alias(link.index);
        Ok(self.kernel.change_link(message).await?)
    }

    async fn set_gre_ends(
        &mut self,
        interface: &InterfaceName,
        kind: &NewLink,
    ) -> Result<(), Fault> {
        let link = self.ours(interface).await?;
        let message = link_message::new_gre_ends(link.index, interface, kind);
        let message = message.ok_or_else(two_families)?;
        Ok(self.kernel.change_link(message).await?)
    }

    async fn create(&mut self, interface: &InterfaceName, kind: &NewLink) -> Result<(), Fault> {
        count(&self.kernel.counters.link_writes);
        if *kind == NewLink::WireGuard {
            return self.create_wireguard(interface).await;
        }
        let message = link_message::new_link(interface, kind).ok_or_else(two_families)?;
        match self.create_in_kernel(interface, message).await {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Err(Fault::Unsupported(no_driver(kind)))
            }
            done => Ok(done?),
        }
    }

    async fn create_in_kernel(
        &mut self,
        interface: &InterfaceName,
        message: LinkMessage,
    ) -> io::Result<()> {
        let created = self.kernel.netlink.create(message).await?;
        if let Some(link) = created.and_then(|message| self.kernel.parsed(&message)) {
            self.links.insert(interface.clone(), link);
        }
        Ok(())
    }

    /// Creates a link and deletes it. A link left by a crash is treated like one just created: it is
    /// down, without a mark, and its name is derived from one of the agent's objects.
    async fn try_link(&mut self, interface: &InterfaceName, kind: &NewLink) -> Result<(), Fault> {
        if self.find(interface).await?.is_none() {
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
        &mut self,
        interface: &InterfaceName,
        uid: &Uid,
        to: &InterfaceName,
    ) -> Result<(), Fault> {
        self.links.remove(interface);
        let mut link = self.existing(interface).await?;
        if !link.mark.is(uid) {
            return Err(Fault::not_ours(interface, &link.mark));
        }
        if link.kind == LinkKind::Tun {
            return Err(Fault::said(
                "the control socket of userspace WireGuard goes by the first name of its link",
            ));
        }
        let kernel = self.kernel;
        if link.up {
            kernel.change_link(link_message::down(link.index)).await?;
        }
        let renamed = kernel
            .change_link(link_message::rename(link.index, to))
            .await;
        if renamed.is_err() && link.up {
            // The link keeps working under its old name.
            kernel.change_link(link_message::up(link.index)).await?;
        }
        renamed?;
        self.links.remove(interface);
        link.up = false;
        self.links.insert(to.clone(), link);
        Ok(())
    }

    async fn create_wireguard(&mut self, interface: &InterfaceName) -> Result<(), Fault> {
        let in_kernel = match self.kernel.backend {
            Backend::Auto => !self.kernel.kernel_lacks_wireguard.load(Ordering::Relaxed),
            Backend::Kernel => true,
            Backend::Userspace => false,
        };
        if in_kernel && let Some(message) = link_message::new_link(interface, &NewLink::WireGuard) {
            match self.create_in_kernel(interface, message).await {
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
        if self.kernel.backend == Backend::Kernel {
            return Err(Fault::Unsupported(
                "the kernel has no WireGuard; load it with `modprobe wireguard`, \
                 or set wireguard.backend to auto"
                    .to_owned(),
            ));
        }
        let lacks = &self.kernel.kernel_lacks_wireguard;
        lacks.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn create_userspace(&mut self, interface: &InterfaceName) -> Result<(), Fault> {
        // A process that finds a tun of its name would use it, even a foreign one.
        if self.kernel.netlink.link(interface).await?.is_some() {
            return Err(Fault::said("a link of this name exists already"));
        }
        self.kernel.userspace.start(interface).await?;
        match self.find(interface).await? {
            Some(_) => Ok(()),
            None => Err(Fault::said(
                "the userspace WireGuard runs, but its link is not in this namespace",
            )),
        }
    }

    async fn configure(
        &mut self,
        interface: &InterfaceName,
        patch: &WireGuardPatch,
    ) -> Result<(), Fault> {
        let link = self.ours(interface).await?;
        let (kernel, writes) = (self.kernel, &self.kernel.counters.wireguard_writes);
        match link.kind {
            LinkKind::Tun => {
                // Its socket goes by the name of its link.
                self.links.remove(interface);
                self.ours(interface).await?;
                count(writes);
                Ok(uapi::set(&kernel.userspace.socket(interface), patch).await?)
            }
            LinkKind::WireGuard => {
                count(writes);
                Ok(kernel.devices.set(link.index, patch).await?)
            }
            _ => Err(Fault::said("it is not a WireGuard link")),
        }
    }

    /// Adds an address. The kernel creates the route to the other end of an IPv6 address a moment later, after
    /// duplicate address detection, even if that is off (`__ipv6_ifa_notify`; measured, Linux 6.18: a dump at once
    /// does not have it). It is created here, so that it does not count as missing, and BGP can connect.
    async fn add_address(
        &mut self,
        interface: &InterfaceName,
        address: &Address,
    ) -> Result<(), Fault> {
        let (link, message) = self.address_change(interface, address).await?;
        let message = RouteNetlinkMessage::NewAddress(message);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.kernel.netlink.change(message, flags).await?;
        match address.route() {
            Some(route) if address.peer.is_some_and(|peer| peer.is_ipv6()) && link.up => {
                self.add_route(link.index, route, None).await
            }
            _ => Ok(()),
        }
    }

    /// Removes an address. IPv4 compares the peer too. IPv6 identifies an address of a link by the address and its
    /// length alone (`inet6_addr_del`); there is only one such.
    async fn remove_address(
        &mut self,
        interface: &InterfaceName,
        address: &Address,
    ) -> Result<(), Fault> {
        let (_, message) = self.address_change(interface, address).await?;
        let message = RouteNetlinkMessage::DelAddress(message);
        match self.kernel.netlink.change(message, 0).await {
            // Already gone, which is the wanted state.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
            done => Ok(done?),
        }
    }

    /// Adds a route, in addition to any other route to the same destination, as the kernel itself does (`fib_magic`).
    async fn add_route(
        &self,
        index: u32,
        destination: IpNet,
        source: Option<Ipv4Addr>,
    ) -> Result<(), Fault> {
        count(&self.kernel.counters.route_writes);
        let message = route_message::message(index, destination, source);
        let message = RouteNetlinkMessage::NewRoute(message);
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        match self.kernel.netlink.change(message, flags).await {
            // Already there, which is the wanted state.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => Ok(done?),
        }
    }

    /// Sets sysctls, each with its own result. Blocks the thread of the connections.
    async fn set_sysctls(&mut self, actions: &[&KernelAction]) -> Vec<Result<(), Fault>> {
        // Sysctls go by the name of their link.
        for interface in actions.iter().filter_map(|action| action.interface()) {
            self.links.remove(interface);
        }
        let mut checked = Vec::with_capacity(actions.len());
        for action in actions {
            checked.push(self.settable(action).await);
        }
        block_here(|| checked.into_iter().map(|it| Ok(it?.write()?)).collect())
    }

    /// Returns the sysctl of an action, if its link is the agent's.
    async fn settable(&mut self, action: &KernelAction) -> Result<Setting, Fault> {
        let KernelAction::SetSysctl {
            interface,
            key,
            value,
        } = action
        else {
            return Err(Fault::said("it is not a sysctl"));
        };
        let mut have = None;
        if let Some(interface) = interface {
            have = self.ours(interface).await?.sysctls.get(key).copied();
        }
        count(&self.kernel.counters.sysctl_writes);
        let (interface, key, value) = (interface.clone(), *key, *value);
        Ok(Setting {
            interface,
            key,
            value,
            have,
        })
    }

    async fn delete(&mut self, interface: &InterfaceName, uid: &Uid) -> Result<(), Fault> {
        let Some(link) = self.find_now(interface).await? else {
            return Ok(());
        };
        if !link.mark.is(uid) {
            return Err(Fault::not_ours(interface, &link.mark));
        }
        self.delete_link(interface, &link).await
    }

    async fn delete_link(&mut self, interface: &InterfaceName, link: &Link) -> Result<(), Fault> {
        let kernel = self.kernel;
        count(&kernel.counters.link_writes);
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let message = RouteNetlinkMessage::DelLink(message);
        match kernel.netlink.change(message, 0).await {
            Err(error) if error.raw_os_error() == Some(ENODEV) => {}
            done => done?,
        }
        self.links.remove(interface);
        if link.kind == LinkKind::Tun {
            kernel.userspace.wait_for_end(interface).await?;
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
