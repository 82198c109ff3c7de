//! The model kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use moenet_agent::model::{Address, InterfaceName, Port, Uid};
use moenet_agent::observed::Mark;
use moenet_agent::observed::kernel::{GreEnds, KernelView, Link, LinkKind, Sysctl, WireGuard};
use moenet_agent::plan::action::{KernelAction, NewLink, PeerPatch, WireGuardPatch};

use crate::support::public_of;

/// The least MTU on which IPv6 runs; below it the kernel takes IPv6 off the link.
const IPV6_MIN_MTU: u32 = 1280;

/// A kernel, and who may do what to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelKernel {
    /// What is there, whole; [`Self::observe`] shows what a dump would.
    pub(crate) links: BTreeMap<InterfaceName, Link>,
    /// Sysctls of all links that were set; the others have their defaults.
    pub(crate) all: BTreeMap<Sysctl, i64>,
    /// No WireGuard of the kernel's own: links are tun devices.
    pub(crate) userspace: bool,
    /// Whose plans are applied.
    pub(crate) uid: Option<Uid>,
    /// Links that may be marked: made here, or adopted.
    pub(crate) markable: BTreeSet<InterfaceName>,
    /// Objects that the Control Plane gave another uuid: the new one and the former one.
    pub(crate) renewed: BTreeMap<Uid, Uid>,
    /// The interface of the node's addresses, which may be shared.
    pub(crate) loopback: Option<InterfaceName>,
    pub(crate) next_index: u32,
    /// Kinds of links that cannot be made, as they are printed.
    pub(crate) lacks: BTreeSet<String>,
}

type Outcome = Result<(), String>;

impl ModelKernel {
    /// A dump: sysctls are read only for links of ours, and those of IPv6 only where it runs.
    pub(crate) fn observe(&self) -> KernelView {
        let mut links = self.links.clone();
        for link in links.values_mut() {
            let ours = link.mark.is_ours();
            let runs = has_ipv6(link);
            link.sysctls
                .retain(|key, _| ours && (runs || key.path().0 == "ipv4"));
        }
        let mut all = default_sysctls();
        all.extend(self.all.clone());
        let links = links.into_iter().collect();
        KernelView { links, all }
    }

    pub(crate) fn insert(&mut self, name: &InterfaceName, mut link: Link) {
        self.next_index += 1;
        link.index = self.next_index;
        self.links.insert(name.clone(), link);
    }

    /// Makes one change.
    ///
    /// # Panics
    /// When the change touches what is not ours.
    pub(crate) fn apply(&mut self, action: &KernelAction) -> Outcome {
        match action {
            KernelAction::CreateLink { interface, kind } => self.create(interface, kind),
            KernelAction::TryLink { interface, kind } => self.try_link(interface, kind),
            KernelAction::RenameLink { interface, uid, to } => self.rename(interface, uid, to),
            KernelAction::SetMark { interface, uid } => self.mark(interface, uid),
            KernelAction::SetGreEnds {
                interface,
                local,
                remote,
            } => self.set_ends(interface, *local, *remote),
            KernelAction::DisableKernelAddresses { interface } => {
                disable_addresses(self.ours(interface)?)
            }
            KernelAction::AllowKernelAddresses { interface } => {
                self.ours(interface)?.addrgen_none = false;
                Ok(())
            }
            KernelAction::ClearMark { interface, .. } => {
                self.ours(interface)?.mark = Mark::None;
                Ok(())
            }
            KernelAction::ConfigureWireGuard { interface, patch } => {
                wireguard(self.ours(interface)?, patch)
            }
            KernelAction::AddAddress { interface, address } => {
                add(self.shared(interface)?, address)
            }
            KernelAction::RemoveAddress { interface, address } => {
                remove(self.shared(interface)?, address)
            }
            KernelAction::AddRoute {
                interface,
                destination,
                source,
            } => add_route(self.ours(interface)?, *destination, *source),
            KernelAction::SetMtu { interface, mtu } => {
                set_mtu(self.ours(interface)?, mtu.get().into())
            }
            KernelAction::SetSysctl {
                interface,
                key,
                value,
            } => {
                let interface = interface
                    .as_ref()
                    .expect("a tunnel sets no sysctl of all links");
                set_sysctl(self.ours(interface)?, *key, *value)
            }
            KernelAction::SetUp { interface } => set_up(self.shared(interface)?),
            KernelAction::SetDown { .. } => panic!("no plan brings a link down"),
            KernelAction::DeleteLink { interface, uid } => {
                assert_eq!(
                    Some(uid),
                    self.uid.as_ref(),
                    "a link of another object is deleted"
                );
                self.ours(interface)?;
                self.links.remove(interface);
                Ok(())
            }
        }
    }

