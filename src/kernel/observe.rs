//! Observation: one dump of links, addresses and routes, and one query per WireGuard device.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use futures::StreamExt as _;
use tracing::debug;

use super::error::ENODEV;
use super::netlink::Dump;
use super::wireguard::Devices;
use super::{LinuxKernel, address_message, link_message, route_message, sysctl, uapi};
use crate::model::InterfaceName;
use crate::observed::Ownership;
use crate::observed::kernel::{KernelView, Link, LinkKind, Unread, WireGuard};
use crate::util::sorted::Sorted as _;
use crate::util::task::blocking;

/// Number of control sockets queried at the same time.
const AT_ONCE: usize = 32;

/// The result of querying a device.
enum Answer {
    Is(WireGuard),
    /// The link went away since the dump.
    Gone,
    /// A tun device of another program.
    NoWireGuard,
    /// It is unknown at the moment whether it is WireGuard, and with which configuration: the query failed.
    Unread(io::Error),
}

pub(super) async fn observe(kernel: &LinuxKernel) -> io::Result<KernelView> {
    let mut view = assemble(&kernel.netlink.dump().await?, &kernel.ownership.get());
    add_unannounced(kernel, &mut view).await;
    Ok(view)
}

/// Reads what no event announces: the configuration of WireGuard, and the sysctls of all links together.
pub(super) async fn add_unannounced(kernel: &LinuxKernel, view: &mut KernelView) {
    let (all, ()) = tokio::join!(blocking(sysctl::read_all), add_wireguard(kernel, view));
    view.all = all;
}

/// Reads these links alone.
pub(super) async fn observe_links(
    kernel: &LinuxKernel,
    names: &BTreeSet<InterfaceName>,
) -> io::Result<BTreeMap<InterfaceName, Option<Link>>> {
    let ownership = kernel.ownership.get();
    let mut dump = Dump::default();
    for name in names {
        let Some(link) = kernel.netlink.link(name).await? else {
            continue;
        };
        let parsed = link_message::parse(&link, &ownership);
        let is_foreign = parsed.is_some_and(|(_, link)| !link.mark.is_ours());
        let dumped = kernel.netlink.dump_link(link, is_foreign, &mut dump);
        match dumped.await {
            // It went away meanwhile.
            Err(error) if error.raw_os_error() == Some(ENODEV) => drop(dump.links.pop()),
            dumped => dumped?,
        }
    }
    let mut view = assemble(&dump, &ownership);
    add_wireguard(kernel, &mut view).await;
    let found = |name: &InterfaceName| (name.clone(), view.links.remove(name));
    Ok(names.iter().map(found).sorted_map())
}

/// Adds the configuration of the WireGuard links of a view.
async fn add_wireguard(kernel: &LinuxKernel, view: &mut KernelView) {
    let of_kind = |kind: LinkKind| -> Vec<(InterfaceName, u32)> {
        let links = view.links.iter().filter(|(_, link)| link.kind == kind);
        links
            .map(|(name, link)| (name.clone(), link.index))
            .collect()
    };
    let (devices, tuns) = (of_kind(LinkKind::WireGuard), of_kind(LinkKind::Tun));
    let (of_kernel, of_sockets) = tokio::join!(
        ask_kernel(&kernel.devices, devices),
        ask_sockets(kernel, tuns),
    );
    for (name, answer) in of_kernel.into_iter().chain(of_sockets) {
        fill_in(view, name, answer);
    }
}

/// Converts the dump to one view. Pure.
fn assemble(dump: &Dump, ownership: &Ownership) -> KernelView {
    let parsed = dump
        .links
        .iter()
        .filter_map(|message| link_message::parse(message, ownership));
    let mut links: BTreeMap<u32, _> = parsed
        .map(|(name, link)| (link.index, (name, link)))
        .sorted_map();
    for message in &dump.addresses {
        let Some((index, address)) = address_message::parse(message) else {
            continue;
        };
        if let Some((_, link)) = links.get_mut(&index) {
            link.learnt |= address_message::is_learnt(message);
            link.addresses.insert(address);
        }
    }
    for (index, destination) in dump.routes.iter().filter_map(route_message::parse) {
        if let Some((_, link)) = links.get_mut(&index) {
            link.routes.insert(destination);
        }
    }
    for index in dump.routes.iter().filter_map(route_message::learnt_through) {
        if let Some((_, link)) = links.get_mut(&index) {
            link.learnt = true;
        }
    }
    let others = links.values_mut().map(|(_, link)| link);
    let others = others.filter(|link| !link.mark.is_ours() && !link.learnt);
    others.for_each(|link| link.sysctls.clear());
    KernelView {
        links: links.into_values().collect(),
        ..KernelView::default()
    }
}

fn fill_in(view: &mut KernelView, name: InterfaceName, answer: Answer) {
    let (wireguard, unread) = match answer {
        Answer::Is(wireguard) => (Some(wireguard), None),
        Answer::Unread(why) => (None, Some(Unread::new(why.to_string()))),
        Answer::NoWireGuard => (None, None),
        Answer::Gone => return drop(view.links.remove(&name)),
    };
    // A link that is as before stays shared with the earlier view.
    let is_same = |link: &Link| (&link.wireguard, &link.unread) == (&wireguard, &unread);
    if !view.links.get(&name).is_some_and(is_same)
        && let Some(link) = view.links.get_mut(&name)
    {
        (link.wireguard, link.unread) = (wireguard, unread);
    }
}

