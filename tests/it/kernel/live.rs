//! The kernel room against a real kernel, in network namespaces, as root. Where the kernel has no
//! WireGuard the links are userspace ones, and the tests ask the same of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::namespace::{inside, ip, name};
use moenet_agent::kernel::{Backend, KernelOptions, LinuxKernel, events, keys};
use moenet_agent::model::{
    Address, Identity, InterfaceName, Mtu, Port, PresharedKey, PrivateKey, PublicKey, Uid,
};
use moenet_agent::observed::kernel::{GreEnds, Link, LinkKind, Sysctl, WireGuard};
use moenet_agent::observed::mark::Alias;
use moenet_agent::observed::{Mark, Ownership, SharedOwnership};
use moenet_agent::plan::action::{KernelAction, NewLink, PeerPatch, WireGuardPatch};
use moenet_agent::ports::{Kernel as _, KernelError};

/// One test a function: its own name, how many processes, and its body.
macro_rules! live {
    ($test:ident, $runs:literal, $body:expr) => {
        #[test]
        fn $test() {
            inside(test_path!(stringify!($test)), $runs, $body);
        }
    };
    ($test:ident, $body:expr) => {
        live!($test, 1, |_| $body());
    };
}

fn kernel() -> LinuxKernel {
    LinuxKernel::new(options(Backend::Auto))
}

/// Of a state directory with an identity.
fn options(backend: Backend) -> KernelOptions {
    KernelOptions {
        backend,
        ownership: SharedOwnership::new(Ownership::of(identity())),
        ..Default::default()
    }
}

fn identity() -> Identity {
    Identity::from_bits(7)
}

fn uid() -> Uid {
    "11111111-2222-3333-4444-555555555555".parse().unwrap()
}

fn private(seed: u8) -> PrivateKey {
    PrivateKey::new([seed; 32])
}

fn public(seed: u8) -> PublicKey {
    keys::public_key(&private(seed))
}

fn address(local: &str, peer: Option<&str>) -> Address {
    Address::new(
        local.parse().unwrap(),
        peer.map(|peer| peer.parse().unwrap()),
    )
}

fn everything() -> BTreeSet<ipnet::IpNet> {
    ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()].into()
}

fn untouched(seed: u8) -> PeerPatch {
    PeerPatch {
        public_key: public(seed),
        preshared_key: None,
        endpoint: None,
        keepalive: None,
        allowed_ips: None,
    }
}

fn full(seed: u8) -> PeerPatch {
    PeerPatch {
        preshared_key: Some(Some(PresharedKey::new([99; 32]))),
        endpoint: Some("192.0.2.1:51820".parse().unwrap()),
        keepalive: Some(Some(25)),
        allowed_ips: Some(everything()),
        ..untouched(seed)
    }
}

/// A kernel and one link in it.
struct Bench {
    kernel: LinuxKernel,
    interface: InterfaceName,
}

impl Bench {
    /// With a WireGuard link that is marked as ours.
    async fn new() -> Self {
        Self::with(kernel(), "").await
    }

    async fn with(kernel: LinuxKernel, suffix: &str) -> Self {
        let bench = Self {
            kernel,
            interface: name(suffix),
        };
        bench.apply(bench.create()).await;
        bench.apply(bench.mark()).await;
        bench
    }

    fn create(&self) -> KernelAction {
        KernelAction::CreateLink {
            interface: self.interface.clone(),
            kind: NewLink::WireGuard,
        }
    }

    fn mark(&self) -> KernelAction {
        KernelAction::SetMark {
            interface: self.interface.clone(),
            uid: uid(),
        }
    }

    fn delete(&self) -> KernelAction {
        KernelAction::DeleteLink {
            interface: self.interface.clone(),
            uid: uid(),
        }
    }

    fn up(&self) -> KernelAction {
        KernelAction::SetUp {
            interface: self.interface.clone(),
        }
    }

