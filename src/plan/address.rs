//! The addresses of a tunnel's link: exactly the wanted ones. On a link of ours nobody else has any.

use std::collections::BTreeSet;

use super::action::KernelAction;
use super::kernel_view::Link;
use super::tunnel::WantedTunnel;
use super::{Drift, Step};

/// Removes before it adds: a point-to-point address cannot change its peer while it is there.
pub(super) fn compare(wanted: &WantedTunnel, link: Option<&Link>) -> Vec<Step> {
    let none = BTreeSet::new();
    let have = link.map_or(&none, |link| &link.addresses);
    let interface = || wanted.interface.clone();
    let removed = have.difference(&wanted.addresses).map(|address| {
        let action = KernelAction::RemoveAddress { interface: interface(), address: *address };
        Step::kernel(action, Drift::surplus("tunnel.address", address))
    });
    let added = wanted.addresses.difference(have).map(|address| {
        let action = KernelAction::AddAddress { interface: interface(), address: *address };
        Step::kernel(action, Drift::missing("tunnel.address", address))
    });
    removed.chain(added).collect()
}