async fn ask_kernel(
    devices: &Devices,
    links: Vec<(InterfaceName, u32)>,
) -> Vec<(InterfaceName, Answer)> {
    let mut answers = Vec::with_capacity(links.len());
    let mut is_late = false;
    for (name, index) in links {
        // A kernel that does not answer is not asked about each link in turn.
        let reply = match is_late {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => devices.get(index).await,
        };
        is_late |= reply
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        let answer = answer(&name, reply);
        answers.push((name, answer));
    }
    answers
}

async fn ask_sockets(
    kernel: &LinuxKernel,
    tuns: Vec<(InterfaceName, u32)>,
) -> Vec<(InterfaceName, Answer)> {
    let names: Vec<_> = tuns.into_iter().map(|(name, _)| name).collect();
    let sockets = names.iter().map(|name| kernel.userspace.socket(name));
    let sockets: Vec<_> = sockets.collect();
    let last_key = Arc::clone(&kernel.userspace.last_key);
    let prompt = blocking(move || uapi::get_prompt(&sockets, &last_key)).await;
    let ask = |(name, prompt): (InterfaceName, Option<io::Result<WireGuard>>)| async move {
        let reply = match prompt {
            Some(reply) => reply,
            None => uapi::get(&kernel.userspace.socket(&name), &kernel.userspace.last_key).await,
        };
        // A socket disappears with its link, so a failed query may mean that both are gone.
        if reply.is_err() && matches!(kernel.netlink.link(&name).await, Ok(None)) {
            return (name, Answer::Gone);
        }
        let answer = match reply {
            // A tun without a socket, or with a socket whose process is gone, is not WireGuard.
            Err(error) if is_no_wireguard(&error) => Answer::NoWireGuard,
            reply => answer(&name, reply),
        };
        (name, answer)
    };
    futures::stream::iter(names.into_iter().zip(prompt))
        .map(ask)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

fn is_no_wireguard(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn answer(name: &InterfaceName, reply: io::Result<WireGuard>) -> Answer {
    match reply {
        Ok(wireguard) => Answer::Is(wireguard),
        Err(error) if error.raw_os_error() == Some(ENODEV) => Answer::Gone,
        Err(error) => {
            // The object's condition has the error, and each observation would add a log line.
            debug!(interface = %name, %error, "cannot read the WireGuard configuration");
            Answer::Unread(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::LinkDummy;

    use super::*;
    use crate::model::Address;

    #[test]
    fn addresses_and_routes_come_to_the_link_of_their_index() {
        let link = |name: &str, index| LinkDummy::new(name).index(index).build();
        let address = Address::new("fe80::1/64".parse().unwrap(), None);
        let addresses = [2, 9]
            .map(|index| address_message::message(index, &address))
            .into();
        let routes = [2, 9]
            .map(|index| route_message::message(index, "fe80::/64".parse().unwrap(), None))
            .into();
        let view = assemble(
            &Dump {
                links: vec![link("a", 1), link("b", 2)],
                addresses,
                routes,
            },
            &Ownership::default(),
        );
        let counts: Vec<_> = view
            .links
            .values()
            .map(|link| (link.addresses.len(), link.routes.len()))
            .collect();
        assert_eq!(counts, [(0, 0), (1, 1)]);
    }

    #[test]
    fn route_of_router_advertisements_is_noted_with_its_link() {
        let link = |name: &str, index| LinkDummy::new(name).index(index).build();
        let requests = [
            route_message::requests(1)[1].clone(),
            route_message::learnt_request(2),
        ];
        let dump = Dump {
            links: vec![link("a", 1), link("b", 2)],
            addresses: Vec::new(),
            routes: requests.into(),
        };
        let view = assemble(&dump, &Ownership::default());
        let learnt: Vec<_> = view.links.values().map(|link| link.learnt).collect();
        assert_eq!(learnt, [false, true]);
    }

    #[test]
    fn link_deleted_after_the_dump_is_absent() {
        let mut view = assemble(
            &Dump {
                links: vec![LinkDummy::new("a").build()],
                ..Dump::default()
            },
            &Ownership::default(),
        );
        let name: InterfaceName = "a".parse().unwrap();
        let gone = answer(&name, Err(io::Error::from_raw_os_error(ENODEV)));
        fill_in(&mut view, name, gone);
        assert!(view.links.is_empty());
    }

    #[test]
    fn unanswered_question_is_not_read_as_another_kind() {
        let mut view = assemble(
            &Dump {
                links: vec![LinkDummy::new("a").build()],
                ..Dump::default()
            },
            &Ownership::default(),
        );
        let name: InterfaceName = "a".parse().unwrap();
        let late = || Err(io::Error::from(io::ErrorKind::TimedOut));
        fill_in(&mut view, name.clone(), answer(&name, late()));
        assert!(view.links[&name].is_wireguard() && view.links[&name].wireguard.is_none());
    }
}