    fn mtu(&self, mtu: u64) -> KernelAction {
        KernelAction::SetMtu {
            interface: self.interface.clone(),
            mtu: Mtu::try_from(mtu).unwrap(),
        }
    }

    fn add(&self, address: Address) -> KernelAction {
        KernelAction::AddAddress {
            interface: self.interface.clone(),
            address,
        }
    }

    fn remove(&self, address: Address) -> KernelAction {
        KernelAction::RemoveAddress {
            interface: self.interface.clone(),
            address,
        }
    }

    async fn apply(&self, action: KernelAction) {
        self.kernel.apply(&action).await.unwrap();
    }

    async fn configure(&self, patch: WireGuardPatch) {
        let interface = self.interface.clone();
        self.apply(KernelAction::ConfigureWireGuard { interface, patch })
            .await;
    }

    async fn peer(&self, peer: PeerPatch) {
        self.configure(WireGuardPatch {
            peers: vec![peer],
            ..Default::default()
        })
        .await;
    }

    async fn found(&self) -> Option<Link> {
        self.kernel
            .observe()
            .await
            .unwrap()
            .links
            .remove(&self.interface)
    }

    async fn link(&self) -> Link {
        self.found().await.unwrap()
    }

    async fn wireguard(&self) -> WireGuard {
        self.link().await.wireguard.unwrap()
    }
}

async fn link_named(kernel: &LinuxKernel, name: &str) -> Link {
    kernel
        .observe()
        .await
        .unwrap()
        .links
        .remove(&name.parse::<InterfaceName>().unwrap())
        .unwrap()
}

/// What `ip` prints.
fn told(arguments: &str) -> String {
    let output = std::process::Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The process of a userspace link that this test had started.
fn process_of(interface: &InterfaceName) -> u32 {
    let wanted = format!("wireguard-go\0{interface}\0");
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let command = std::fs::read_to_string(path.join("cmdline")).ok()?;
        (command == wanted).then(|| path.file_name()?.to_str()?.parse().ok())?
    });
    entries.last().unwrap()
}

live!(a_link_reads_back_as_it_was_set, async || {
    let bench = Bench::new().await;
    let interface = bench.interface.clone();
    let first = bench.link().await;
    bench
        .apply(KernelAction::DisableKernelAddresses { interface })
        .await;
    let patch = WireGuardPatch {
        release_port: false,
        private_key: Some(private(1)),
        listen_port: Port::new(21080),
        peers: vec![full(2)],
        remove_peers: Vec::new(),
    };
    bench.configure(patch).await;
    bench
        .apply(bench.add(address("fe80::998:1/64", None)))
        .await;
    bench.apply(bench.mtu(1400)).await;
    bench.apply(bench.up()).await;

    let link = bench.link().await;
    assert!(matches!(link.kind, LinkKind::WireGuard | LinkKind::Tun));
    assert!(link.mark.is(&uid()) && link.addrgen_none && link.up);
    assert_eq!((link.index, link.mtu), (first.index, 1400));
    // Nothing but ours: the kernel has made no address of its own.
    assert_eq!(link.addresses, [address("fe80::998:1/64", None)].into());
    let wireguard = link.wireguard.unwrap();
    assert_eq!(
        (wireguard.public_key, wireguard.listen_port),
        (Some(public(1)), Port::new(21080))
    );
    let peer = &wireguard.peers[&public(2)];
    assert_eq!(wireguard.peers.len(), 1);
    assert_eq!(peer.preshared_key, Some(PresharedKey::new([99; 32])));
    assert_eq!(peer.endpoint, Some("192.0.2.1:51820".parse().unwrap()));
    assert_eq!(
        (peer.keepalive, &peer.allowed_ips),
        (Some(25), &everything())
    );
    assert_eq!((peer.last_handshake, peer.rx_bytes), (None, 0));
});

