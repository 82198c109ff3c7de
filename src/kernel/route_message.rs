//! Conversion of netlink messages for the routes that the kernel creates for addresses. Pure.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use rtnetlink::packet_core::{Emitable as _, Parseable as _};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};

use crate::observed::kernel::SavedRoute;

/// `IP6_RT_PRIO_ADDRCONF` (net/ip6_route.h): the metric of the routes that the kernel creates for an IPv6 address. For
/// IPv4 it is 0.
const IPV6_METRIC: u32 = 256;

/// Returns the requests for all such routes through a link, or through any for index 0, in any table: one per family.
pub(super) fn requests(index: u32) -> [RouteMessage; 2] {
    [AddressFamily::Inet, AddressFamily::Inet6].map(|family| {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::Kernel;
        message.header.kind = RouteType::Unicast;
        if index > 0 {
            message.attributes.push(RouteAttribute::Oif(index));
        }
        message
    })
}

/// The protocols of routes with a gateway that an operator or autoconfiguration creates. Routing daemons have their own
/// protocols, and their gateways were learnt from peers. The routes that the kernel creates for addresses have no gateway,
/// and each tunnel has some.
const OF_THE_HOST: [RouteProtocol; 6] = [
    RouteProtocol::IcmpRedirect,
    RouteProtocol::Boot,
    RouteProtocol::Static,
    RouteProtocol::Ra,
    RouteProtocol::Dhcp,
    RouteProtocol::KeepAlived,
];

/// Returns the requests for the routes of the host: one per family and protocol.
pub(super) fn host_requests() -> impl Iterator<Item = RouteMessage> {
    let families = [AddressFamily::Inet, AddressFamily::Inet6];
    families.into_iter().flat_map(|family| {
        OF_THE_HOST.into_iter().map(move |protocol| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.protocol = protocol;
            message
        })
    })
}

/// The protocols of routes that `ip route add` and systemd-networkd create.
const OF_THE_OPERATOR: [RouteProtocol; 2] = [RouteProtocol::Boot, RouteProtocol::Static];

/// Returns the requests for the routes of the operator through a link, in any table: one per family and protocol.
pub(super) fn operators_requests(index: u32) -> impl Iterator<Item = RouteMessage> {
    requests(index).into_iter().flat_map(|request| {
        OF_THE_OPERATOR.into_iter().map(move |protocol| {
            let mut request = request.clone();
            request.header.protocol = protocol;
            request.header.kind = RouteType::Unspec;
            request
        })
    })
}

/// Returns a route of the operator through this link alone, to be created again; `None` for any other.
pub(super) fn save(mut route: RouteMessage, index: u32) -> Option<SavedRoute> {
    let is_operators = OF_THE_OPERATOR.contains(&route.header.protocol);
    if !is_operators || !leads_through(&route, index) {
        return None;
    }
    // What the kernel reports about the route, and does not take.
    route.header.flags = RouteFlags::empty();
    let is_setting = |it: &RouteAttribute| !matches!(it, RouteAttribute::CacheInfo(_));
    route.attributes.retain(is_setting);
    let mut bytes = vec![0; route.buffer_len()];
    route.emit(&mut bytes);
    let text = bytes.iter().map(|byte| format!("{byte:02x}"));
    Some(SavedRoute(text.collect()))
}

/// Returns the message that creates a saved route; `None` if the text describes
/// something else.
pub(super) fn saved(route: &SavedRoute, index: u32) -> Option<RouteMessage> {
    let digits = route.0.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.map(byte).collect();
    let message = RouteMessage::parse(bytes?.as_slice()).ok()?;
    let is_operators = OF_THE_OPERATOR.contains(&message.header.protocol);
    (is_operators && leads_through(&message, index)).then_some(message)
}

fn leads_through(route: &RouteMessage, index: u32) -> bool {
    let mut attributes = route.attributes.iter();
    attributes.any(|attribute| *attribute == RouteAttribute::Oif(index))
}

/// Returns the gateways of a route of the host, each with the index of the link that leads to it.
pub(super) fn gateways(message: &RouteMessage) -> Vec<(u32, IpAddr)> {
    // A kernel without strict checking answers with all routes.
    if !OF_THE_HOST.contains(&message.header.protocol) {
        return Vec::new();
    }
    let of_path = |attributes: &[RouteAttribute], index: u32| {
        let gateway = attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(v4))
            | RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6))
            | RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        });
        gateway.map(|gateway| (index, gateway))
    };
    let index = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
    let several = message
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => hops.as_slice(),
            _ => &[],
        });
    let several = several.filter_map(|hop| of_path(&hop.attributes, hop.interface_index));
    let one = of_path(&message.attributes, index.unwrap_or_default());
    one.into_iter().chain(several).collect()
}

/// Returns the request for the IPv6 routes through a link, or through any for index 0, that come from router
/// advertisements.
pub(super) fn learnt_request(index: u32) -> RouteMessage {
    let [_, mut message] = requests(index);
    message.header.protocol = RouteProtocol::Ra;
    message
}

/// Returns the link index of such a route; `None` for any other.
pub(super) fn learnt_through(message: &RouteMessage) -> Option<u32> {
    let mut attributes = message.attributes.iter();
    let index = attributes.find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    index.filter(|_| message.header.protocol == RouteProtocol::Ra)
}

/// Returns the link index and the destination of a route that the kernel created for an address; `None` for any other
/// route, which an older kernel sends too.
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

/// Returns the message that creates such a route, identical to the kernel's own, so that the kernel removes it with
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
    use rtnetlink::packet_route::route::RouteNextHop;

    use super::*;

    #[test]
    fn gateways_of_the_hosts_routes_are_read() {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let mut route = RouteMessage::default();
        route.header.protocol = RouteProtocol::Static;
        route.attributes = vec![
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
            RouteAttribute::Oif(3),
        ];
        assert_eq!(gateways(&route), [(3, gateway.into())]);
        let mut hop = RouteNextHop::default();
        hop.interface_index = 4;
        let v6 = "fd00::1".parse().unwrap();
        hop.attributes = vec![RouteAttribute::Via(RouteVia::Inet6(v6))];
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop])];
        assert_eq!(gateways(&route), [(4, v6.into())]);
        route.header.protocol = RouteProtocol::Bird;
        assert_eq!(gateways(&route), []);
    }

    #[test]
    fn only_the_operators_routes_through_the_link_are_saved() {
        let mut route = message(3, "172.20.0.0/24".parse().unwrap(), None);
        route.attributes.push(RouteAttribute::Table(4242));
        assert_eq!(save(route.clone(), 3), None, "the kernel's own");
        route.header.protocol = RouteProtocol::Static;
        assert_eq!(save(route.clone(), 4), None);
        let text = save(route.clone(), 3).unwrap();
        assert_eq!(saved(&text, 3), Some(route));
        assert_eq!(saved(&text, 4), None);
        for other in ["", "zz", "0", "ff"] {
            assert_eq!(saved(&SavedRoute(other.into()), 3), None, "{other}");
        }
    }

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