    fn create(&mut self, name: &InterfaceName, kind: &NewLink) -> Outcome {
        if self.links.contains_key(name) {
            return Err(format!("{name} exists"));
        }
        if self.lacks.contains(&format!("{kind}")) {
            return Err("no driver".into());
        }
        let link = new_link(kind, self.userspace)?;
        if link.gre.is_some()
            && self
                .links
                .values()
                .any(|other| (&other.kind, other.gre) == (&link.kind, link.gre))
        {
            return Err("a tunnel between these ends exists".into());
        }
        self.insert(name, link);
        self.markable.insert(name.clone());
        Ok(())
    }

    fn try_link(&mut self, name: &InterfaceName, kind: &NewLink) -> Outcome {
        if self.lacks.contains(&format!("{kind}")) {
            return Err("no driver".into());
        }
        assert!(
            !self.links.contains_key(name),
            "{name} is tried, but exists"
        );
        new_link(kind, self.userspace).map(drop)
    }

    fn rename(&mut self, name: &InterfaceName, uid: &Uid, to: &InterfaceName) -> Outcome {
        assert_eq!(
            Some(uid),
            self.uid.as_ref(),
            "a link of another object is renamed"
        );
        assert!(!self.links.contains_key(to), "{to} exists");
        let link = self.ours(name)?;
        if link.kind == LinkKind::Tun {
            return Err("its socket goes by the first name".into());
        }
        if std::mem::replace(&mut link.up, false) {
            link.routes.clear();
            link.addresses
                .retain(|address| address.local.addr().is_ipv4());
        }
        let link = self.links.remove(name).unwrap();
        self.links.insert(to.clone(), link);
        Ok(())
    }

    fn set_ends(&mut self, name: &InterfaceName, local: Option<IpAddr>, remote: IpAddr) -> Outcome {
        let ends = Some(GreEnds {
            local,
            remote: Some(remote),
        });
        let family = if remote.is_ipv4() {
            LinkKind::Gre
        } else {
            LinkKind::Ip6Gre
        };
        if self
            .links
            .iter()
            .any(|(other, link)| other != name && link.kind == family && link.gre == ends)
        {
            return Err("a tunnel between these ends exists".into());
        }
        let link = self.ours(name)?;
        assert_eq!(
            link.kind, family,
            "the family of a tunnel cannot be changed"
        );
        link.gre = ends;
        Ok(())
    }

    fn mark(&mut self, name: &InterfaceName, uid: &Uid) -> Outcome {
        let marked_before = self
            .links
            .get(name)
            .is_some_and(|link| link.mark == Mark::Earlier(uid.clone()));
        let renewed = self.renewed.contains_key(uid);
        assert!(
            renewed || marked_before || self.markable.contains(name),
            "{name} is marked, but is neither new nor adopted"
        );
        assert_eq!(Some(uid), self.uid.as_ref());
        let link = self
            .links
            .get_mut(name)
            .ok_or(format!("{name} is not there"))?;
        let renewed = self.renewed.get(uid).cloned().map(Mark::Ours);
        let free = [Some(Mark::None), Some(Mark::Earlier(uid.clone())), renewed]
            .contains(&Some(link.mark.clone()));
        assert!(free, "{name} belongs to {:?}", link.mark);
        link.mark = Mark::Ours(uid.clone());
        Ok(())
    }

    /// A link that carries the mark of the object whose plan this is.
    fn ours(&mut self, name: &InterfaceName) -> Result<&mut Link, String> {
        let link = self
            .links
            .get_mut(name)
            .ok_or(format!("{name} is not there"))?;
        let uid = self.uid.as_ref().expect("whose plan is this?");
        assert!(
            link.mark.is(uid),
            "{name} is touched, but carries {:?}",
            link.mark
        );
        Ok(link)
    }