live!(looking_writes_nothing_and_sees_the_same_twice, async || {
    let bench = Bench::new().await;
    bench
        .peer(PeerPatch {
            endpoint: None,
            keepalive: None,
            ..full(2)
        })
        .await;
    let before = bench.kernel.counters().total();
    let (first, second) = (
        bench.kernel.observe().await.unwrap(),
        bench.kernel.observe().await.unwrap(),
    );
    assert_eq!(first, second);
    assert_eq!((before, bench.kernel.counters().total()), (3, 3));
});

live!(two_passes_may_look_at_once, async || {
    let bench = Bench::new().await;
    let looks = (0..8).map(|_| bench.kernel.observe());
    for view in futures::future::join_all(looks).await {
        assert!(view.unwrap().links.contains_key(&bench.interface));
    }
});

live!(key_port_peer_and_mtu_change_in_place, async || {
    let bench = Bench::new().await;
    let patch = WireGuardPatch {
        release_port: false,
        private_key: Some(private(1)),
        listen_port: Port::new(21080),
        peers: vec![full(2)],
        remove_peers: Vec::new(),
    };
    bench.configure(patch).await;
    bench.apply(bench.up()).await;
    let before = bench.link().await;

    let patch = WireGuardPatch {
        release_port: false,
        private_key: Some(private(3)),
        listen_port: Port::new(21081),
        peers: vec![PeerPatch {
            preshared_key: Some(Some(PresharedKey::new([77; 32]))),
            endpoint: Some("[2001:db8::7]:4242".parse().unwrap()),
            ..untouched(2)
        }],
        remove_peers: Vec::new(),
    };
    bench.configure(patch).await;
    bench.apply(bench.mtu(1380)).await;
    let after = bench.link().await;
    assert_eq!(
        (after.index, after.mtu, after.up),
        (before.index, 1380, true)
    );
    let wireguard = after.wireguard.unwrap();
    assert_eq!(
        (wireguard.public_key, wireguard.listen_port),
        (Some(public(3)), Port::new(21081))
    );
    let peer = &wireguard.peers[&public(2)];
    assert_eq!(peer.preshared_key, Some(PresharedKey::new([77; 32])));
    assert_eq!(peer.endpoint, Some("[2001:db8::7]:4242".parse().unwrap()));
    // What the patch did not name stays.
    assert_eq!(
        (peer.keepalive, &peer.allowed_ips),
        (Some(25), &everything())
    );
});

live!(
    a_preshared_key_and_a_keepalive_can_be_taken_away,
    async || {
        let bench = Bench::new().await;
        bench.peer(full(2)).await;
        bench
            .peer(PeerPatch {
                preshared_key: Some(None),
                keepalive: Some(None),
                ..untouched(2)
            })
            .await;
        let peer = &bench.wireguard().await.peers[&public(2)];
        assert_eq!((&peer.preshared_key, peer.keepalive), (&None, None));
        assert_eq!(peer.allowed_ips, everything());
    }
);

live!(
    one_of_two_peers_is_removed_and_the_other_stays,
    async || {
        let bench = Bench::new().await;
        bench.peer(full(2)).await;
        let nets: BTreeSet<ipnet::IpNet> = ["10.0.0.0/8".parse().unwrap()].into();
        bench
            .peer(PeerPatch {
                allowed_ips: Some(nets.clone()),
                ..full(3)
            })
            .await;
        assert_eq!(bench.wireguard().await.peers.len(), 2);
        // A peer that is not there is removed as well.
        bench
            .configure(WireGuardPatch {
                remove_peers: vec![public(2), public(9)],
                ..Default::default()
            })
            .await;
        let peers = bench.wireguard().await.peers;
        assert_eq!(peers.keys().collect::<Vec<_>>(), [&public(3)]);
        assert_eq!(peers[&public(3)].allowed_ips, nets);
    }
);

