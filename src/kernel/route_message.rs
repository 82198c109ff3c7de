//! Netlink messages of the routes that the kernel makes for addresses, both ways. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

/// `IP6_RT_PRIO_ADDRCONF` (net/ip6_route.h): the metric of what the kernel makes for an IPv6 address. For
/// IPv4 it is 0.
const IPV6_METRIC: u32 = 256;

/// The questions for all such routes, in whatever table: one a family.
pub(super) fn requests() -> [RouteMessage; 2] {
    [AddressFamily::Inet, AddressFamily::Inet6].map(|family| {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.kind = RouteType::Unicast;
        message
    })
}

/// The index of the link that such a route leads out of, and where to; none for any other route, which an
/// older kernel tells too.
pub(super) fn parse(message: &RouteMessage) -> Option<(u32, IpNet)> {
    let header = &message.header;
    if header.protocol != RouteProtocol::Kernel || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut index, mut destination) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                destination = Some(IpAddr::V4(*v4))
            }
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                destination = Some(IpAddr::V6(*v6))
            }
            _ => {}
        }
    }
    Some((
        index?,
        IpNet::new(destination?, header.destination_prefix_length).ok()?,
    ))
}

/// The message that makes such a route, in all like the kernel's own, so that the kernel takes it away with
/// its address (measured, Linux 6.18: protocol, scope and metric count, in both families).
pub(super) fn message(index: u32, destination: IpNet, source: Option<Ipv4Addr>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.destination_prefix_length = destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Kernel;
    header.kind = RouteType::Unicast;
    let destination = match destination.addr() {
        IpAddr::V4(v4) => {
            header.address_family = AddressFamily::Inet;
            header.scope = RouteScope::Link;
            RouteAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            header.address_family = AddressFamily::Inet6;
            message
                .attributes
                .push(RouteAttribute::Priority(IPV6_METRIC));
            RouteAddress::Inet6(v6)
        }
    };
    message
        .attributes
        .push(RouteAttribute::Destination(destination));
    message.attributes.push(RouteAttribute::Oif(index));
    message
        .attributes
        .extend(source.map(|source| RouteAttribute::PrefSource(RouteAddress::Inet(source))));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_reads_back_as_sent() {
        for (destination, source) in [
            ("172.20.0.2/32", Some(Ipv4Addr::new(172, 20, 0, 1))),
            ("fd00::2/128", None),
            ("fe80::/64", None),
        ] {
            let destination: IpNet = destination.parse().unwrap();
            assert_eq!(
                parse(&message(3, destination, source)),
                Some((3, destination))
            );
        }
    }

    #[test]
    fn routes_that_the_kernel_did_not_make_are_not_seen() {
        let mut foreign = message(3, "172.20.0.2/32".parse().unwrap(), None);
        foreign.header.protocol = RouteProtocol::Bird;
        assert_eq!(parse(&foreign), None);
        let mut local = message(3, "172.20.0.1/32".parse().unwrap(), None);
        local.header.kind = RouteType::Local;
        assert_eq!(parse(&local), None);
    }
}
