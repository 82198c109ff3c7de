//! Conversion between netlink link messages and [`Link`]. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoGre, InfoGre6, InfoKind,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkDummy, LinkGre, LinkGre6, LinkMessageBuilder, LinkUnspec, LinkWireguard};

use super::netlink::name_of;
use crate::model::{InterfaceName, Mtu};
use crate::observed::Ownership;
use crate::observed::kernel::{GreEnds, Link, LinkKind, Sysctl};
use crate::observed::mark::Alias;
use crate::plan::action::NewLink;

/// Time to live of the outer packets. The kernel's default is to inherit that of the inner packet,
/// and BGP to a direct neighbour sends with 1: the session would end at the first outer hop.
const GRE_TTL: u8 = 64;

/// `IFLA_GRE_FLAGS` and `IP6_TNL_F_IGN_ENCAP_LIMIT` (linux/if_tunnel.h, linux/ip6_tunnel.h): without
/// it every outer packet carries a destination option with a limit of 0, which many networks drop.
/// With it `ip -details link` says `encaplimit none` (measured, Linux 6.12).
const IFLA_GRE_FLAGS: u16 = 13;
const IP6_TNL_F_IGN_ENCAP_LIMIT: u32 = 1;

/// Parses a link, without addresses and WireGuard. `None` for a link whose name is not a valid
/// [`InterfaceName`]: the kernel allows more characters, and such a link is never the agent's.
pub(super) fn parse(message: &LinkMessage, ownership: &Ownership) -> Option<(InterfaceName, Link)> {
    let name: InterfaceName = name_of(message)?.parse().ok()?;
    let kind = kind(message);
    let link = Link {
        index: message.header.index,
        mtu: find(message, |a| {
            if let LinkAttribute::Mtu(mtu) = a {
                Some(*mtu)
            } else {
                None
            }
        })
        .unwrap_or_default(),
        up: message.header.flags.contains(LinkFlags::Up),
        mark: ownership.judge(&name, alias_of(message)),
        addrgen_none: addrgen_none(message),
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        wireguard: None,
        gre: matches!(kind, LinkKind::Gre | LinkKind::Ip6Gre).then(|| gre_ends(message)),
        unread: None,
        learnt: false,
        sysctls: sysctls(message),
        kind,
    };
    Some((name, link))
}

fn find<'a, T>(message: &'a LinkMessage, of: impl Fn(&'a LinkAttribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(of)
}

fn alias_of(message: &LinkMessage) -> Option<&str> {
    find(message, |attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

fn infos(message: &LinkMessage) -> &[LinkInfo] {
    find(message, |attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos.as_slice()),
        _ => None,
    })
    .unwrap_or_default()
}

fn kind(message: &LinkMessage) -> LinkKind {
    if message.header.flags.contains(LinkFlags::Loopback) {
        return LinkKind::Loopback;
    }
    let kind = infos(message).iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        Some(InfoKind::Wireguard) => LinkKind::WireGuard,
        Some(InfoKind::Tun) => LinkKind::Tun,
        Some(InfoKind::GreTun) => LinkKind::Gre,
        Some(InfoKind::GreTun6) => LinkKind::Ip6Gre,
        Some(InfoKind::Dummy) => LinkKind::Dummy,
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other(String::new()),
    }
}

fn families(message: &LinkMessage) -> &[AfSpecUnspec] {
    find(message, |attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => Some(families.as_slice()),
        _ => None,
    })
    .unwrap_or_default()
}

fn addrgen_none(message: &LinkMessage) -> bool {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let is_none = |family: &AfSpecUnspec| matches!(family, AfSpecUnspec::Inet6(facts) if facts.contains(&none));
    families(message).iter().any(is_none)
}