live!(allowed_ips_are_replaced_as_a_whole, async || {
    let bench = Bench::new().await;
    bench.peer(full(2)).await;
    let nets: BTreeSet<ipnet::IpNet> = [
        "172.20.0.0/14".parse().unwrap(),
        "fd00::/8".parse().unwrap(),
    ]
    .into();
    bench
        .peer(PeerPatch {
            allowed_ips: Some(nets.clone()),
            ..untouched(2)
        })
        .await;
    assert_eq!(bench.wireguard().await.peers[&public(2)].allowed_ips, nets);
});

live!(addresses_with_and_without_peer_come_and_go, async || {
    let bench = Bench::new().await;
    let all = [
        address("172.20.0.1/32", Some("172.20.0.2")),
        address("fd00::1/128", Some("fd00::2")),
        address("fe80::998:1/64", None),
        address("172.21.0.1/27", None),
    ];
    bench
        .apply(KernelAction::DisableKernelAddresses {
            interface: bench.interface.clone(),
        })
        .await;
    bench.apply(bench.up()).await;
    for address in all {
        bench.apply(bench.add(address)).await;
    }
    assert_eq!(bench.link().await.addresses, all.into());
    for address in all {
        bench.apply(bench.remove(address)).await;
        // What is gone already is removed.
        bench.apply(bench.remove(address)).await;
    }
    assert!(bench.link().await.addresses.is_empty());
});

live!(
    an_ipv4_address_with_another_peer_is_not_removed,
    async || {
        let bench = Bench::new().await;
        let ours = address("172.20.0.1/32", Some("172.20.0.2"));
        bench.apply(bench.add(ours)).await;
        bench
            .apply(bench.remove(address("172.20.0.1/32", Some("172.20.0.3"))))
            .await;
        assert_eq!(bench.link().await.addresses, [ours].into());
    }
);

live!(
    routes_that_somebody_took_away_are_made_as_the_kernel_made_them,
    async || {
        let bench = Bench::new().await;
        let (device, all) = (
            bench.interface.clone(),
            [
                address("fe80::998:1/64", None),
                address("172.20.0.1/32", Some("172.20.0.2")),
                address("fd00::1/128", Some("fd00::2")),
            ],
        );
        let interface = device.clone();
        bench
            .apply(KernelAction::DisableKernelAddresses { interface })
            .await;
        bench.apply(bench.up()).await;
        for address in all {
            bench.apply(bench.add(address)).await;
        }
        let wanted: BTreeSet<_> = all.iter().filter_map(Address::route).collect();
        let has_all = |link: Link| link.routes.is_superset(&wanted);
        assert!(has_all(bench.link().await), "they come with the addresses");
        let routes = || [4, 6].map(|family| told(&format!("-{family} -d route show table main")));
        let before = routes();

        // Somebody else's stay as they are, also one to the same place.
        told(&format!("route add 172.20.0.2/32 dev {device} metric 7"));
        let foreign = told("-d route show metric 7");
        for destination in ["172.20.0.2/32 metric 0", "fd00::2/128", "fe80::/64"] {
            told(&format!(
                "route del {destination} dev {device} proto kernel"
            ));
        }
        assert!(bench.link().await.routes.is_disjoint(&wanted));
        let add = |address: &Address| {
            let source = match address.local.addr() {
                IpAddr::V4(ours) => Some(ours),
                IpAddr::V6(_) => None,
            };
            KernelAction::AddRoute {
                interface: device.clone(),
                destination: address.route().unwrap(),
                source,
            }
        };
        for _twice in 0..2 {
            for address in &all {
                bench.apply(add(address)).await;
            }
        }
        assert!(has_all(bench.link().await));
        assert_eq!(told("-d route show metric 7"), foreign);
        told(&format!("route del 172.20.0.2/32 dev {device} metric 7"));
        assert_eq!(routes(), before);

        for address in all {
            bench.apply(bench.remove(address)).await;
        }
        assert_eq!(
            bench.link().await.routes,
            [].into(),
            "they do not go with their addresses"
        );
    }
);

