//! The node's own addresses, on a dummy device of ours or on `lo`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::action::{KernelAction, NewLink};
use super::kernel_view::{Address, KernelView, LinkKind};
use super::{Drift, Plan, Refusal, Step};
use crate::model::{InterfaceName, Uid};

/// The node's addresses as the kernel is to have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loopback {
    /// What marks a dummy device of ours.
    pub uid: Uid,
    /// The interface: a dummy device, which is created when missing, or `lo`.
    pub interface: InterfaceName,
    /// The addresses.
    pub addresses: BTreeSet<Address>,
    /// The addresses that `applied/` says we put there: on a shared interface only these are ours to
    /// remove.
    pub ours_before: BTreeSet<Address>,
}

impl Loopback {
    /// The node's loopback addresses as host addresses.
    pub fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> BTreeSet<Address> {
        let v4 = v4.map(|address| Address::new(Ipv4Net::new_assert(address, 32).into(), None));
        let v6 = v6.map(|address| Address::new(Ipv6Net::new_assert(address, 128).into(), None));
        v4.into_iter().chain(v6).collect()
    }
}

/// What puts the node's addresses in place.
///
/// # Errors
/// When the interface is neither `lo`, nor ours, nor a dummy device.
pub fn plan_loopback(want: &Loopback, kernel: &KernelView) -> Result<Plan, Refusal> {
    let link = kernel.links.get(&want.interface);
    let mut plan = Plan::default();
    if want.addresses.is_empty() && want.ours_before.is_empty() {
        return Ok(plan);
    }
    match link {
        None => plan.extend(create(want)),
        Some(link)
            if matches!(link.kind, LinkKind::Loopback | LinkKind::Dummy) || link.mark.is(&want.uid) => {}
        Some(_) => {
            let reason = format!(
                "{} is neither lo nor a dummy device; name another in loopback.interface",
                want.interface
            );
            return Err(Refusal { field: "loopback.interface", reason });
        }
    }
    let ours = link.is_some_and(|link| link.mark.is(&want.uid));
    let have = link.map(|link| link.addresses.clone()).unwrap_or_default();
    let removable =
        |address: &&Address| (ours && !is_link_local(address)) || want.ours_before.contains(address);
    plan.extend(have.difference(&want.addresses).filter(removable).map(|address| {
        let action = KernelAction::RemoveAddress { interface: want.interface.clone(), address: *address };
        Step::kernel(action, Drift::surplus("node.loopback", address))
    }));
    plan.extend(want.addresses.difference(&have).map(|address| {
        let action = KernelAction::AddAddress { interface: want.interface.clone(), address: *address };
        Step::kernel(action, Drift::missing("node.loopback", address))
    }));
    if !link.is_some_and(|link| link.up) {
        let action = KernelAction::SetUp { interface: want.interface.clone() };
        plan.extend([Step::kernel(action, Drift::new("node.loopback", "up", "down"))]);
    }
    Ok(plan)
}

/// The kernel makes one on every dummy device; it does no harm there.
fn is_link_local(address: &Address) -> bool {
    matches!(address.local, ipnet::IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn create(want: &Loopback) -> Vec<Step> {
    let interface = || want.interface.clone();
    let because = || Drift::missing("loopback.interface", &want.interface);
    vec![
        Step::kernel(KernelAction::CreateLink { interface: interface(), kind: NewLink::Dummy }, because()),
        Step::kernel(KernelAction::SetMark { interface: interface(), uid: want.uid.clone() }, because()),
    ]
}