/// Returns the link's sysctls: the kernel sends them with each link. Those of a family that is turned off are missing;
/// one that the kernel is too old for is 0.
fn sysctls(message: &LinkMessage) -> BTreeMap<Sysctl, i64> {
    let mut found = BTreeMap::new();
    let mut set = |key, value: i32| {
        found.insert(key, i64::from(value));
    };
    for family in families(message) {
        match family {
            AfSpecUnspec::Inet(facts) => {
                for fact in facts {
                    if let AfSpecInet::DevConf(conf) = fact {
                        set(Sysctl::Ipv4Forwarding, conf.forwarding);
                        set(Sysctl::RpFilter, conf.rp_filter);
                    }
                }
            }
            AfSpecUnspec::Inet6(facts) => {
                for fact in facts {
                    if let AfSpecInet6::DevConf(conf) = fact {
                        set(Sysctl::Ipv6Forwarding, conf.forwarding);
                        set(Sysctl::AcceptRa, conf.accept_ra);
                        set(Sysctl::Autoconf, conf.autoconf);
                        set(Sysctl::ForceForwarding, conf.force_forwarding);
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn gre_ends(message: &LinkMessage) -> GreEnds {
    let mut ends = GreEnds {
        local: None,
        remote: None,
    };
    for info in infos(message) {
        match info {
            LinkInfo::Data(InfoData::GreTun(facts)) => facts.iter().for_each(|fact| match fact {
                InfoGre::Local(address) => ends.local = specified(IpAddr::V4(*address)),
                InfoGre::Remote(address) => ends.remote = specified(IpAddr::V4(*address)),
                _ => {}
            }),
            LinkInfo::Data(InfoData::GreTun6(facts)) => facts.iter().for_each(|fact| match fact {
                InfoGre6::Local(address) => ends.local = specified(IpAddr::V6(*address)),
                InfoGre6::Remote(address) => ends.remote = specified(IpAddr::V6(*address)),
                _ => {}
            }),
            _ => {}
        }
    }
    ends
}

/// Returns the address, unless it is all zeros, the kernel's value for none.
fn specified(address: IpAddr) -> Option<IpAddr> {
    (!address.is_unspecified()).then_some(address)
}

/// Returns the message that creates a link; `None` when its two ends are of different families.
pub(super) fn new_link(name: &InterfaceName, kind: &NewLink) -> Option<LinkMessage> {
    let name = name.as_str();
    Some(match kind {
        NewLink::WireGuard => LinkWireguard::new(name).build(),
        NewLink::Dummy => LinkDummy::new(name).build(),
        NewLink::Gre {
            local: None,
            remote: IpAddr::V4(remote),
        } => gre(name, None, *remote),
        NewLink::Gre {
            local: Some(IpAddr::V4(local)),
            remote: IpAddr::V4(remote),
        } => gre(name, Some(*local), *remote),
        NewLink::Gre {
            local: None,
            remote: IpAddr::V6(remote),
        } => ip6gre(name, None, *remote),
        NewLink::Gre {
            local: Some(IpAddr::V6(local)),
            remote: IpAddr::V6(remote),
        } => ip6gre(name, Some(*local), *remote),
        NewLink::Gre { .. } => return None,
    })
}

fn gre(name: &str, local: Option<Ipv4Addr>, remote: Ipv4Addr) -> LinkMessage {
    let builder = LinkGre::new(name).remote(remote).ttl(GRE_TTL);
    local
        .into_iter()
        .fold(builder, LinkMessageBuilder::<LinkGre>::local)
        .build()
}

fn ip6gre(name: &str, local: Option<Ipv6Addr>, remote: Ipv6Addr) -> LinkMessage {
    let flags = DefaultNla::new(
        IFLA_GRE_FLAGS,
        IP6_TNL_F_IGN_ENCAP_LIMIT.to_ne_bytes().to_vec(),
    );
    let mut facts = vec![
        InfoGre6::Remote(remote),
        InfoGre6::Ttl(GRE_TTL),
        InfoGre6::Other(flags),
    ];
    facts.extend(local.map(InfoGre6::Local));
    LinkGre6::new(name)
        .set_info_data(InfoData::GreTun6(facts))
        .build()
}

/// Returns the message that changes a GRE tunnel's ends. The kernel reads all its settings again and uses its default
/// for
/// missing ones (`ipgre_netlink_parms`), so the message is the one that creates such a link.
pub(super) fn new_gre_ends(
    index: u32,
    name: &InterfaceName,
    kind: &NewLink,
) -> Option<LinkMessage> {
    let mut message = new_link(name, kind)?;
    message.header.index = index;
    message
        .attributes
        .retain(|attribute| !matches!(attribute, LinkAttribute::IfName(_)));
    Some(message)
}

/// Returns the message that brings a link up.
pub(super) fn up(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index).up().build()
}

/// Returns the message that sets a link's MTU.
pub(super) fn mtu(index: u32, mtu: Mtu) -> LinkMessage {
    LinkUnspec::new_with_index(index)
        .mtu(u32::from(mtu.get()))
        .build()
}

/// Returns the message that marks a link.
pub(super) fn alias(index: u32, alias: &Alias) -> LinkMessage {
    LinkUnspec::new_with_index(index)
        .alias(alias.to_string())
        .build()
}

/// Returns the message that removes a link's alias.
pub(super) fn no_alias(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index)
        .alias(String::new())
        .build()
}

/// Returns the message that renames a link; the kernel requires the link to be down.
pub(super) fn rename(index: u32, name: &InterfaceName) -> LinkMessage {
    LinkUnspec::new_with_index(index)
        .name(name.as_str().to_owned())
        .build()
}

/// Returns the message that takes a link down.
pub(super) fn down(index: u32) -> LinkMessage {
    LinkUnspec::new_with_index(index).down().build()
}

/// Returns the message that stops the kernel from creating link-local addresses.
pub(super) fn no_kernel_addresses(index: u32) -> LinkMessage {
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]))
        .build()
}

/// Returns the message that lets the kernel create link-local addresses.
pub(super) fn kernel_addresses(index: u32) -> LinkMessage {
    let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64)]);
    LinkUnspec::new_with_index(index)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]))
        .build()
}

