//! Random kernels: our link in any state it can be in, and links of others around it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use jiff::Timestamp;
use moenet_agent::model::{Address, InterfaceName, Port, PresharedKey, PublicKey};
use moenet_agent::observed::Mark;
use moenet_agent::observed::kernel::{GreEnds, Link, LinkKind, Sysctl, WireGuard, WireGuardPeer};
use moenet_agent::plan::action::NewLink;
use proptest::prelude::*;

use super::kernel::{ModelKernel, clashes, default_sysctls, has_ipv6, new_link, outer_addresses};
use super::wanted::{Wanted, uid, wanted};
use crate::support::{key, our_key};

/// A session and the kernel it is planned on.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) wanted: Wanted,
    pub(crate) kernel: ModelKernel,
    /// What `applied/` says was being created.
    pub(crate) creating: Option<InterfaceName>,
    /// The session's file in BIRD's directory.
    pub(crate) fragment: Option<String>,
}

/// The name of the session's link.
pub(crate) fn interface() -> InterfaceName {
    "wg_4242421080".parse().unwrap()
}

pub(crate) fn now() -> Timestamp {
    "2026-11-23T20:00:00Z".parse().unwrap()
}

/// What the link of the wanted name is.
#[derive(Debug, Clone)]
enum There {
    Nothing,
    /// As it was to be when it was made, which may not be what is wanted now.
    HalfCreated(NewLink),
    Ours(Link),
    /// Of another object, of another program, or without any mark.
    Foreign(Link),
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let there = prop_oneof![
        2 => Just(There::Nothing),
        1 => wanted().prop_map(|wanted| There::HalfCreated(wanted.tunnel.kind)),
        3 => link(Mark::Ours(uid())).prop_map(There::Ours),
        1 => link(Mark::Earlier(uid())).prop_map(There::Ours),
        2 => (link(Mark::None), mark()).prop_map(|(link, mark)| There::Foreign(Link { mark, ..link })),
    ];
    let ours = prop::sample::select(vec![Mark::Ours(uid()), Mark::Earlier(uid())]);
    let renamed = (link(Mark::None), ours).prop_map(|(link, mark)| Link { mark, ..link });
    let renamed = prop::collection::vec(renamed, 0..3);
    let strangers = prop::collection::vec((link(Mark::None), mark()), 0..3);
    let fragment = prop::option::of(prop::sample::select(vec!["# 1", "# 2", ""]));
    (wanted(), there, renamed, strangers, fragment, any::<bool>()).prop_map(
        |(wanted, there, renamed, strangers, fragment, userspace)| {
            let mut kernel = ModelKernel {
                userspace,
                uid: Some(uid()),
                ..ModelKernel::default()
            };
            for (number, (link, mark)) in strangers.into_iter().enumerate() {
                kernel.insert(
                    &format!("eth{number}").parse().unwrap(),
                    Link { mark, ..link },
                );
            }
            let creating = place(&mut kernel, &wanted, there);
            for (number, link) in renamed.into_iter().enumerate() {
                kernel.insert(&format!("wg_old{number}").parse().unwrap(), link);
            }
            distinct_gre_ends(&mut kernel, &wanted);
            World {
                wanted,
                kernel,
                creating,
                fragment: fragment.map(str::to_owned),
            }
        },
    )
}

fn place(kernel: &mut ModelKernel, wanted: &Wanted, there: There) -> Option<InterfaceName> {
    let name = interface();
    match there {
        There::Nothing => {}
        There::Ours(link) => kernel.insert(&name, link),
        There::Foreign(link) => {
            if wanted.tunnel.adopt {
                kernel.markable.insert(name.clone());
            }
            kernel.insert(&name, link);
        }
        There::HalfCreated(kind) => {
            let link = new_link(&kind, kernel.userspace).unwrap();
            kernel.insert(&name, link);
            kernel.markable.insert(name.clone());
            return Some(name);
        }
    }
    None
}

/// No kernel has two tunnels between the same ends. A stranger's tunnel where ours is to be would be
/// refused by the kernel, which is a matter for the status and not for the plan.
fn distinct_gre_ends(kernel: &mut ModelKernel, wanted: &Wanted) {
    let mut seen = BTreeSet::new();
    let kind = format!("{:?}", new_link(&wanted.tunnel.kind, false).unwrap().gre);
    kernel.links.retain(|name, link| {
        let ends = format!("{:?}", link.gre);
        link.gre.is_none()
            || ((link.mark.is(&uid()) || *name == interface() || ends != kind) && seen.insert(ends))
    });
}

fn mark() -> impl Strategy<Value = Mark> {
    prop_oneof![
        Just(Mark::None),
        Just(Mark::Ours("another-object".parse().unwrap())),
        Just(Mark::Foreign("uplink to the rack".to_owned())),
        // The same object of another state directory on this host.
        Just(Mark::Foreign(format!(
            "moenet-agent:2:00000000000000ff:{}",
            uid()
        ))),
        Just(Mark::Foreign(format!("moenet-agent:{}", uid()))),
    ]
}

/// A link with any settings whatever, that a kernel could have.
fn link(mark: Mark) -> impl Strategy<Value = Link> {
    let mtu = prop::sample::select(vec![1000u32, 1280, 1380, 1420, 1500, 9000]);
    (
        kind(),
        mtu,
        any::<[bool; 3]>(),
        addresses(),
        wireguard(),
        sysctls(),
    )
        .prop_map(
            move |((kind, gre), mtu, [up, addrgen_none, routes], addresses, wireguard, sysctls)| {
                let wireguard = matches!(kind, LinkKind::WireGuard)
                    .then_some(wireguard.clone())
                    .or_else(|| {
                        // A tun device without peers stands for one that is no WireGuard.
                        (kind == LinkKind::Tun && !wireguard.peers.is_empty()).then_some(wireguard)
                    });
                let mut link = Link {
                    index: 0,
                    kind,
                    mtu,
                    up,
                    mark: mark.clone(),
                    addrgen_none,
                    addresses,
                    routes: BTreeSet::new(),
                    wireguard,
                    gre,
                    unread: None,
                    learnt: false,
                    sysctls,
                };
                if !has_ipv6(&link) {
                    link.addresses
                        .retain(|address| address.local.addr().is_ipv4());
                    link.addrgen_none = false;
                }
                // Somebody may have taken all of them away.
                if up && routes {
                    link.routes = link.addresses.iter().filter_map(Address::route).collect();
                }
                link
            },
        )
}

