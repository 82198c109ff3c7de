//! The changes of the kernel that undo an adoption.

use std::collections::BTreeSet;

use super::record::{AddressBefore, LinkBefore, Phase, Record};
use crate::model::{Address, InterfaceName, Mtu, Uid};
use crate::observed::kernel::{KernelView, Link, Sysctl};
use crate::plan::action::{KernelAction, PeerPatch, WireGuardPatch};

/// Which objects of the agent an undo takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All: the adoption made everything that the agent has.
    Everything,
    /// The adopted links alone: the state directory has other documents by now.
    Adopted,
}

/// The changes that restore one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    pub interface: InterfaceName,
    /// Changes of a link that keeps the agent's mark until all of them are made.
    pub settings: Vec<KernelAction>,
    /// Removes the mark, or the link that the adoption created.
    pub last: Option<KernelAction>,
}

/// Returns what is left to restore, link by link. A link without the agent's mark needs nothing: it was never marked, an
/// earlier undo has ended with it, or it was recreated by its owner.
pub fn reverse(record: &Record, now: &KernelView, scope: Scope) -> Vec<Restoration> {
    let marked = now.links.iter().filter_map(|(interface, link)| {
        let uid = link.mark.object()?;
        match record.links.get(interface) {
            Some(before) => Some(of_link(record, (interface, uid), before, link)),
            None if scope == Scope::Everything => Some(Restoration {
                interface: interface.clone(),
                settings: Vec::new(),
                last: Some(KernelAction::DeleteLink {
                    interface: interface.clone(),
                    uid: uid.clone(),
                }),
            }),
            None => None,
        }
    });
    let mut all: Vec<_> = marked.collect();
    if scope == Scope::Everything {
        all.extend(added(record, now));
    }
    all
}

/// Returns the changes of the sysctls of all links together that the adoption made: `rp_filter` was set to 0.
pub fn reverse_host(record: &Record, now: &KernelView) -> Option<KernelAction> {
    let key = Sysctl::RpFilter;
    let before = *record.all.get(&key.to_string())?;
    let is_set = now.all.get(&key) == Some(&0) && before != 0;
    is_set.then_some(KernelAction::SetSysctl {
        interface: None,
        key,
        value: before,
    })
}

/// Returns the removal of addresses that the adoption added to links without a mark.
fn added(record: &Record, now: &KernelView) -> impl Iterator<Item = Restoration> {
    record.added.iter().filter_map(|placed| {
        let link = now.links.get(&placed.interface)?;
        let address = Address::from(&placed.address);
        let is_there = !link.mark.is_ours() && link.addresses.contains(&address);
        let interface = placed.interface.clone();
        is_there.then(|| Restoration {
            interface: interface.clone(),
            settings: vec![KernelAction::RemoveAddress { interface, address }],
            last: None,
        })
    })
}

fn of_link(
    record: &Record,
    (interface, uid): (&InterfaceName, &Uid),
    before: &LinkBefore,
    link: &Link,
) -> Restoration {
    let mut settings = Vec::new();
    let patch = wireguard(before, link, record.phase);
    if patch != WireGuardPatch::default() {
        let interface = interface.clone();
        settings.push(KernelAction::ConfigureWireGuard { interface, patch });
    }
    if let (true, Ok(mtu)) = (link.mtu != before.mtu, Mtu::try_from(u64::from(before.mtu))) {
        let interface = interface.clone();
        settings.push(KernelAction::SetMtu { interface, mtu });
    }
    settings.extend(addresses(interface, before, link));
    if link.addrgen_none && !before.addrgen_none {
        let interface = interface.clone();
        settings.push(KernelAction::AllowKernelAddresses { interface });
    }
    let sysctls = Sysctl::ALL.into_iter().filter_map(|key| {
        let value = *before.sysctls.get(&key.to_string())?;
        (link.sysctls.get(&key) != Some(&value)).then(|| KernelAction::SetSysctl {
            interface: Some(interface.clone()),
            key,
            value,
        })
    });
    settings.extend(sysctls);
    Restoration {
        interface: interface.clone(),
        settings,
        last: Some(KernelAction::ClearMark {
            interface: interface.clone(),
            uid: uid.clone(),
        }),
    }
}

