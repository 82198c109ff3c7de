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

mod faults;

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
        self.try_apply(action).await.unwrap();
    }

    async fn try_apply(&self, action: KernelAction) -> Result<(), KernelError> {
        self.kernel.apply(&[&action]).await.remove(0)
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
    let before = bench.kernel.counters().messages();
    let (first, second) = (
        bench.kernel.observe().await.unwrap(),
        bench.kernel.observe().await.unwrap(),
    );
    assert_eq!(first, second);
    assert_eq!((before, bench.kernel.counters().messages()), (3, 3));
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
        // The kernel's work on a new address may add a route again after its removal.
        while !bench.link().await.routes.is_disjoint(&wanted) {
            for destination in ["172.20.0.2/32 metric 0", "fd00::2/128", "fe80::/64"] {
                let line = format!("route del {destination} dev {device} proto kernel");
                // Only some may be there.
                let mut ip = std::process::Command::new("ip");
                ip.args(line.split(' ')).output().unwrap();
            }
        }
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
        let error = bench.try_apply(again).await.unwrap_err().to_string();
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
            .try_apply(bench.add(address("fd00::1/64", None)))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("disable_ipv6"), "{error}");
    }
);