live!(an_ipv6_address_can_be_bound_to_at_once, async || {
    let bench = Bench::new().await;
    bench.apply(bench.up()).await;
    bench.apply(bench.add(address("fd00::1/64", None))).await;
    UdpSocket::bind("[fd00::1]:0").unwrap();
});

live!(
    an_address_that_exists_with_another_peer_is_an_error,
    async || {
        let bench = Bench::new().await;
        bench
            .apply(bench.add(address("fd00::1/128", Some("fd00::2"))))
            .await;
        let again = bench.add(address("fd00::1/128", Some("fd00::3")));
        let error = bench.kernel.apply(&again).await.unwrap_err().to_string();
        assert!(
            error.contains("add address fd00::1 peer fd00::3/128") && error.contains("exists"),
            "{error}"
        );
    }
);

live!(
    an_ipv6_address_where_ipv6_is_off_is_refused_with_the_reason,
    async || {
        let bench = Bench::new().await;
        let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", bench.interface);
        std::fs::write(path, "1").unwrap();
        let error = bench
            .kernel
            .apply(&bench.add(address("fd00::1/64", None)))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("disable_ipv6"), "{error}");
    }
);

live!(foreign_links_are_never_touched, async || {
    let bench = Bench {
        kernel: kernel(),
        interface: "v0".parse().unwrap(),
    };
    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    ip(&["link", "set", "v1", "alias", "moenet-agent"]);
    let before = bench.kernel.observe().await.unwrap();
    for target in ["v0", "v1", "lo"] {
        let bench = Bench {
            kernel: kernel(),
            interface: target.parse().unwrap(),
        };
        let interface = bench.interface.clone();
        let actions = [
            bench.delete(),
            bench.mtu(1400),
            bench.up(),
            bench.mark(),
            bench.add(address("127.0.0.2/8", None)),
            bench.remove(address("127.0.0.1/8", None)),
            KernelAction::DisableKernelAddresses {
                interface: interface.clone(),
            },
            KernelAction::ConfigureWireGuard {
                interface: interface.clone(),
                patch: WireGuardPatch::default(),
            },
            KernelAction::SetSysctl {
                interface: Some(interface),
                key: Sysctl::RpFilter,
                value: 2,
            },
        ];
        for action in actions {
            let refused = bench.kernel.apply(&action).await;
            assert!(
                matches!(refused, Err(KernelError::NotOurs { .. })),
                "{action}: {refused:?}"
            );
        }
        assert_eq!(bench.kernel.counters().total(), 0);
    }
    assert_eq!(bench.kernel.observe().await.unwrap(), before);
    assert_eq!(
        before.links[&"v1".parse().unwrap()].mark,
        Mark::Foreign("moenet-agent".to_owned())
    );
});

live!(
    the_loopback_link_takes_our_addresses_and_nothing_else,
    async || {
        let bench = Bench {
            kernel: kernel(),
            interface: "lo".parse().unwrap(),
        };
        let ours = [
            address("172.22.188.1/32", None),
            address("fd00:4242::1/128", None),
        ];
        for address in ours {
            bench.apply(bench.add(address)).await;
        }
        assert!(bench.link().await.addresses.is_superset(&ours.into()));
        for address in ours {
            bench.apply(bench.remove(address)).await;
        }
        assert!(bench.link().await.addresses.is_disjoint(&ours.into()));
        assert_eq!(bench.link().await.kind, LinkKind::Loopback);
    }
);