/// Returns the WireGuard settings that differ. A peer that came or went since was changed by someone else, and stays. The
/// endpoint is restored only right after the adoption: later the peer may have moved.
fn wireguard(before: &LinkBefore, link: &Link, phase: Phase) -> WireGuardPatch {
    let Some(now) = &link.wireguard else {
        return WireGuardPatch::default();
    };
    let peers = before.peers.iter().filter_map(|(key, before)| {
        let now = now.peers.get(key)?;
        let keepalive = now.keepalive != before.keepalive;
        let allowed = now.allowed_ips != before.allowed_ips;
        let endpoint = before
            .endpoint
            .filter(|endpoint| phase == Phase::Applying && now.endpoint != Some(*endpoint));
        (keepalive || allowed || endpoint.is_some()).then(|| PeerPatch {
            public_key: *key,
            preshared_key: None,
            endpoint,
            keepalive: keepalive.then_some(before.keepalive),
            allowed_ips: allowed.then(|| before.allowed_ips.clone()),
        })
    });
    let port = before.listen_port;
    WireGuardPatch {
        listen_port: port.filter(|_| now.listen_port != port),
        peers: peers.collect(),
        ..WireGuardPatch::default()
    }
}

/// Returns the changes of addresses. The kernel has one IPv6 address once on a link, so another prefix of it goes first.
fn addresses<'a>(
    interface: &'a InterfaceName,
    before: &LinkBefore,
    link: &Link,
) -> impl Iterator<Item = KernelAction> + use<'a> {
    let wanted: BTreeSet<Address> = before.addresses.iter().map(Address::from).collect();
    let missing: Vec<_> = wanted.difference(&link.addresses).copied().collect();
    let surplus = link.addresses.difference(&wanted).copied();
    let (first, last): (Vec<_>, Vec<_>) = surplus.partition(|it| {
        missing
            .iter()
            .any(|new| new.local.addr() == it.local.addr())
    });
    let remove = |address| KernelAction::RemoveAddress {
        interface: interface.clone(),
        address,
    };
    let add = |address| KernelAction::AddAddress {
        interface: interface.clone(),
        address,
    };
    let steps = first.into_iter().map(remove);
    let steps = steps.chain(missing.into_iter().map(add));
    steps.chain(last.into_iter().map(remove))
}