/// Returns one message with the settings of all.
pub(super) fn joined(messages: impl IntoIterator<Item = LinkMessage>) -> LinkMessage {
    let join = |mut all: LinkMessage, one: LinkMessage| {
        all.header.flags |= one.header.flags;
        all.header.change_mask |= one.header.change_mask;
        all.attributes.extend(one.attributes);
        all
    };
    messages.into_iter().reduce(join).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{Emitable, Parseable};

    use super::*;

    fn ownership() -> Ownership {
        Ownership::of("4f1c8a09d2e7b365".parse().unwrap())
    }

    fn name() -> InterfaceName {
        "gre_1.2".parse().unwrap()
    }

    /// Encodes and decodes a message, as the kernel would.
    fn wire(message: &LinkMessage) -> LinkMessage {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        LinkMessage::parse(&bytes).unwrap()
    }

    #[test]
    fn a_link_that_was_asked_for_reads_back_as_asked() {
        let ends = |a: &str, b: &str| (Some(a.parse().unwrap()), b.parse().unwrap());
        for ((local, remote), kind) in [
            (ends("192.0.2.1", "192.0.2.2"), LinkKind::Gre),
            (ends("2001:db8::1", "2001:db8::2"), LinkKind::Ip6Gre),
        ] {
            let message = new_link(&name(), &NewLink::Gre { local, remote }).unwrap();
            let (parsed, link) = parse(&wire(&message), &Ownership::default()).unwrap();
            assert_eq!((parsed, link.kind), (name(), kind));
            assert_eq!(
                link.gre,
                Some(GreEnds {
                    local,
                    remote: Some(remote)
                })
            );
        }
        let message = new_link(&name(), &NewLink::WireGuard).unwrap();
        assert_eq!(
            parse(&wire(&message), &Ownership::default())
                .unwrap()
                .1
                .kind,
            LinkKind::WireGuard
        );
        let message = new_link(&name(), &NewLink::Dummy).unwrap();
        assert_eq!(
            parse(&wire(&message), &Ownership::default())
                .unwrap()
                .1
                .kind,
            LinkKind::Dummy
        );
    }

    #[test]
    fn change_of_ends_uses_index_and_repeats_all_attributes() {
        let kind = NewLink::Gre {
            local: None,
            remote: "192.0.2.2".parse().unwrap(),
        };
        let (made, changed) = (
            new_link(&name(), &kind).unwrap(),
            new_gre_ends(7, &name(), &kind).unwrap(),
        );
        assert_eq!((changed.header.index, super::name_of(&changed)), (7, None));
        assert_eq!(infos(&changed), infos(&made));
    }

    #[test]
    fn the_ends_of_a_tunnel_are_of_one_family() {
        let kind = NewLink::Gre {
            local: Some("192.0.2.1".parse().unwrap()),
            remote: "2001:db8::2".parse().unwrap(),
        };
        assert_eq!(new_link(&name(), &kind), None);
    }

    #[test]
    fn alias_flags_and_address_mode_are_read() {
        let mut message = wire(&no_kernel_addresses(7));
        message
            .attributes
            .push(LinkAttribute::IfName("wg_1".to_owned()));
        message.attributes.push(LinkAttribute::Mtu(1420));
        message.attributes.push(LinkAttribute::IfAlias(
            "moenet-agent:2:4f1c8a09d2e7b365:abc".to_owned(),
        ));
        message.header.flags = LinkFlags::Up;
        let (_, link) = parse(&message, &ownership()).unwrap();
        assert!(link.up && link.addrgen_none);
        assert_eq!((link.index, link.mtu), (7, 1420));
        assert!(link.mark.is(&"abc".parse().unwrap()));
    }

    #[test]
    fn joined_settings_are_all_in_one_message() {
        let message = joined([mtu(7, Mtu::try_from(1400).unwrap()), up(7)]);
        let (index, flags) = (message.header.index, message.header.flags);
        assert_eq!((index, flags), (7, LinkFlags::Up));
        assert_eq!(message.header.change_mask, LinkFlags::Up);
        assert!(message.attributes.contains(&LinkAttribute::Mtu(1400)));
    }

    #[test]
    fn a_tunnel_without_ends_has_none_rather_than_zeros() {
        let message = gre("gre0", Some(Ipv4Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED);
        assert_eq!(
            parse(&message, &ownership()).unwrap().1.gre,
            Some(GreEnds {
                local: None,
                remote: None
            })
        );
    }

    #[test]
    fn a_link_with_a_name_of_other_characters_is_skipped() {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName("wg@home".to_owned()));
        assert_eq!(parse(&message, &ownership()), None);
    }
}