live!(a_link_is_deleted_by_its_mark_alone, async || {
    let bench = Bench::new().await;
    let other = KernelAction::DeleteLink {
        interface: bench.interface.clone(),
        uid: "other".parse().unwrap(),
    };
    let refused = bench.kernel.apply(&other).await.unwrap_err();
    assert!(
        matches!(&refused, KernelError::NotOurs { found, .. } if found.contains("555555555555"))
    );
    assert!(bench.found().await.is_some());
    bench.apply(bench.delete()).await;
    assert!(bench.found().await.is_none());
    assert!(
        !std::path::Path::new(&format!("/var/run/wireguard/{}.sock", bench.interface)).exists()
    );
    // What is gone is deleted.
    bench.apply(bench.delete()).await;
    // And the name is free again.
    bench.apply(bench.create()).await;
});

live!(
    a_link_that_merely_answers_to_the_name_is_another_link,
    async || {
        let bench = Bench {
            kernel: kernel(),
            interface: "nickname".parse().unwrap(),
        };
        ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        let alias = Alias {
            identity: Some(identity()),
            object: uid(),
        };
        ip(&["link", "set", "v0", "alias", &alias.to_string()]);
        ip(&[
            "link", "property", "add", "dev", "v0", "altname", "nickname",
        ]);
        bench.apply(bench.delete()).await;
        assert!(bench.kernel.apply(&bench.mtu(1400)).await.is_err());
        assert_eq!(link_named(&bench.kernel, "v0").await.mtu, 1500);
    }
);

live!(a_half_made_link_is_seen_without_a_mark, async || {
    let bench = Bench {
        kernel: kernel(),
        interface: name(""),
    };
    bench.apply(bench.create()).await;
    let link = bench.link().await;
    assert_eq!((link.mark, link.up), (Mark::None, false));
    assert!(
        link.wireguard
            .is_some_and(|it| it.peers.is_empty() && it.public_key.is_none())
    );
    // It is nobody's yet, so nothing but the mark can be set.
    assert!(matches!(
        bench.kernel.apply(&bench.mtu(1400)).await,
        Err(KernelError::NotOurs { .. })
    ));
    let again = bench
        .kernel
        .apply(&bench.create())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        again.contains(bench.interface.as_str()) && again.contains("exists"),
        "{again}"
    );
    bench.apply(bench.mark()).await;
    bench.apply(bench.mtu(1400)).await;
});

live!(
    a_userspace_link_outlives_the_process_that_made_it,
    2,
    async |stage| {
        let kernel = LinuxKernel::new(options(Backend::Userspace));
        if stage == 0 {
            let bench = Bench::with(kernel, "").await;
            bench
                .configure(WireGuardPatch {
                    listen_port: Port::new(21080),
                    ..Default::default()
                })
                .await;
            return;
        }
        let bench = Bench {
            kernel,
            interface: name(""),
        };
        let link = bench.link().await;
        assert!(link.mark.is(&uid()));
        assert_eq!(link.wireguard.unwrap().listen_port, Port::new(21080));
        bench.peer(full(2)).await;
        assert_eq!(bench.wireguard().await.peers.len(), 1);
        bench.apply(bench.delete()).await;
        assert!(bench.found().await.is_none());
    }
);

live!(
    a_userspace_process_has_its_own_group_and_none_of_our_secrets,
    async || {
        let kernel = LinuxKernel::new(options(Backend::Userspace));
        let bench = Bench::with(kernel, "").await;
        let process = process_of(&bench.interface);
        let environment = std::fs::read_to_string(format!("/proc/{process}/environ")).unwrap();
        assert!(
            std::env::var(super::namespace::TOKEN).is_ok() && !environment.contains("hunter2"),
            "{environment}"
        );
        let group = |process: u32| {
            let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
            text.rsplit_once(") ")
                .unwrap()
                .1
                .split(' ')
                .nth(2)
                .unwrap()
                .to_owned()
        };
        assert_ne!(group(process), group(std::process::id()));
    }
);

