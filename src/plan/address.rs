//! The addresses of a tunnel's link: exactly the wanted ones, because only the agent sets addresses on its links. And
//! the
//! routes that the kernel creates for them, which lead to the neighbour.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::action::KernelAction;
use super::wanted::WantedTunnel;
use super::{Drift, Step};
use crate::model::Address;
use crate::observed::kernel::Link;
use crate::util::sorted::Sorted as _;

/// The changes of a link's addresses, before and after it is brought up.
pub(super) struct Changes {
    pub(super) before_up: Vec<Step>,
    pub(super) after_up: Vec<Step>,
}

/// Removes before it adds: the peer of an existing point-to-point address cannot be changed.
pub(super) fn compare(wanted: &WantedTunnel, link: Option<&Link>) -> Changes {
    let none = BTreeSet::new();
    let have = link.map_or(&none, |link| &link.addresses);
    let down = !link.is_some_and(|link| link.up);
    let keeps =
        |address: &&Address| wanted.addresses.contains(address) && !(down && needs_up(address));
    let kept: BTreeSet<_> = have.iter().filter(keeps).copied().sorted_set();
    let interface = || wanted.interface.clone();
    let removed = have.difference(&kept).map(|address| {
        let action = KernelAction::RemoveAddress {
            interface: interface(),
            address: *address,
        };
        let because = match wanted.addresses.contains(address) {
            true => Drift::new(
                "tunnel.address",
                format!("{address} with its route"),
                "it alone",
            ),
            false => Drift::surplus("tunnel.address", address),
        };
        Step::kernel(action, because)
    });
    let add = |address: &Address| {
        let action = KernelAction::AddAddress {
            interface: interface(),
            address: *address,
        };
        Step::kernel(action, Drift::missing("tunnel.address", address))
    };
    let (late, early): (Vec<_>, Vec<_>) = wanted
        .addresses
        .difference(&kept)
        .partition(|address| down && needs_up(address));
    Changes {
        before_up: removed.chain(early.into_iter().map(add)).collect(),
        after_up: late
            .into_iter()
            .map(add)
            .chain(routes(wanted, link, &kept))
            .collect(),
    }
}

/// Restores removed routes of addresses that stay: the kernel creates them with the address, and again only
/// when the link goes up. They are created as the kernel does, so that they are removed with their
/// address. Another route to the same destination is foreign and stays.
fn routes(wanted: &WantedTunnel, link: Option<&Link>, kept: &BTreeSet<Address>) -> Vec<Step> {
    let Some(link) = link.filter(|link| link.up) else {
        return Vec::new();
    };
    let missing = kept.iter().filter_map(|address| {
        let destination = address
            .route()
            .filter(|route| !link.routes.contains(route))?;
        let source = match address.local.addr() {
            IpAddr::V4(ours) => Some(ours),
            IpAddr::V6(_) => None,
        };
        let action = KernelAction::AddRoute {
            interface: wanted.interface.clone(),
            destination,
            source,
        };
        Some(Step::kernel(
            action,
            Drift::missing("tunnel.route", destination),
        ))
    });
    missing.collect()
}

/// The kernel creates the route to the other end of an IPv6 address when the address is added to a link that is
/// up. When a link that already has such an address comes up, it gets a route to the local end instead
/// (`fixup_permanent_addr`; measured, Linux 6.18). IPv4 gets the route in both cases.
fn needs_up(address: &Address) -> bool {
    address.peer.is_some_and(|peer| peer.is_ipv6())
}
