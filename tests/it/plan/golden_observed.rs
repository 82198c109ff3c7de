//! The form of `observed.yaml`. What a case does not mention is as a converged router has it, so that a
//! file shows what the case is about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use jiff::Timestamp;
use moenet_agent::effective::Secrets;
use moenet_agent::model::{Address, InterfaceName, Port, PresharedKey, PublicKey};
use moenet_agent::observed::Ownership;
use moenet_agent::observed::kernel::{
    GreEnds, KernelView, Link, LinkKind, Sysctl, WireGuard, WireGuardPeer,
};
use moenet_agent::plan::{ObjectObservation, WantedTunnel};
use serde::Deserialize;

use crate::support::{our_key, secrets};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Observation {
    #[serde(default = "now")]
    pub(crate) now: Timestamp,
    /// The link that `applied/` says was being made.
    creating: Option<InterfaceName>,
    /// What the endpoint's name resolves to.
    pub(crate) resolved: Option<SocketAddr>,
    #[serde(default)]
    endpoint_changed: bool,
    #[serde(default)]
    gives_way: bool,
    /// The session's file for BIRD.
    #[serde(default)]
    bird: Fragment,
    #[serde(default)]
    links: BTreeMap<InterfaceName, SeenLink>,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum Fragment {
    #[default]
    Missing,
    Current,
    Older,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeenLink {
    #[serde(default = "wireguard")]
    kind: String,
    alias: Option<String>,
    #[serde(default = "mtu")]
    mtu: u32,
    #[serde(default = "yes")]
    up: bool,
    #[serde(default)]
    kernel_addresses: bool,
    #[serde(default)]
    addresses: Vec<String>,
    /// Routes of these addresses that somebody took away.
    #[serde(default)]
    routes_gone: Vec<ipnet::IpNet>,
    wireguard: Option<SeenWireGuard>,
    gre: Option<SeenGre>,
    /// Sysctls that are not as we set them, as `ipv4.rp_filter`.
    #[serde(default)]
    sysctls: BTreeMap<String, i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeenGre {
    local: Option<std::net::IpAddr>,
    remote: std::net::IpAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeenWireGuard {
    /// Our public key on it. Absent: the right one.
    public_key: Option<PublicKey>,
    /// It has no private key yet.
    #[serde(default)]
    keyless: bool,
    listen_port: Option<Port>,
    #[serde(default)]
    peers: BTreeMap<PublicKey, SeenPeer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SeenPeer {
    preshared_key: Option<SeenKey>,
    endpoint: Option<SocketAddr>,
    #[serde(default = "keepalive")]
    keepalive: u16,
    allowed_ips: Option<BTreeSet<ipnet::IpNet>>,
    last_handshake: Option<Timestamp>,
}

/// Keys are not written into cases.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase")]
enum SeenKey {
    Current = 1,
    Older = 2,
}

fn now() -> Timestamp {
    "2026-11-23T20:00:00Z".parse().unwrap()
}

fn wireguard() -> String {
    "wireguard".into()
}

fn mtu() -> u32 {
    1420
}

fn yes() -> bool {
    true
}

fn keepalive() -> u16 {
    25
}

impl Observation {
    pub(crate) fn secrets(&self) -> Secrets {
        secrets(SeenKey::Current as u8)
    }

    pub(crate) fn kernel(&self) -> KernelView {
        let links = self
            .links
            .iter()
            .map(|(name, link)| (name.clone(), link.read(name)))
            .collect();
        KernelView {
            links,
            ..KernelView::default()
        }
    }

    pub(crate) fn view<'a>(
        &'a self,
        kernel: &'a KernelView,
        current: &'a str,
    ) -> ObjectObservation<'a> {
        let fragment = match self.bird {
            Fragment::Missing => None,
            Fragment::Current => Some(current),
            Fragment::Older => Some("protocol bgp ebgp_peer {\n\tdisabled;\n}\n"),
        };
        ObjectObservation {
            formerly: None,
            kernel,
            creating: self.creating.as_ref(),
            resolved: self.resolved,
            endpoint_changed: self.endpoint_changed,
            gives_way: self.gives_way,
            now: self.now,
            fragment,
        }
    }
}

impl SeenLink {
    fn read(&self, name: &InterfaceName) -> Link {
        let ownership = Ownership::of("4f1c8a09d2e7b365".parse().unwrap());
        let mark = ownership.judge(name, self.alias.as_deref());
        let ours = mark.is_ours();
        Link {
            index: 7,
            kind: self.kind(),
            mtu: self.mtu,
            up: self.up,
            mark,
            addrgen_none: !self.kernel_addresses,
            addresses: self.addresses.iter().map(|text| address(text)).collect(),
            routes: self.routes(),
            wireguard: self.wireguard.as_ref().map(SeenWireGuard::read),
            gre: self.gre.as_ref().map(|ends| GreEnds {
                local: ends.local,
                remote: Some(ends.remote),
            }),
            unread: None,
            learnt: false,
            sysctls: if ours {
                self.sysctls()
            } else {
                BTreeMap::new()
            },
        }
    }

    /// Those that the kernel makes for its addresses, but for the ones that the case says are gone.
    fn routes(&self) -> BTreeSet<ipnet::IpNet> {
        let made = self
            .addresses
            .iter()
            .filter_map(|text| address(text).route());
        made.filter(|route| self.up && !self.routes_gone.contains(route))
            .collect()
    }

    fn kind(&self) -> LinkKind {
        match self.kind.as_str() {
            "wireguard" => LinkKind::WireGuard,
            "tun" => LinkKind::Tun,
            "gre" => LinkKind::Gre,
            "ip6gre" => LinkKind::Ip6Gre,
            "dummy" => LinkKind::Dummy,
            "loopback" => LinkKind::Loopback,
            other => LinkKind::Other(other.to_owned()),
        }
    }

    fn sysctls(&self) -> BTreeMap<Sysctl, i64> {
        let mut sysctls = WantedTunnel::sysctls(&KernelView::default());
        for (name, value) in &self.sysctls {
            let key = Sysctl::ALL
                .into_iter()
                .find(|key| key.to_string() == *name)
                .expect("a sysctl we set");
            sysctls.insert(key, *value);
        }
        sysctls
    }
}

/// `fe80::998:1/64` or `172.23.105.177/32 peer 172.20.0.1`.
fn address(text: &str) -> Address {
    let (local, peer) = text
        .split_once(" peer ")
        .map_or((text, None), |(local, peer)| (local, Some(peer)));
    Address::new(
        local.parse().unwrap(),
        peer.map(|peer| peer.parse().unwrap()),
    )
}

impl SeenWireGuard {
    fn read(&self) -> WireGuard {
        WireGuard {
            public_key: (!self.keyless).then(|| self.public_key.unwrap_or_else(our_key)),
            listen_port: self.listen_port,
            peers: self
                .peers
                .iter()
                .map(|(key, peer)| (*key, peer.read().into()))
                .collect(),
        }
    }
}

impl SeenPeer {
    fn read(&self) -> WireGuardPeer {
        let all = || ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).into();
        WireGuardPeer {
            preshared_key: self
                .preshared_key
                .map(|key| PresharedKey::new([key as u8; 32])),
            endpoint: self.endpoint,
            keepalive: Some(self.keepalive),
            allowed_ips: self.allowed_ips.clone().unwrap_or_else(all),
            last_handshake: self.last_handshake,
            rx_bytes: 0,
            tx_bytes: 0,
        }
        .normalised()
    }
}
