//! The changes of the kernel that undo an adoption.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{LinkAddress, LinkSettings, PeerSettings, Phase, Placed, Record};
use crate::model::{Address, InterfaceName, Mtu, PublicKey};
use crate::observed::kernel::{KernelView, Link, SavedRoute, Sysctl, WireGuardPeer};
use crate::plan::action::{KernelAction, PeerPatch, WireGuardPatch};
use crate::util::sorted::Sorted as _;

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
    /// The routes to restore after them.
    pub routes: BTreeSet<SavedRoute>,
    /// Settings that someone else has changed since, which stay.
    pub kept: Vec<String>,
    /// Removes the mark, or the link that the adoption created.
    pub last: Option<KernelAction>,
}

/// A link that an undo sees.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    pub kernel: &'a KernelView,
    /// The operator's routes through the recorded links.
    pub routes: &'a BTreeMap<InterfaceName, BTreeSet<SavedRoute>>,
}

/// Returns what is left to restore, link by link. A link without the agent's mark needs nothing: it was never marked, an
/// earlier undo has ended with it, or it was recreated by its owner.
pub fn reverse(record: &Record, now: Now<'_>, scope: Scope) -> Vec<Restoration> {
    let marked = now.kernel.links.iter().filter_map(|(interface, link)| {
        let uid = link.mark.object()?;
        match record.links.get(interface) {
            Some(before) => {
                let mut back = Back {
                    record,
                    interface,
                    before,
                    left: record.left.get(interface),
                    link,
                    settings: Vec::new(),
                    kept: Vec::new(),
                };
                back.all();
                Some(Restoration {
                    routes: back.routes(now.routes.get(interface)),
                    interface: interface.clone(),
                    settings: back.settings,
                    kept: back.kept,
                    last: Some(KernelAction::ClearMark {
                        interface: interface.clone(),
                        uid: uid.clone(),
                    }),
                })
            }
            // Never deleted: the adoption did not make it.
            None if was_adopted(record, link) => Some(Restoration {
                interface: interface.clone(),
                settings: Vec::new(),
                routes: BTreeSet::new(),
                kept: vec![format!(
                    "the settings of {interface}, an adopted interface that was renamed since"
                )],
                last: Some(KernelAction::ClearMark {
                    interface: interface.clone(),
                    uid: uid.clone(),
                }),
            }),
            None if scope == Scope::Everything => Some(Restoration {
                interface: interface.clone(),
                settings: Vec::new(),
                routes: BTreeSet::new(),
                kept: Vec::new(),
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
        all.extend(added(record, now.kernel));
    }
    all
}

/// Returns whether the adoption took a link over, under any name.
fn was_adopted(record: &Record, link: &Link) -> bool {
    let mut links = record.links.values();
    links.any(|before| before.index == Some(link.index))
}

/// Returns the change of the sysctl of all links together that the adoption made: `rp_filter` was set to 0. One that the plan
/// did not set is not in the record, and one that was changed since stays.
pub fn reverse_host(record: &Record, now: &KernelView) -> Option<KernelAction> {
    let key = Sysctl::RpFilter;
    let name = key.to_string();
    let before = *record.all.get(&name)?;
    let left = record.all_left.get(&name).copied().unwrap_or_default();
    let is_set = left == 0 && now.all.get(&key) == Some(&0) && before != 0;
    is_set.then_some(KernelAction::SetSysctl {
        interface: None,
        key,
        value: before,
    })
}

/// Returns the record for all rounds of an undo but its first: an address or a route that was there before the first round, and
/// is missing later, went because of it.
#[must_use]
pub fn forgetting(record: &Record, now: Now<'_>) -> Record {
    let mut record = record.clone();
    for (interface, left) in &mut record.left {
        let Some(before) = record.links.get(interface) else {
            continue;
        };
        if let Some(link) = now.kernel.links.get(interface) {
            let stays = |it: &LinkAddress| {
                !before.addresses.contains(it) || !link.addresses.contains(&Address::from(it))
            };
            left.addresses.retain(stays);
        }
        if let Some(routes) = now.routes.get(interface) {
            let stays = |it: &SavedRoute| !before.routes.contains(it) || !routes.contains(it);
            left.routes.retain(stays);
        }
    }
    record
}

/// Returns the recorded links that are gone, under any name. An undo creates none.
pub fn gone(record: &Record, now: &KernelView) -> Vec<String> {
    let is_there = |interface: &InterfaceName, before: &LinkSettings| {
        let is_renamed = |link: &Link| before.index == Some(link.index);
        now.links.contains_key(interface) || now.links.values().any(is_renamed)
    };
    let gone = record.links.iter();
    let gone = gone.filter(|(interface, before)| !is_there(interface, before));
    gone.map(|(interface, _)| format!("interface {interface} is gone, and was not created again"))
        .collect()
}

/// Returns the removal of addresses that the adoption added to links without a mark.
fn added(record: &Record, now: &KernelView) -> impl Iterator<Item = Restoration> {
    let placed = record.added.iter();
    let placed = placed.filter(|placed| !record.links.contains_key(&placed.interface));
    placed.filter_map(|placed| {
        let link = now.links.get(&placed.interface)?;
        let address = Address::from(&placed.address);
        let is_there = !link.mark.is_ours() && link.addresses.contains(&address);
        let interface = placed.interface.clone();
        is_there.then(|| Restoration {
            interface: interface.clone(),
            settings: vec![KernelAction::RemoveAddress { interface, address }],
            routes: BTreeSet::new(),
            kept: Vec::new(),
            last: None,
        })
    })
}

/// The way back of one link.
struct Back<'a> {
    record: &'a Record,
    interface: &'a InterfaceName,
    before: &'a LinkSettings,
    /// `None`: the pass did not end, so each difference is its work.
    left: Option<&'a LinkSettings>,
    link: &'a Link,
    settings: Vec<KernelAction>,
    kept: Vec<String>,
}

/// What an undo does with one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Same,
    Restore,
    /// Someone else has changed it since the adoption.
    Keep,
}

fn fate<T: PartialEq>(before: &T, left: Option<&T>, now: &T) -> Fate {
    match left {
        _ if before == now => Fate::Same,
        Some(left) if left != now => Fate::Keep,
        _ => Fate::Restore,
    }
}

impl Back<'_> {
    fn all(&mut self) {
        self.wireguard();
        self.mtu();
        self.addresses();
        let interface = || self.interface.clone();
        let addrgen = (self.link.addrgen_none, self.before.addrgen_none);
        if addrgen == (true, false) && self.left.is_none_or(|left| left.addrgen_none) {
            let interface = interface();
            let action = KernelAction::AllowKernelAddresses { interface };
            self.settings.push(action);
        }
        self.sysctls();
        let left = self.left.is_none_or(|left| left.up == Some(true));
        if self.link.up && self.before.up == Some(false) && left {
            let interface = self.interface.clone();
            self.settings.push(KernelAction::SetDown { interface });
        }
    }

    /// Adds a change, or the note that someone else has changed the setting.
    fn decide(&mut self, fate: Fate, what: impl FnOnce() -> String, action: Option<KernelAction>) {
        match fate {
            Fate::Same => {}
            Fate::Restore => self.settings.extend(action),
            Fate::Keep => {
                let kept = format!("{} of {} was changed since", what(), self.interface);
                self.kept.push(kept);
            }
        }
    }

    fn mtu(&mut self) {
        let left = self.left.map(|left| left.mtu);
        let fate = fate(&self.before.mtu, left.as_ref(), &self.link.mtu);
        let mtu = Mtu::try_from(u64::from(self.before.mtu)).ok();
        let interface = self.interface.clone();
        let action = mtu.map(|mtu| KernelAction::SetMtu { interface, mtu });
        self.decide(fate, || "the MTU".to_owned(), action);
    }

    fn sysctls(&mut self) {
        for key in Sysctl::ALL {
            let name = key.to_string();
            let Some(before) = self.before.sysctls.get(&name).copied() else {
                continue;
            };
            let left = self.left.map(|left| left.sysctls.get(&name).copied());
            let now = self.link.sysctls.get(&key).copied();
            let fate = fate(&Some(before), left.as_ref(), &now);
            let action = KernelAction::SetSysctl {
                interface: Some(self.interface.clone()),
                key,
                value: before,
            };
            self.decide(fate, || format!("sysctl {key}"), Some(action));
        }
    }

    /// A peer that came or went since was changed by someone else, and stays. The endpoint is restored only right after
    /// the adoption: later the peer may have moved.
    fn wireguard(&mut self) {
        let Some(now) = &self.link.wireguard else {
            return;
        };
        let mut patch = WireGuardPatch::default();
        let left = self.left.map(|left| left.listen_port);
        let before = self.before.listen_port;
        let of_port = fate(&before, left.as_ref(), &now.listen_port);
        if of_port == Fate::Restore {
            patch.listen_port = before;
        }
        self.decide(of_port, || "the listening port".to_owned(), None);
        for (key, before) in &self.before.peers {
            match now.peers.get(key) {
                Some(now) => patch.peers.extend(self.peer(key, before, now)),
                None => self.decide(Fate::Keep, || format!("peer {key}"), None),
            }
        }
        if patch != WireGuardPatch::default() {
            let interface = self.interface.clone();
            let action = KernelAction::ConfigureWireGuard { interface, patch };
            // Before all others.
            self.settings.insert(0, action);
        }
    }

    fn peer(
        &mut self,
        key: &PublicKey,
        before: &PeerSettings,
        now: &WireGuardPeer,
    ) -> Option<PeerPatch> {
        let left = self.left.and_then(|left| left.peers.get(key));
        let keepalive = left.map(|left| &left.keepalive);
        let keepalive = fate(&before.keepalive, keepalive, &now.keepalive);
        let allowed = left.map(|left| &left.allowed_ips);
        let allowed = fate(&before.allowed_ips, allowed, &now.allowed_ips);
        let endpoint = left.map(|left| &left.endpoint);
        let endpoint = fate(&before.endpoint, endpoint, &now.endpoint);
        self.decide(keepalive, || format!("the keepalive of peer {key}"), None);
        self.decide(allowed, || format!("the allowed IPs of peer {key}"), None);
        let is_soon = self.record.phase == Phase::Applying;
        let patch = PeerPatch {
            public_key: *key,
            preshared_key: None,
            endpoint: before
                .endpoint
                .filter(|_| is_soon && endpoint == Fate::Restore),
            keepalive: (keepalive == Fate::Restore).then_some(before.keepalive),
            allowed_ips: (allowed == Fate::Restore).then(|| before.allowed_ips.clone()),
        };
        let is_empty = patch.endpoint.is_none() && patch.keepalive.is_none();
        (!is_empty || patch.allowed_ips.is_some()).then_some(patch)
    }

    /// The kernel has one IPv6 address once on a link, so another prefix of it goes first. An address that the plan did not
    /// add is someone else's.
    fn addresses(&mut self) {
        let had = |of: &LinkSettings, address: &Address| {
            of.addresses.contains(&LinkAddress::from(address))
        };
        let before: BTreeSet<Address> =
            self.before.addresses.iter().map(Address::from).sorted_set();
        let now = &self.link.addresses;
        let (mut missing, mut surplus) = (Vec::new(), Vec::new());
        for address in before.difference(now) {
            match self.left.is_some_and(|left| had(left, address)) {
                true => self.kept.push(format!(
                    "address {address} of {} was removed since",
                    self.interface
                )),
                false => missing.push(*address),
            }
        }
        for address in now.difference(&before) {
            let placed = Placed {
                interface: self.interface.clone(),
                address: LinkAddress::from(address),
            };
            let is_added = self.record.added.contains(&placed);
            match is_added && self.left.is_none_or(|left| had(left, address)) {
                true => surplus.push(*address),
                false => self.kept.push(format!(
                    "address {address} of {} was added by someone else",
                    self.interface
                )),
            }
        }
        let (first, last): (Vec<_>, Vec<_>) = surplus.into_iter().partition(|it| {
            let mut missing = missing.iter();
            missing.any(|new| new.local.addr() == it.local.addr())
        });
        let remove = |address| KernelAction::RemoveAddress {
            interface: self.interface.clone(),
            address,
        };
        let add = |address| KernelAction::AddAddress {
            interface: self.interface.clone(),
            address,
        };
        let steps = first.into_iter().map(remove);
        let steps = steps.chain(missing.into_iter().map(add));
        self.settings
            .extend(steps.chain(last.into_iter().map(remove)));
    }

    /// Returns the routes that went with the adoption, and are still missing.
    fn routes(&self, now: Option<&BTreeSet<SavedRoute>>) -> BTreeSet<SavedRoute> {
        let Some(now) = now else {
            return BTreeSet::new();
        };
        let missing = self.before.routes.difference(now);
        let went = |route: &&SavedRoute| self.left.is_none_or(|left| !left.routes.contains(*route));
        missing.filter(went).cloned().sorted_set()
    }
}

impl Record {
    /// Returns the addresses that a plan's steps add.
    pub fn added_by<'a>(actions: impl Iterator<Item = &'a KernelAction>) -> BTreeSet<Placed> {
        let added = actions.filter_map(|action| match action {
            KernelAction::AddAddress { interface, address } => Some(Placed {
                interface: interface.clone(),
                address: LinkAddress::from(address),
            }),
            _ => None,
        });
        added.sorted_set()
    }
}

#[cfg(test)]
mod tests;
