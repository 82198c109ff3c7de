//! The node's own addresses, on the agent's dummy device or on `lo`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::action::{KernelAction, NewLink};
use super::{Drift, Plan, Refusal, Step};
use crate::model::{Address, InterfaceName, Uid};
use crate::observed::Mark;
use crate::observed::kernel::{KernelView, Link, LinkKind};
use crate::util::sorted::Sorted as _;

/// The wanted addresses of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loopback {
    /// The mark of the agent's dummy device.
    pub uid: Uid,
    /// The interface: a dummy device, which is created when missing, or `lo`.
    pub interface: InterfaceName,
    pub addresses: BTreeSet<Address>,
    /// The addresses that the agent added according to the node's applied record: on a shared interface only these are
    /// removed.
    pub ours_before: BTreeSet<Address>,
}

impl Loopback {
    /// Returns the node's loopback addresses as host addresses.
    pub fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> BTreeSet<Address> {
        let (v4, v6) = (v4.map(IpAddr::from), v6.map(IpAddr::from));
        v4.into_iter().chain(v6).map(Self::host).sorted_set()
    }

    pub fn host(address: IpAddr) -> Address {
        Address::new(IpNet::from(address), None)
    }
}

/// Plans the node's addresses. `creating` is the device whose creation was in progress when the node's record was last
/// written.
///
/// # Errors
/// When the interface is neither `lo` nor the agent's, and lacks an address. Its owner may have added them: then nothing
/// is changed.
pub fn plan_loopback(
    want: &Loopback,
    creating: Option<&InterfaceName>,
    kernel: &KernelView,
) -> Result<Plan, Refusal> {
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
        Some(link) if is_usable(want, creating, link) => {
            plan.extend(mark(want, link));
            plan.extend(settle(want, Some(link)));
        }
        Some(link) if has_all(want, link) => {}
        Some(link) => return Err(foreign(want, link)),
    }
    plan.extend(surplus(want, kernel));
    Ok(plan)
}

/// Returns whether the agent may change the link: `lo`, where the record names its addresses, a link with its mark, or
/// one that it was creating.
fn is_usable(want: &Loopback, creating: Option<&InterfaceName>, link: &Link) -> bool {
    let half_created = creating == Some(&want.interface)
        && link.kind == LinkKind::Dummy
        && link.mark == Mark::None;
    link.kind == LinkKind::Loopback || link.mark.is(&want.uid) || half_created
}

/// Returns whether a link has the node's addresses without any change.
fn has_all(want: &Loopback, link: &Link) -> bool {
    let has = |address: &Address| {
        let mut there = link.addresses.iter();
        there.any(|there| there.local.addr() == address.local.addr())
    };
    want.addresses.is_empty() || (link.up && want.addresses.iter().all(has))
}

fn foreign(want: &Loopback, link: &Link) -> Refusal {
    let addresses: Vec<_> = want.addresses.iter().map(ToString::to_string).collect();
    let reason = format!(
        "interface {} {}, so the agent leaves it unchanged: add {} to it, or name lo or an interface that does not exist yet in \
         loopback.interface",
        want.interface,
        link.mark,
        addresses.join(" and ")
    );
    Refusal {
        field: "loopback.interface",
        reason,
    }
}

/// Plans the mark of a device that was created and not marked, or that an earlier build marked.
fn mark(want: &Loopback, link: &Link) -> Option<Step> {
    let is_marked = link.kind == LinkKind::Loopback || link.mark == Mark::Ours(want.uid.clone());
    let action = KernelAction::SetMark {
        interface: want.interface.clone(),
        uid: want.uid.clone(),
    };
    let because = Drift::new("loopback.mark", &want.uid, &link.mark);
    (!is_marked).then(|| Step::kernel(action, because))
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
        .sorted_set();
    let kept: BTreeSet<_> = have.difference(&removed).copied().sorted_set();
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
