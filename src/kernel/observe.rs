//! Reading: two dumps, and one question a WireGuard device.

use std::collections::BTreeMap;
use std::io;

use futures::StreamExt as _;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use tracing::warn;

use super::error::ENODEV;
use super::netlink::Netlink;
use super::userspace::Userspace;
use super::{address_message, link_message, sysctl, uapi, wireguard};
use crate::model::InterfaceName;
use crate::plan::kernel_view::{KernelView, LinkKind, Mark, Sysctl, WireGuard};

/// How many control sockets are asked at once.
const AT_ONCE: usize = 32;

/// What the question about a device brought.
enum Answer {
    Is(WireGuard),
    /// The link went away since the dump.
    Gone,
    Unreadable,
}

/// What a blocking thread brings home: sysctls of our links, answers about the kernel's devices.
#[derive(Default)]
struct FromThread {
    sysctls: BTreeMap<InterfaceName, BTreeMap<Sysctl, i64>>,
    answers: Vec<(InterfaceName, Answer)>,
}

pub(super) async fn observe(netlink: &Netlink, userspace: &Userspace) -> io::Result<KernelView> {
    let (links, addresses) = netlink.dump().await?;
    let mut view = assemble(&links, &addresses);
    let names = |wanted: fn(&LinkKind, &Mark) -> bool| -> Vec<InterfaceName> {
        let links = view.links.iter().filter(|(_, link)| wanted(&link.kind, &link.mark));
        links.map(|(name, _)| name.clone()).collect()
    };
    let ours = names(|_, mark| matches!(mark, Mark::Ours(_)));
    let devices = names(|kind, _| *kind == LinkKind::WireGuard);
    let tuns = names(|kind, _| *kind == LinkKind::Tun);
    let (from_thread, from_sockets) =
        tokio::join!(tokio::task::spawn_blocking(move || read_blocking(&ours, devices)), async {
            ask_sockets(netlink, userspace, tuns).await
        });
    let from_thread = from_thread.map_err(io::Error::other)?;
    for (name, sysctls) in from_thread.sysctls {
        if let Some(link) = view.links.get_mut(&name) {
            link.sysctls = sysctls;
        }
    }
    for (name, answer) in from_thread.answers.into_iter().chain(from_sockets) {
        fill_in(&mut view, name, answer);
    }
    Ok(view)
}

/// The two dumps as one view. Pure.
fn assemble(links: &[LinkMessage], addresses: &[AddressMessage]) -> KernelView {
    let mut view = KernelView { links: links.iter().filter_map(link_message::parse).collect() };
    let names: BTreeMap<u32, InterfaceName> =
        view.links.iter().map(|(name, link)| (link.index, name.clone())).collect();
    for (index, address) in addresses.iter().filter_map(address_message::parse) {
        if let Some(link) = names.get(&index).and_then(|name| view.links.get_mut(name)) {
            link.addresses.insert(address);
        }
    }
    view
}

fn fill_in(view: &mut KernelView, name: InterfaceName, answer: Answer) {
    match (answer, view.links.get_mut(&name)) {
        (Answer::Is(wireguard), Some(link)) => link.wireguard = Some(wireguard),
        (Answer::Gone, _) => drop(view.links.remove(&name)),
        _ => {}
    }
}

/// One thread for all devices: a thousand threads for a thousand tunnels would cost more than the
/// questions, which the kernel answers in order anyway.
fn read_blocking(ours: &[InterfaceName], devices: Vec<InterfaceName>) -> FromThread {
    FromThread {
        sysctls: ours.iter().map(|name| (name.clone(), sysctl::read(name))).collect(),
        answers: devices
            .into_iter()
            .map(|name| {
                let answer = answer(&name, wireguard::get(&name));
                (name, answer)
            })
            .collect(),
    }
}

async fn ask_sockets(
    netlink: &Netlink,
    userspace: &Userspace,
    tuns: Vec<InterfaceName>,
) -> Vec<(InterfaceName, Answer)> {
    let ask = |name: InterfaceName| async move {
        let reply = uapi::get(&userspace.socket(&name)).await;
        // A socket goes with its link, so one that fails may mean that both have gone by now.
        if reply.is_err() && matches!(netlink.link(&name).await, Ok(None)) {
            return (name, Answer::Gone);
        }
        let answer = match reply {
            // A tun without a socket, or with one whose process is gone, is no WireGuard.
            Err(error) if is_no_wireguard(&error) => Answer::Unreadable,
            reply => answer(&name, reply),
        };
        (name, answer)
    };
    futures::stream::iter(tuns).map(ask).buffer_unordered(AT_ONCE).collect().await
}

fn is_no_wireguard(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn answer(name: &InterfaceName, reply: io::Result<WireGuard>) -> Answer {
    match reply {
        Ok(wireguard) => Answer::Is(wireguard),
        Err(error) if error.raw_os_error() == Some(ENODEV) => Answer::Gone,
        Err(error) => {
            warn!(interface = %name, %error, "cannot read the WireGuard configuration");
            Answer::Unreadable
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::LinkDummy;

    use super::*;
    use crate::plan::kernel_view::Address;

    #[test]
    fn addresses_come_to_the_link_of_their_index() {
        let link = |name: &str, index| LinkDummy::new(name).index(index).build();
        let address = Address::new("fe80::1/64".parse().unwrap(), None);
        let messages = [address_message::message(2, &address), address_message::message(9, &address)];
        let view = assemble(&[link("a", 1), link("b", 2)], &messages);
        let counts: Vec<_> = view.links.values().map(|link| link.addresses.len()).collect();
        assert_eq!(counts, [0, 1]);
    }

    #[test]
    fn a_link_that_went_away_between_dump_and_question_is_absent() {
        let mut view = assemble(&[LinkDummy::new("a").build()], &[]);
        let name: InterfaceName = "a".parse().unwrap();
        let gone = answer(&name, Err(io::Error::from_raw_os_error(ENODEV)));
        fill_in(&mut view, name, gone);
        assert!(view.links.is_empty());
    }
}