live!(
    a_stopped_userspace_process_holds_up_its_own_link_alone,
    async || {
        let userspace = || LinuxKernel::new(options(Backend::Userspace));
        let stopped = Bench::with(userspace(), "a").await;
        let other = Bench::with(userspace(), "b").await;
        let process = process_of(&stopped.interface).to_string();
        let signal = |signal: &str| {
            let done = std::process::Command::new("kill")
                .args([signal, &process])
                .status()
                .unwrap();
            assert!(done.success());
        };
        signal("-STOP");
        let start = Instant::now();
        let view = other.kernel.observe().await;
        let took = start.elapsed();
        signal("-CONT");
        let links = view.unwrap().links;
        assert!(links[&stopped.interface].wireguard.is_none());
        assert!(links[&stopped.interface].mark.is(&uid()));
        assert!(links[&other.interface].wireguard.is_some());
        assert!(took < Duration::from_secs(7), "{took:?}");
        assert!(stopped.link().await.wireguard.is_some());
    }
);

live!(deleting_a_link_ends_its_hung_process, async || {
    let bench = Bench::with(LinuxKernel::new(options(Backend::Userspace)), "").await;
    let process = process_of(&bench.interface).to_string();
    let stopped = std::process::Command::new("kill")
        .args(["-STOP", &process])
        .status();
    assert!(stopped.unwrap().success());
    bench.apply(bench.delete()).await;
    assert!(bench.found().await.is_none());
    let command = std::fs::read(format!("/proc/{process}/cmdline"));
    assert!(command.unwrap_or_default().is_empty(), "it still runs");
    bench.apply(bench.create()).await;
    assert!(bench.kernel.is_starting(&bench.interface).await);
    bench.apply(bench.mark()).await;
    assert!(!bench.kernel.is_starting(&bench.interface).await);
});

live!(
    kernel_only_says_when_the_kernel_has_no_wireguard,
    async || {
        let kernel = LinuxKernel::new(options(Backend::Kernel));
        let bench = Bench {
            kernel,
            interface: name(""),
        };
        match bench.kernel.apply(&bench.create()).await {
            Ok(()) => assert_eq!(bench.link().await.kind, LinkKind::WireGuard),
            Err(KernelError::Unsupported { missing, .. }) => {
                assert!(missing.contains("modprobe wireguard"))
            }
            Err(other) => panic!("{other}"),
        }
    }
);

