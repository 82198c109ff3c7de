//! The kernel of this router: links, addresses and their routes, WireGuard (the kernel's, or a userspace one) and
//! the sysctls of interfaces.
//!
//! No netlink type leaves this module. Every write goes through [`LinuxKernel::apply`], which reads
//! the link's mark again before the changes of an object and counts each write.

mod address_message;
mod apply;
mod brief;
mod connection;
mod counters;
mod error;
mod events;
mod features;
mod joint;
pub mod keys;
mod link_message;
mod netlink;
mod nftables_events;
mod observe;
mod process;
mod route_message;
mod source;
mod sysctl;
mod uapi;
mod userspace;
mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

pub use crate::config::Backend;
pub(crate) use counters::KernelCounters;
pub use events::events;
pub(crate) use features::{WireGuard, wireguard};
pub use nftables_events::nftables_events;
pub(crate) use source::source_towards;

use crate::model::InterfaceName;
use crate::observed::Mark;
use crate::observed::SharedOwnership;
use crate::observed::kernel::{KernelView, Link, SavedRoute, Sysctl};
use crate::plan::action::KernelAction;
use crate::ports::{Kernel, KernelError};
use crate::util::task::blocking;
use error::Fault;
use netlink::Netlink;
use userspace::Userspace;
use wireguard::Devices;

/// Options of the kernel access.
#[derive(Debug, Clone)]
pub struct KernelOptions {
    /// The WireGuard implementation for new links. Existing links keep theirs.
    pub backend: Backend,
    /// The program of userspace WireGuard; `None` means `$WG_USERSPACE_IMPLEMENTATION`, else
    /// `wireguard-go`.
    pub userspace: Option<OsString>,
    /// The directory of the control sockets of such programs. They all use one fixed directory; another one
    /// is for tests.
    pub socket_dir: PathBuf,
    /// Decides which links are the agent's.
    pub ownership: SharedOwnership,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            userspace: None,
            socket_dir: PathBuf::from("/var/run/wireguard"),
            ownership: SharedOwnership::default(),
        }
    }
}

/// The Linux kernel, in the network namespace of this process.
///
/// Guarantees: only [`Kernel::apply`] changes anything; a link without the agent's mark is never changed,
/// except by [`KernelAction::SetMark`] itself on a kind of link that the agent creates, and addresses on `lo`.
///
/// Caveats: between the check of the mark and the change, root could give the link to another owner.
/// Changes use the link's index, so that at least no new link of the name is affected; userspace WireGuard and sysctls
/// use the name.
#[derive(Clone)]
pub struct LinuxKernel {
    backend: Backend,
    userspace: Arc<Userspace>,
    netlink: Arc<Netlink>,
    devices: Arc<Devices>,
    counters: Arc<KernelCounters>,
    /// Detected with the first WireGuard link, and remembered until the agent restarts.
    kernel_lacks_wireguard: Arc<AtomicBool>,
    ownership: SharedOwnership,
}

impl LinuxKernel {
    /// Creates a kernel whose first call opens the connection; no IO happens here.
    pub fn new(options: KernelOptions) -> Self {
        Self {
            backend: options.backend,
            userspace: Arc::new(Userspace {
                program: options.userspace,
                socket_dir: options.socket_dir,
                last_key: Arc::default(),
            }),
            netlink: Arc::default(),
            devices: Arc::default(),
            counters: Arc::default(),
            kernel_lacks_wireguard: Arc::default(),
            ownership: options.ownership,
        }
    }

    /// Reads the sysctls of a link, whether or not it carries a mark.
    pub(crate) async fn sysctls(&self, interface: &InterfaceName) -> BTreeMap<Sysctl, i64> {
        let interface = interface.clone();
        blocking(move || sysctl::read(interface.as_str())).await
    }

    /// Returns the routes that an operator made through a link, in all tables.
    ///
    /// # Errors
    /// When the routes cannot be read.
    pub(crate) async fn operators_routes(
        &self,
        interface: &InterfaceName,
    ) -> Result<BTreeSet<SavedRoute>, KernelError> {
        let read = async {
            match self.fresh(interface).await? {
                Some(link) => self.netlink.operators_routes(link.index).await,
                None => Ok(BTreeSet::new()),
            }
        };
        let what = || format!("read the routes through {interface}");
        read.await.map_err(|error| Fault::Io(error).at(what()))
    }

    /// Creates a saved route again. The link must carry the agent's mark.
    ///
    /// # Errors
    /// When it does not, or the kernel refuses the route.
    pub(crate) async fn restore_route(
        &self,
        interface: &InterfaceName,
        route: &SavedRoute,
    ) -> Result<(), KernelError> {
        let what = || format!("restore a route through {interface}");
        let done = self.put_back(interface, route).await;
        done.map_err(|fault| fault.at(what()))
    }

    /// Returns the gateways of the routes of an operator or of autoconfiguration, each with the link that leads to it.
    ///
    /// # Errors
    /// When the routes cannot be read.
    pub async fn gateways(&self) -> Result<BTreeSet<(InterfaceName, IpAddr)>, KernelError> {
        let read = async {
            let mut named = BTreeSet::new();
            for (index, gateway) in self.netlink.gateways().await? {
                let link = self.netlink.link_at(index).await?;
                let name = link.as_ref().and_then(netlink::name_of);
                // A link that disappeared meanwhile took its routes along.
                if let Some(name) = name.and_then(|name| name.parse().ok()) {
                    named.insert((name, gateway));
                }
            }
            Ok(named)
        };
        read.await
            .map_err(|error| Fault::Io(error).at("read gateways".to_owned()))
    }

    /// Returns the counters of writes to the kernel.
    pub fn counters(&self) -> Arc<KernelCounters> {
        Arc::clone(&self.counters)
    }
}

#[async_trait]
impl Kernel for LinuxKernel {
    async fn observe(&self) -> Result<KernelView, KernelError> {
        observe::observe(self)
            .await
            .map_err(|error| Fault::Io(error).at("read links and addresses".to_owned()))
    }

    async fn observe_wireguard(&self, mut view: KernelView) -> KernelView {
        observe::add_unannounced(self, &mut view).await;
        view
    }

    async fn observe_links(
        &self,
        names: &BTreeSet<InterfaceName>,
    ) -> Result<BTreeMap<InterfaceName, Option<Link>>, KernelError> {
        observe::observe_links(self, names)
            .await
            .map_err(|error| Fault::Io(error).at("read a link and its addresses".to_owned()))
    }

    async fn apply(&self, actions: &[&KernelAction]) -> Vec<Result<(), KernelError>> {
        let kernel = self.clone();
        let actions: Vec<_> = actions.iter().copied().cloned().collect();
        connection::on_thread(async move {
            let actions: Vec<_> = actions.iter().collect();
            kernel.run(&actions).await
        })
        .await
    }

    async fn is_starting(&self, interface: &InterfaceName) -> bool {
        // In this order: a link that its process creates in between is found.
        if !self.userspace.is_running(interface).await {
            return false;
        }
        let link = self.fresh(interface).await;
        link.is_ok_and(|link| link.is_none_or(|link| link.mark == Mark::None))
    }
}
