//! Conversion between netlink address messages and [`Address`]. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use crate::model::Address;

/// Returns the address and the index of its link.
///
/// `IFA_LOCAL` is the local address and `IFA_ADDRESS` the other end. IPv4 always sends both, and IPv6 sends
/// `IFA_LOCAL` only for an address with a peer (`inet_fill_ifaddr`, `inet6_fill_ifaddr`); without
/// `IFA_LOCAL`, `IFA_ADDRESS` is the local address.
pub(super) fn parse(message: &AddressMessage) -> Option<(u32, Address)> {
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ours) => local = Some(*ours),
            AddressAttribute::Address(either) => address = Some(*either),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some((message.header.index, Address::new(net, address)))
}

/// Returns whether an IPv6 address was learnt, from router advertisements or DHCP: the kernel marks an address that
/// does
/// not expire as permanent (`IFA_F_PERMANENT`).
pub(super) fn is_learnt(message: &AddressMessage) -> bool {
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    message.header.family == AddressFamily::Inet6
        && flags.is_some_and(|flags| !flags.contains(AddressFlags::Permanent))
}

/// Returns the message that adds or removes an address.
///
/// IPv6 addresses get `IFA_F_NODAD`: during duplicate address detection (one second) an address cannot be
/// bound to, so BGP's first connection would fail; and duplicates cannot occur on a link between two ends whose
/// addresses come from a registry.
pub(super) fn message(index: u32, address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.local.prefix_len();
    let local = address.local.addr();
    message.header.family = match local {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(local));
    message
        .attributes
        .push(AddressAttribute::Address(address.peer.unwrap_or(local)));
    if local.is_ipv6() {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_sent_with_and_without_peer() {
        for (local, peer) in [
            ("fe80::998:1/64", None),
            ("172.20.0.1/32", Some("172.20.0.2")),
            ("fd00::1/128", Some("fd00::2")),
            ("172.20.0.1/24", None),
        ] {
            let address = Address::new(
                local.parse().unwrap(),
                peer.map(|peer| peer.parse().unwrap()),
            );
            assert_eq!(parse(&message(3, &address)), Some((3, address)));
        }
    }

    #[test]
    fn an_ipv6_address_alone_is_ours_and_not_the_peers() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 64;
        message
            .attributes
            .push(AddressAttribute::Address("fe80::1".parse().unwrap()));
        let (_, address) = parse(&message).unwrap();
        assert_eq!(
            (address.local, address.peer),
            ("fe80::1/64".parse().unwrap(), None)
        );
    }

    #[test]
    fn an_address_that_will_expire_was_learnt() {
        let with = |flags| {
            let mut message = message(1, &Address::new("2001:db8::1/64".parse().unwrap(), None));
            message
                .attributes
                .retain(|attribute| !matches!(attribute, AddressAttribute::Flags(_)));
            message.attributes.push(AddressAttribute::Flags(flags));
            message
        };
        assert!(is_learnt(&with(AddressFlags::empty())));
        assert!(!is_learnt(&with(AddressFlags::Permanent)));
        assert!(!is_learnt(&message(
            1,
            &Address::new("192.0.2.1/24".parse().unwrap(), None)
        )));
    }

    #[test]
    fn only_ipv6_skips_the_search_for_duplicates() {
        let has = |text: &str| {
            let address = Address::new(text.parse().unwrap(), None);
            message(1, &address)
                .attributes
                .contains(&AddressAttribute::Flags(AddressFlags::Nodad))
        };
        assert!(has("fe80::1/64") && !has("192.0.2.1/32"));
    }
}