live!(
    gre_and_dummy_links_read_back_as_made_where_the_kernel_has_them,
    async || {
        let ends = |local: &str, remote: &str| -> (IpAddr, IpAddr) {
            (local.parse().unwrap(), remote.parse().unwrap())
        };
        let (v4, v6) = (
            ends("192.0.2.1", "192.0.2.2"),
            ends("2001:db8::1", "2001:db8::2"),
        );
        let gre = |(local, remote)| {
            (
                NewLink::Gre {
                    local: Some(local),
                    remote,
                },
                Some((local, remote)),
            )
        };
        let all = [
            ("g4", gre(v4), LinkKind::Gre),
            ("g6", gre(v6), LinkKind::Ip6Gre),
            ("d0", (NewLink::Dummy, None), LinkKind::Dummy),
        ];
        let kernel = kernel();
        for (name, (kind, ends), expected) in all {
            let interface = name.parse().unwrap();
            match kernel
                .apply(&KernelAction::CreateLink { interface, kind })
                .await
            {
                Ok(()) => {
                    let link = link_named(&kernel, name).await;
                    let ends = ends.map(|(local, remote)| GreEnds {
                        local: Some(local),
                        remote: Some(remote),
                    });
                    assert_eq!((link.kind, link.gre), (expected, ends));
                }
                Err(KernelError::Unsupported { missing, .. }) => {
                    println!("{name}: this kernel has no such links");
                    assert!(missing.contains("modprobe"));
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
);

live!(sysctls_of_our_links_are_read_and_set, async || {
    let bench = Bench::new().await;
    ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    assert_eq!(bench.link().await.sysctls.len(), Sysctl::ALL.len());
    for (key, value) in [
        (Sysctl::RpFilter, 0),
        (Sysctl::Ipv6Forwarding, 1),
        (Sysctl::AcceptRa, 0),
    ] {
        let interface = Some(bench.interface.clone());
        bench
            .apply(KernelAction::SetSysctl {
                interface,
                key,
                value,
            })
            .await;
        assert_eq!(bench.link().await.sysctls[&key], value);
    }
    assert!(
        link_named(&bench.kernel, "v0").await.sysctls.is_empty(),
        "not ours, not read"
    );
    bench
        .apply(KernelAction::SetSysctl {
            interface: None,
            key: Sysctl::Ipv4Forwarding,
            value: 1,
        })
        .await;
    let all = std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/forwarding").unwrap();
    assert_eq!(all.trim(), "1");
});

live!(a_link_whose_name_we_do_not_allow_is_not_seen, async || {
    ip(&["link", "add", "a+b", "type", "veth", "peer", "name", "v1"]);
    let view = kernel().observe().await.unwrap();
    let names: Vec<_> = view.links.keys().map(InterfaceName::as_str).collect();
    assert_eq!(names, ["lo", "v1"]);
});

live!(a_name_with_a_dot_works_throughout, async || {
    let bench = Bench::with(kernel(), ".5").await;
    let interface = Some(bench.interface.clone());
    bench
        .apply(KernelAction::SetSysctl {
            interface,
            key: Sysctl::RpFilter,
            value: 2,
        })
        .await;
    let link = bench.link().await;
    assert_eq!(link.sysctls[&Sysctl::RpFilter], 2);
    assert!(link.wireguard.is_some());
});

live!(changes_of_links_and_addresses_are_announced, async || {
    let mut news = events().unwrap();
    let bench = Bench {
        kernel: kernel(),
        interface: name(""),
    };
    let mut until_named = async || {
        let named = async {
            while news.recv().await.unwrap().interface.as_ref() != Some(&bench.interface) {}
        };
        tokio::time::timeout(Duration::from_secs(5), named)
            .await
            .unwrap();
        // The rest of the same change.
        tokio::time::sleep(Duration::from_millis(300)).await;
        while news.try_recv().is_ok() {}
    };
    bench.apply(bench.create()).await;
    until_named().await;
    bench.apply(bench.mark()).await;
    bench.apply(bench.up()).await;
    until_named().await;
    bench.apply(bench.mtu(1400)).await;
    until_named().await;
    bench.apply(bench.mark()).await;
    until_named().await;
    bench
        .apply(bench.add(address("172.20.0.1/32", Some("172.20.0.2"))))
        .await;
    until_named().await;
    bench.apply(bench.add(address("fd00::1/64", None))).await;
    until_named().await;
    bench
        .apply(bench.remove(address("172.20.0.1/32", Some("172.20.0.2"))))
        .await;
    until_named().await;
    bench.apply(bench.delete()).await;
    until_named().await;
});

live!(
    an_error_names_what_was_attempted_and_shows_no_key,
    async || {
        let bench = Bench::new().await;
        let secret = private(1).to_base64().expose().clone();
        let port = UdpSocket::bind("0.0.0.0:0").unwrap();
        let listen_on = |port: u16| KernelAction::ConfigureWireGuard {
            interface: bench.interface.clone(),
            patch: WireGuardPatch {
                release_port: false,
                private_key: Some(private(1)),
                listen_port: Port::new(port),
                ..Default::default()
            },
        };
        // A userspace WireGuard learns from the kernel that its link is up, and binds its port only then.
        bench.apply(listen_on(21080)).await;
        bench.apply(bench.up()).await;
        while UdpSocket::bind("0.0.0.0:21080").is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let action = listen_on(port.local_addr().unwrap().port());
        let error = bench.kernel.apply(&action).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(&format!("set WireGuard on {}", bench.interface)),
            "{text}"
        );
        assert!(
            text.contains("choose another port") && !text.contains(&secret),
            "{text}"
        );
    }
);