    /// A link of ours, or the one the operator named for the node's addresses.
    fn shared(&mut self, name: &InterfaceName) -> Result<&mut Link, String> {
        if self.loopback.as_ref() != Some(name) {
            return self.ours(name);
        }
        self.links
            .get_mut(name)
            .ok_or(format!("{name} is not there"))
    }
}

pub(crate) fn has_ipv6(link: &Link) -> bool {
    link.mtu >= IPV6_MIN_MTU
}

/// What the kernel sets on a link that nobody has configured.
pub(crate) fn default_sysctls() -> BTreeMap<Sysctl, i64> {
    let value = |key| {
        i64::from(matches!(
            key,
            Sysctl::AcceptRa | Sysctl::Autoconf | Sysctl::RpFilter
        ))
    };
    Sysctl::ALL
        .into_iter()
        .map(|key| (key, value(key)))
        .collect()
}

/// A new link: down, unmarked, with the kernel's own addresses to come.
pub(crate) fn new_link(kind: &NewLink, userspace: bool) -> Result<Link, String> {
    let (kind, mtu, wireguard, gre) = match kind {
        NewLink::WireGuard if userspace => (LinkKind::Tun, 1420, Some(WireGuard::default()), None),
        NewLink::WireGuard => (LinkKind::WireGuard, 1420, Some(WireGuard::default()), None),
        NewLink::Gre { local, remote } => {
            if local.is_some_and(|local| local.is_ipv4() != remote.is_ipv4()) {
                return Err("the ends of a tunnel are of one family".into());
            }
            let kind = if remote.is_ipv4() {
                LinkKind::Gre
            } else {
                LinkKind::Ip6Gre
            };
            (
                kind,
                1476,
                None,
                Some(GreEnds {
                    local: *local,
                    remote: Some(*remote),
                }),
            )
        }
        NewLink::Dummy => (LinkKind::Dummy, 1500, None, None),
    };
    Ok(Link {
        index: 0,
        kind,
        mtu,
        up: false,
        mark: Mark::None,
        addrgen_none: false,
        addresses: BTreeSet::new(),
        routes: BTreeSet::new(),
        wireguard,
        gre,
        unread: None,
        learnt: false,
        sysctls: default_sysctls(),
    })
}

fn disable_addresses(link: &mut Link) -> Outcome {
    if !has_ipv6(link) {
        return Err("IPv6 is off on this link".into());
    }
    if std::mem::replace(&mut link.addrgen_none, true) {
        return Err("kernel-made addresses are off already".into());
    }
    Ok(())
}

fn set_up(link: &mut Link) -> Outcome {
    if std::mem::replace(&mut link.up, true) {
        return Err("the link is up already".into());
    }
    let as_wanted = |address: &&Address| !address.peer.is_some_and(|peer| peer.is_ipv6());
    link.routes = link
        .addresses
        .iter()
        .filter(as_wanted)
        .filter_map(Address::route)
        .collect();
    make_link_local(link);
    Ok(())
}

/// What the kernel does when IPv6 starts on a link.
fn make_link_local(link: &mut Link) {
    if link.up && has_ipv6(link) && !link.addrgen_none && link.kind != LinkKind::Loopback {
        let made = Address::new("fe80::5efe:1:2:3/64".parse().unwrap(), None);
        link.addresses.insert(made);
        link.routes.extend(made.route());
    }
}

fn set_mtu(link: &mut Link, mtu: u32) -> Outcome {
    let had_ipv6 = has_ipv6(link);
    link.mtu = mtu;
    if !had_ipv6 && has_ipv6(link) {
        let defaults = default_sysctls()
            .into_iter()
            .filter(|(key, _)| key.path().0 == "ipv6");
        link.sysctls.extend(defaults);
        link.addrgen_none = false;
        make_link_local(link);
    }
    Ok(())
}

