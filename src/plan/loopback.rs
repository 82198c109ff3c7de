//! The node's own addresses, on the agent's dummy device or on `lo`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::action::{KernelAction, NewLink};
use super::{Drift, Plan, Refusal, Step};
use crate::model::{Address, InterfaceName, Uid};
use crate::observed::kernel::{KernelView, Link, LinkKind};

/// The wanted addresses of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loopback {
    /// The mark of the agent's dummy device.
    pub uid: Uid,
    /// The interface: a dummy device, which is created when missing, or `lo`.
    pub interface: InterfaceName,
    /// The addresses.
    pub addresses: BTreeSet<Address>,
    /// The addresses that the agent added according to the node's applied record: on a shared interface only these are
    /// removed.
    pub ours_before: BTreeSet<Address>,
}

impl Loopback {
    /// Returns the node's loopback addresses as host addresses.
    pub fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> BTreeSet<Address> {
        let (v4, v6) = (v4.map(IpAddr::from), v6.map(IpAddr::from));
        v4.into_iter().chain(v6).map(Self::host).collect()
    }

    /// A host address.
    pub fn host(address: IpAddr) -> Address {
        Address::new(IpNet::from(address), None)
    }
}

/// Plans the node's addresses.
///
/// # Errors
/// When the interface is neither `lo`, nor the agent's, nor a dummy device.
pub fn plan_loopback(want: &Loopback, kernel: &KernelView) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    if want.addresses.is_empty() && want.ours_before.is_empty() {
        return Ok(plan);
    }
    match kernel.links.get(&want.interface) {
        None if want.addresses.is_empty() => {}
        None => {
            plan.extend(create(want));
            plan.extend(settle(want, None));
        }
        Some(link) if is_usable(want, link) => plan.extend(settle(want, Some(link))),
        Some(_) => {
            let reason = format!(
                "{} is neither lo nor a dummy device; name another in loopback.interface",
                want.interface
            );
            return Err(Refusal {
                field: "loopback.interface",
                reason,
            });
        }
    }
    plan.extend(surplus(want, kernel));
    Ok(plan)
}

fn is_usable(want: &Loopback, link: &Link) -> bool {
    matches!(link.kind, LinkKind::Loopback | LinkKind::Dummy) || link.mark.is(&want.uid)
}

/// Plans addresses, and up.
fn settle(want: &Loopback, link: Option<&Link>) -> Vec<Step> {
    let ours = link.is_some_and(|link| link.mark.is(&want.uid));
    let have = link.map(|link| link.addresses.clone()).unwrap_or_default();
    let removable = |address: &&Address| {
        (ours && !is_link_local(address)) || want.ours_before.contains(address)
    };
    let removed: BTreeSet<_> = have
        .difference(&want.addresses)
        .filter(removable)
        .copied()
        .collect();
    let kept: BTreeSet<_> = have.difference(&removed).copied().collect();
    let added = want
        .addresses
        .difference(&have)
        .filter(|address| !is_there(address, &kept));
    let remove = |address: &Address| {
        let action = KernelAction::RemoveAddress {
            interface: want.interface.clone(),
            address: *address,
        };
        Step::kernel(action, Drift::surplus("node.loopback", address))
    };
    let add = |address: &Address| {
        let action = KernelAction::AddAddress {
            interface: want.interface.clone(),
            address: *address,
        };
        Step::kernel(action, Drift::missing("node.loopback", address))
    };
    let mut steps: Vec<Step> = removed.iter().map(remove).chain(added.map(add)).collect();
    if !link.is_some_and(|link| link.up) {
        let action = KernelAction::SetUp {
            interface: want.interface.clone(),
        };
        steps.push(Step::kernel(
            action,
            Drift::new("node.loopback", "up", "down"),
        ));
    }
    steps
}

/// Returns whether a foreign entry already gives the interface this address. The kernel allows an IPv6 address
/// only once on an interface, independent of its prefix, and would reject a second.
fn is_there(want: &Address, kept: &BTreeSet<Address>) -> bool {
    let address = want.local.addr();
    address.is_ipv6() && kept.iter().any(|there| there.local.addr() == address)
}

/// Removes the agent's dummy device under another name: `loopback.interface` was changed. This step comes last, so that
/// the addresses are never missing.
fn surplus(want: &Loopback, kernel: &KernelView) -> Vec<Step> {
    let others = kernel
        .owned_by(&want.uid)
        .filter(|(name, _)| **name != want.interface);
    others
        .map(|(name, _)| {
            let action = KernelAction::DeleteLink {
                interface: name.clone(),
                uid: want.uid.clone(),
            };
            Step::kernel(
                action,
                Drift::new("loopback.interface", &want.interface, name),
            )
        })
        .collect()
}

/// The kernel creates a link-local address on every dummy device; it is harmless.
fn is_link_local(address: &Address) -> bool {
    matches!(address.local, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

fn create(want: &Loopback) -> Vec<Step> {
    let interface = || want.interface.clone();
    let because = || Drift::missing("loopback.interface", &want.interface);
    vec![
        Step::kernel(
            KernelAction::CreateLink {
                interface: interface(),
                kind: NewLink::Dummy,
            },
            because(),
        ),
        Step::kernel(
            KernelAction::SetMark {
                interface: interface(),
                uid: want.uid.clone(),
            },
            because(),
        ),
    ]
}