fn kind() -> impl Strategy<Value = (LinkKind, Option<GreEnds>)> {
    let gre = (any::<[bool; 3]>()).prop_map(|[v4, bound, swapped]| {
        let [a, b, c, d] = outer_addresses();
        let (near, far) = if v4 { (a, b) } else { (c, d) };
        let (near, far) = if swapped { (far, near) } else { (near, far) };
        let kind = if v4 { LinkKind::Gre } else { LinkKind::Ip6Gre };
        (
            kind,
            Some(GreEnds {
                local: bound.then_some(near),
                remote: Some(far),
            }),
        )
    });
    let other = |kind: LinkKind| Just((kind, None));
    prop_oneof![
        4 => other(LinkKind::WireGuard),
        2 => other(LinkKind::Tun),
        4 => gre,
        1 => other(LinkKind::Dummy),
        1 => other(LinkKind::Other("veth".into())),
    ]
}

/// Addresses that are wanted, that nearly are, and that are not at all.
pub(crate) fn addresses() -> impl Strategy<Value = BTreeSet<Address>> {
    let pool: Vec<Address> = [
        ("fe80::998:1/64", None),
        ("fe80::998:1/128", None),
        ("fe80::5efe:1:2:3/64", None),
        ("172.23.105.177/32", Some("172.20.0.1")),
        ("172.23.105.177/32", Some("172.20.0.10")),
        ("172.23.105.177/24", None),
        ("fd48:4242:420::1/128", Some("fd00:1080::1")),
        ("fd48:4242:420::1/128", None),
        ("fd48:4242:420::1/64", None),
        ("10.0.0.1/24", None),
    ]
    .into_iter()
    .map(|(local, peer)| {
        Address::new(
            local.parse().unwrap(),
            peer.map(|peer| peer.parse().unwrap()),
        )
    })
    .collect();
    prop::collection::vec(prop::sample::select(pool), 0..5).prop_map(|chosen| {
        let mut addresses = BTreeSet::<Address>::new();
        for address in chosen {
            if !addresses.iter().any(|there| clashes(there, &address)) {
                addresses.insert(address);
            }
        }
        addresses
    })
}

fn wireguard() -> impl Strategy<Value = WireGuard> {
    let own = prop::option::of(prop::sample::select(vec![our_key(), key(9)]));
    let port = prop::option::of(prop::sample::select(vec![21080u16, 24000, 5555]));
    (
        own,
        port,
        prop::collection::btree_map((1u8..4).prop_map(key), peer(), 0..4),
    )
        .prop_map(|(public_key, port, peers)| WireGuard {
            public_key,
            listen_port: port.and_then(Port::new),
            peers: distinct_allowed_ips(peers),
        })
}

/// An allowed IP belongs to one peer of a link.
fn distinct_allowed_ips(
    mut peers: BTreeMap<PublicKey, WireGuardPeer>,
) -> BTreeMap<PublicKey, Box<WireGuardPeer>> {
    let mut taken = BTreeSet::new();
    for peer in peers.values_mut() {
        peer.allowed_ips.retain(|net| taken.insert(*net));
    }
    let boxed = peers.into_iter().map(|(key, peer)| (key, peer.into()));
    boxed.collect()
}

fn peer() -> impl Strategy<Value = WireGuardPeer> {
    let nets = ["0.0.0.0/0", "::/0", "10.0.0.0/8"].map(|net| net.parse().unwrap());
    let allowed = prop::sample::subsequence(nets.to_vec(), 0..=3);
    (
        prop::option::of(1u8..3),
        endpoint(),
        prop::sample::select(vec![0u16, 25, 60]),
        allowed,
        handshake(),
    )
        .prop_map(|(psk, endpoint, keepalive, allowed, last_handshake)| {
            WireGuardPeer {
                preshared_key: psk.map(|byte| PresharedKey::new([byte; 32])),
                endpoint,
                keepalive: Some(keepalive),
                allowed_ips: allowed.into_iter().collect(),
                last_handshake,
                rx_bytes: 0,
                tx_bytes: 0,
            }
            .normalised()
        })
}

fn endpoint() -> impl Strategy<Value = Option<SocketAddr>> {
    let at = |(address, port)| SocketAddr::new(address, port);
    prop::option::of(
        (
            prop::sample::select(outer_addresses().to_vec()),
            prop::sample::select(vec![51820u16, 9]),
        )
            .prop_map(at),
    )
}

fn handshake() -> impl Strategy<Value = Option<Timestamp>> {
    let ago = |seconds: i64| Timestamp::from_second(now().as_second() - seconds).unwrap();
    prop::option::of((0i64..400).prop_map(ago))
}

/// Settings of a kernel that may lack some of them.
fn sysctls() -> impl Strategy<Value = BTreeMap<Sysctl, i64>> {
    prop::collection::btree_map(prop::sample::select(Sysctl::ALL.to_vec()), 0i64..3, 0..6).prop_map(
        |set| {
            let mut sysctls = default_sysctls();
            sysctls.extend(set);
            sysctls
        },
    )
}