fn set_sysctl(link: &mut Link, key: Sysctl, value: i64) -> Outcome {
    if key.path().0 == "ipv6" && !has_ipv6(link) {
        return Err(format!("{key} is not there"));
    }
    // A kernel that lacks the sysctl altogether is no error on a new link.
    link.sysctls.entry(key).and_modify(|have| *have = value);
    Ok(())
}

/// In IPv6 an address is on a link once, whatever its prefix and its peer.
pub(crate) fn clashes(one: &Address, other: &Address) -> bool {
    one == other || (one.local.addr().is_ipv6() && one.local.addr() == other.local.addr())
}

fn add(link: &mut Link, address: &Address) -> Outcome {
    let local = address.local.addr();
    if local.is_ipv6() && !has_ipv6(link) {
        return Err("IPv6 is off on this link".into());
    }
    if let Some(peer) = address.peer {
        let host = if local.is_ipv4() { 32 } else { 128 };
        if peer.is_ipv4() != local.is_ipv4() || address.local.prefix_len() != host {
            return Err(format!("{address} is no point-to-point address"));
        }
    }
    if link.addresses.iter().any(|there| clashes(there, address)) {
        return Err(format!("{address} exists"));
    }
    link.addresses.insert(*address);
    if link.up {
        link.routes.extend(address.route());
    }
    Ok(())
}

/// As the kernel made it when the address came: nobody needs another.
fn add_route(link: &mut Link, destination: IpNet, source: Option<Ipv4Addr>) -> Outcome {
    if !link.up {
        return Err("the link is down".into());
    }
    let made = |address: &&Address| address.route() == Some(destination);
    let address = link
        .addresses
        .iter()
        .find(made)
        .ok_or("no address of ours has this route")?;
    assert_eq!(
        source.map(IpAddr::V4),
        Some(address.local.addr()).filter(IpAddr::is_ipv4)
    );
    link.routes
        .insert(destination)
        .then_some(())
        .ok_or("this route is there".into())
}

fn remove(link: &mut Link, address: &Address) -> Outcome {
    if !link.addresses.remove(address) {
        return Err(format!("{address} is not there"));
    }
    let needed: BTreeSet<IpNet> = link.addresses.iter().filter_map(Address::route).collect();
    link.routes.retain(|route| needed.contains(route));
    Ok(())
}

fn wireguard(link: &mut Link, patch: &WireGuardPatch) -> Outcome {
    let wireguard = link
        .wireguard
        .as_mut()
        .ok_or("this is not a WireGuard link")?;
    if let Some(key) = &patch.private_key {
        wireguard.public_key = Some(public_of(key));
    }
    wireguard.listen_port = patch.listen_port.or(wireguard.listen_port);
    if patch.release_port {
        wireguard.listen_port = Port::new(60_000 + u16::try_from(link.index % 5000).unwrap_or(0));
    }
    for key in &patch.remove_peers {
        wireguard
            .peers
            .remove(key)
            .ok_or(format!("peer {key} is not there"))?;
    }
    patch
        .peers
        .iter()
        .try_for_each(|peer| configure_peer(wireguard, peer))
}

fn configure_peer(wireguard: &mut WireGuard, patch: &PeerPatch) -> Outcome {
    // An allowed IP belongs to one peer of a link: it is taken from the others.
    if let Some(allowed) = &patch.allowed_ips {
        for peer in wireguard.peers.values_mut() {
            peer.allowed_ips.retain(|net| !allowed.contains(net));
        }
    } else if !wireguard.peers.contains_key(&patch.public_key) {
        return Err(format!("new peer {} may send nothing", patch.public_key));
    }
    let peer = wireguard.peers.entry(patch.public_key).or_default();
    if let Some(key) = &patch.preshared_key {
        peer.preshared_key.clone_from(key);
    }
    if let Some(keepalive) = patch.keepalive {
        peer.keepalive = keepalive;
    }
    if let Some(allowed) = &patch.allowed_ips {
        peer.allowed_ips.clone_from(allowed);
    }
    peer.endpoint = patch.endpoint.or(peer.endpoint);
    Ok(())
}

/// Outer addresses that both the wanted and the observed draw from, so that they often meet.
pub(crate) fn outer_addresses() -> [IpAddr; 4] {
    ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap())
}