impl Record {
    /// Returns the addresses of a plan's steps that it adds to links which get no mark.
    pub fn added_by<'a>(
        actions: impl Iterator<Item = &'a KernelAction>,
        adopted: impl Fn(&InterfaceName) -> bool,
    ) -> BTreeSet<super::record::Placed> {
        let added = actions.filter_map(|action| match action {
            KernelAction::AddAddress { interface, address } if !adopted(interface) => {
                Some(super::record::Placed {
                    interface: interface.clone(),
                    address: AddressBefore::from(address),
                })
            }
            _ => None,
        });
        added.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Port, PublicKey};
    use crate::observed::Mark;
    use crate::observed::kernel::{LinkKind, WireGuard, WireGuardPeer};

    const NAME: &str = "wg1";

    fn link(mark: Mark) -> Link {
        let peer = WireGuardPeer {
            keepalive: Some(25),
            allowed_ips: ["::/0".parse().unwrap()].into(),
            endpoint: "192.0.2.1:1".parse().ok(),
            ..Default::default()
        };
        Link {
            index: 1,
            kind: LinkKind::WireGuard,
            mtu: 1420,
            up: true,
            mark,
            addrgen_none: true,
            addresses: [Address::new("fe80::1/64".parse().unwrap(), None)].into(),
            routes: Default::default(),
            wireguard: Some(WireGuard {
                public_key: None,
                listen_port: Port::new(1),
                peers: [(PublicKey::new([1; 32]), peer)].into(),
            }),
            unread: None,
            gre: None,
            learnt_address: false,
            sysctls: BTreeMap::new(),
        }
    }

    fn ours() -> Mark {
        Mark::Ours("local/sessions/wg1".parse().unwrap())
    }

    fn record() -> Record {
        let sysctls = [(Sysctl::RpFilter, 2)].into();
        let before = LinkBefore::of(&link(Mark::None), &sysctls);
        Record {
            begun: "2026-01-01T00:00:00Z".parse().unwrap(),
            deadline: "2026-01-01T00:01:00Z".parse().unwrap(),
            phase: Phase::Applying,
            documents: ["wg1".parse().unwrap()].into(),
            overrides: [].into(),
            state_existed: false,
            links: [(NAME.parse().unwrap(), before)].into(),
            added: [].into(),
            all: [].into(),
            units: [].into(),
            files: Vec::new(),
            folders: [].into(),
        }
    }

    fn view(link: Link) -> KernelView {
        let links = [(NAME.parse().unwrap(), link)].into_iter().collect();
        KernelView {
            links,
            ..KernelView::default()
        }
    }

    fn steps(link: Link) -> Vec<String> {
        let found = reverse(&record(), &view(link), Scope::Everything);
        let all = found.into_iter().flat_map(|it| {
            let last = it.last.into_iter();
            it.settings.into_iter().chain(last)
        });
        all.map(|it| it.to_string()).collect()
    }

    #[test]
    fn link_without_mark_is_left_alone() {
        let mut changed = link(Mark::None);
        changed.mtu = 1300;
        assert_eq!(steps(changed), Vec::<String>::new());
        let foreign = link(Mark::Foreign("of another".into()));
        assert_eq!(steps(foreign), Vec::<String>::new());
    }

    #[test]
    fn every_changed_setting_is_restored_before_the_mark_goes() {
        let mut changed = link(ours());
        changed.mtu = 1300;
        changed.addresses = [Address::new("fe80::1/128".parse().unwrap(), None)].into();
        changed.sysctls = [(Sysctl::RpFilter, 0)].into();
        let wireguard = changed.wireguard.as_mut().unwrap();
        wireguard.listen_port = Port::new(2);
        for peer in wireguard.peers.values_mut() {
            peer.keepalive = None;
            peer.endpoint = "192.0.2.9:9".parse().ok();
        }
        let found = steps(changed);
        let kinds: Vec<_> = found
            .iter()
            .map(|it| it.split(' ').next().unwrap())
            .collect();
        let want = ["set", "set", "remove", "add", "set", "clear"];
        assert_eq!(kinds, want, "{found:#?}");
        assert!(found[0].contains("listen port 1"), "{found:#?}");
        assert!(
            found[0].contains("at 192.0.2.1:1 keepalive 25"),
            "{found:#?}"
        );
    }

    #[test]
    fn later_undo_keeps_the_endpoint() {
        let mut moved = link(ours());
        let wireguard = moved.wireguard.as_mut().unwrap();
        let peers = wireguard.peers.values_mut();
        peers.for_each(|peer| peer.endpoint = "192.0.2.9:9".parse().ok());
        let kept = Record {
            phase: Phase::Kept,
            ..record()
        };
        let found = reverse(&kept, &view(moved.clone()), Scope::Adopted);
        let settings = found[0].settings.iter();
        assert!(
            settings
                .clone()
                .all(|it| matches!(it, KernelAction::SetSysctl { .. }))
        );
        assert_ne!(reverse(&record(), &view(moved), Scope::Adopted), found);
    }

    #[test]
    fn created_link_goes_only_with_everything() {
        let other = KernelView {
            links: [("dummy0".parse().unwrap(), link(ours()))]
                .into_iter()
                .collect(),
            ..KernelView::default()
        };
        let found = reverse(&record(), &other, Scope::Everything);
        assert!(matches!(
            found[0].last,
            Some(KernelAction::DeleteLink { .. })
        ));
        assert_eq!(reverse(&record(), &other, Scope::Adopted), []);
    }

    #[test]
    fn record_survives_its_text() {
        let text = serde_json::to_string(&record()).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record());
    }
}
