//! Random sessions, made the way the agent makes them: a document, filled, resolved.

use std::net::SocketAddr;

use moenet_agent::document::{AddressSpec, BgpSessionSpec, BgpSpec, TunnelSpec};
use moenet_agent::model::{AdminState, Asn, Endpoint, Host, Mtu, Port, TunnelType, Uid};
use moenet_agent::plan::WantedTunnel;
use proptest::prelude::*;

use super::kernel::outer_addresses;
use crate::support::{PSK_FILE, key, resolve, router_key, secrets};

/// What is wanted of one session.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) tunnel: WantedTunnel,
    pub(crate) resolved: Option<SocketAddr>,
    pub(crate) endpoint_changed: bool,
    pub(crate) fragment: String,
}

pub(crate) fn uid() -> Uid {
    "abc-123".parse().unwrap()
}

/// A session of any tunnel type, with or without each thing that may be absent.
pub(crate) fn wanted() -> impl Strategy<Value = Wanted> {
    (tunnel(), address(), any::<bool>(), 1u8..3).prop_map(
        |(tunnel, address, endpoint_changed, psk)| {
            let resolved = tunnel.endpoint.as_ref().and_then(Endpoint::address);
            let spec = BgpSessionSpec {
                admin_state: AdminState::Enabled,
                asn: Asn::try_from(4242421080).unwrap(),
                description: None,
                tunnel,
                address,
                bgp: BgpSpec::default(),
            };
            let session = resolve("peer", &uid(), &spec, &secrets(psk)).unwrap();
            let tunnel = WantedTunnel::of_session(&session, &router_key(), resolved).unwrap();
            Wanted {
                tunnel,
                resolved,
                endpoint_changed,
                fragment: format!("# {psk}"),
            }
        },
    )
}

fn tunnel() -> impl Strategy<Value = TunnelSpec> {
    let types = prop_oneof![
        4 => Just(TunnelType::Wireguard),
        1 => Just(TunnelType::Gre),
        1 => Just(TunnelType::Ip6gre)
    ];
    let numbers = (
        prop::option::of(prop::sample::select(vec![1280u64, 1380, 1420, 9000])),
        prop::option::of(prop::sample::select(vec![21080u64, 24000])),
        prop::option::of(prop::sample::select(vec![0u16, 25, 60])),
    );
    (
        types,
        numbers,
        prop::option::of(0usize..4),
        any::<[bool; 3]>(),
        1u8..4,
    )
        .prop_map(
            |(tunnel_type, (mtu, port, keepalive), endpoint, [psk, local, adopt], peer)| {
                let v4 = match tunnel_type {
                    TunnelType::Wireguard => endpoint.is_some_and(|at| at < 2),
                    other => other == TunnelType::Gre,
                };
                let [a, b, c, d] = outer_addresses();
                let (near, far) = if v4 { (a, b) } else { (c, d) };
                let gre = tunnel_type != TunnelType::Wireguard;
                let remote = (gre || endpoint.is_some()).then_some(far);
                TunnelSpec {
                    tunnel_type,
                    interface: Some(super::observed::interface()),
                    listen_port: port.map(|port| Port::try_from(port).unwrap()),
                    mtu: mtu.map(|mtu| Mtu::try_from(mtu).unwrap()),
                    public_key: Some(key(peer)),
                    preshared_key_file: psk.then(|| PSK_FILE.to_owned()),
                    endpoint: remote.map(|address| Endpoint {
                        host: Host::Address(address),
                        port: Port::new(51820).unwrap(),
                    }),
                    persistent_keepalive: keepalive,
                    local_address: (gre && local).then_some(near),
                    adopt,
                }
            },
        )
}

fn address() -> impl Strategy<Value = AddressSpec> {
    any::<[bool; 3]>().prop_map(|[link_local, v6, v4]| AddressSpec {
        peer_link_local: (link_local || !(v6 || v4)).then(|| "fe80::2".parse().unwrap()),
        peer_ipv6: v6.then(|| "fd00:1080::1".parse().unwrap()),
        peer_ipv4: v4.then(|| "172.20.0.1".parse().unwrap()),
        ..AddressSpec::default()
    })
}
