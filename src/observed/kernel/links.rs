use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::sync::{Arc, OnceLock};

use super::Link;
use crate::model::{InterfaceName, Port, Uid};
use crate::util::sorted::Sorted as _;

/// Number of changed links up to which lookups read them one by one instead of making new indexes.
const FEW: usize = 32;

/// The links of a network namespace by name, with indexes: a plan of one object must not read all links. A copy shares
/// the links, and one that differs in a few of them shares the indexes too.
#[derive(Debug, Clone, Default)]
pub struct Links {
    all: BTreeMap<InterfaceName, Arc<Link>>,
    /// Made at the first use, of the links of then.
    indexes: OnceLock<Arc<Indexes>>,
    /// The links that have changed since then.
    changed: BTreeSet<InterfaceName>,
}

#[derive(Debug, Default)]
struct Indexes {
    owners: BTreeMap<Uid, Vec<InterfaceName>>,
    ports: BTreeMap<Port, Vec<InterfaceName>>,
}

impl Links {
    /// Returns the links that carry the mark of this object.
    pub fn owned_by<'a>(
        &'a self,
        uid: &Uid,
    ) -> impl Iterator<Item = (&'a InterfaceName, &'a Link)> + use<'a> {
        let names = self.indexes().owners.get(uid);
        let uid = uid.clone();
        self.named(names, move |link| link.mark.object() == Some(&uid))
    }

    /// Returns the links whose WireGuard listens on this port, as far as known.
    pub fn on_port(&self, port: Port) -> impl Iterator<Item = (&InterfaceName, &Link)> {
        let has = move |link: &Link| link.listen_port() == Some(port);
        self.named(self.indexes().ports.get(&port), has)
    }

    /// Returns the links of an index and those that have changed since it was made, if they have what it lists.
    fn named<'a>(
        &'a self,
        names: Option<&'a Vec<InterfaceName>>,
        has: impl Fn(&Link) -> bool,
    ) -> impl Iterator<Item = (&'a InterfaceName, &'a Link)> {
        let names = names.map(Vec::as_slice).unwrap_or_default();
        let same = names.iter().filter(|name| !self.changed.contains(*name));
        // Sorted, so that the order does not depend on what changed before.
        let names: BTreeSet<_> = same.chain(&self.changed).sorted_set();
        let links = names
            .into_iter()
            .filter_map(|name| self.get_key_value(name));
        links.filter(move |(_, link)| has(link))
    }

    fn indexes(&self) -> &Indexes {
        self.indexes.get_or_init(|| {
            let mut indexes = Indexes::default();
            for (name, link) in self.iter() {
                if let Some(uid) = link.mark.object() {
                    let owned = indexes.owners.entry(uid.clone()).or_default();
                    owned.push(name.clone());
                }
                if let Some(port) = link.listen_port() {
                    indexes.ports.entry(port).or_default().push(name.clone());
                }
            }
            Arc::new(indexes)
        })
    }

    /// Notes that a link changes.
    fn change(&mut self, name: &InterfaceName) {
        if self.indexes.get().is_none() {
            return;
        }
        self.changed.insert(name.clone());
        if self.changed.len() > FEW {
            self.indexes.take();
            self.changed.clear();
        }
    }

    /// Returns the link with this name.
    pub fn get(&self, name: &InterfaceName) -> Option<&Link> {
        self.all.get(name).map(|link| &**link)
    }

    /// Returns the link with this name, with the name.
    pub fn get_key_value(&self, name: &InterfaceName) -> Option<(&InterfaceName, &Link)> {
        let (name, link) = self.all.get_key_value(name)?;
        Some((name, link))
    }

    /// Returns the link with this name, to change it.
    pub fn get_mut(&mut self, name: &InterfaceName) -> Option<&mut Link> {
        self.change(name);
        self.all.get_mut(name).map(Arc::make_mut)
    }

    /// Adds or replaces a link.
    pub fn insert(&mut self, name: InterfaceName, link: Link) {
        self.change(&name);
        self.all.insert(name, Arc::new(link));
    }

    /// Removes the link with this name, and returns it.
    pub fn remove(&mut self, name: &InterfaceName) -> Option<Link> {
        self.change(name);
        self.all.remove(name).map(Arc::unwrap_or_clone)
    }

    /// Removes the links for which `stays` is false.
    pub fn retain(&mut self, stays: impl Fn(&InterfaceName, &Link) -> bool) {
        let gone = self.iter().filter(|(name, link)| !stays(name, link));
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// Returns whether there is a link with this name.
    pub fn contains_key(&self, name: &InterfaceName) -> bool {
        self.all.contains_key(name)
    }

    /// Returns the links, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&InterfaceName, &Link)> {
        self.all.iter().map(|(name, link)| (name, &**link))
    }

    /// Shares the links that are as in an earlier state, which would be twice in memory otherwise, and its indexes.
    pub fn share(&mut self, before: &Self) {
        let gone = before.keys().filter(|name| !self.contains_key(name));
        let mut moved: BTreeSet<_> = gone.cloned().sorted_set();
        for (name, link) in &mut self.all {
            match before.all.get(name) {
                Some(same) if same == link => *link = Arc::clone(same),
                Some(other) if is_indexed_alike(other, link) => {}
                _ => drop(moved.insert(name.clone())),
            }
        }
        moved.extend(before.changed.iter().cloned());
        if moved.len() <= FEW {
            (self.indexes, self.changed) = (before.indexes.clone(), moved);
        }
    }

    /// Returns the names of the links that are new, gone, or other than in an earlier state, but for their traffic.
    pub fn changed_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = &'a InterfaceName> {
        let gone = before.keys().filter(|name| !self.contains_key(name));
        let is_other = |(name, link): &(&InterfaceName, &Arc<Link>)| {
            let old = before.all.get(*name);
            old.is_none_or(|old| !Arc::ptr_eq(old, link) && !old.is_same_but_traffic(link))
        };
        let other = self.all.iter().filter(is_other).map(|(name, _)| name);
        gone.chain(other)
    }

    /// Returns the names, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &InterfaceName> {
        self.all.keys()
    }

    /// Returns the links without their names.
    pub fn values(&self) -> impl Iterator<Item = &Link> {
        self.all.values().map(|link| &**link)
    }

    /// Returns the number of links.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns whether there is no link.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Returns whether two states of a link have the same place in the indexes.
fn is_indexed_alike(a: &Link, b: &Link) -> bool {
    a.mark.object() == b.mark.object() && a.listen_port() == b.listen_port()
}

impl Index<&InterfaceName> for Links {
    type Output = Link;

    fn index(&self, name: &InterfaceName) -> &Link {
        &self.all[name]
    }
}

impl PartialEq for Links {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for Links {}

impl FromIterator<(InterfaceName, Link)> for Links {
    fn from_iter<I: IntoIterator<Item = (InterfaceName, Link)>>(links: I) -> Self {
        let all = links.into_iter().map(|(name, link)| (name, Arc::new(link)));
        Self {
            all: all.sorted_map(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkKind, WireGuard, WireGuardPeer};
    use super::*;
    use crate::model::PublicKey;
    use crate::observed::Mark;

    fn link(uid: &str, port: u16) -> Link {
        Link {
            index: 1,
            kind: LinkKind::WireGuard,
            mtu: 1420,
            up: true,
            mark: Mark::Ours(uid.parse().unwrap()),
            addrgen_none: true,
            addresses: Default::default(),
            routes: Default::default(),
            wireguard: Some(WireGuard {
                listen_port: Port::new(port),
                ..WireGuard::default()
            }),
            unread: None,
            gre: None,
            learnt: false,
            sysctls: BTreeMap::new(),
        }
    }

    #[test]
    fn unchanged_links_are_shared() {
        let name = |name: &str| name.parse::<InterfaceName>().unwrap();
        let all = |ports: [u16; 2]| -> Links {
            let links = [("a", ports[0]), ("b", ports[1])];
            links
                .map(|(of, port)| (name(of), link(of, port)))
                .into_iter()
                .collect()
        };
        let (before, mut now) = (all([1, 2]), all([1, 3]));
        now.share(&before);
        assert!(Arc::ptr_eq(&before.all[&name("a")], &now.all[&name("a")]));
        assert_eq!(now, all([1, 3]));
        assert_eq!(now.changed_since(&before).collect::<Vec<_>>(), [&name("b")]);
        now.remove(&name("a"));
        let changed: Vec<_> = now.changed_since(&before).collect();
        assert_eq!(changed, [&name("a"), &name("b")]);
    }

    #[test]
    fn shared_indexes_follow_the_later_links() {
        let name = |index: usize| format!("wg_{index}").parse::<InterfaceName>().unwrap();
        let all = |count: usize, port: u16| -> Links {
            let links = (0..count).map(|index| (name(index), link("a", 1)));
            let mut all: Links = links.collect();
            all.insert(name(0), link("b", port));
            all
        };
        let before = all(4, 2);
        assert_eq!(before.owned_by(&"a".parse().unwrap()).count(), 3);
        for (count, port) in [(4, 3), (5, 3), (2, 2), (FEW + 9, 4)] {
            let mut now = all(count, port);
            now.share(&before);
            assert_eq!(now.owned_by(&"a".parse().unwrap()).count(), count - 1);
            assert_eq!(now.owned_by(&"b".parse().unwrap()).count(), 1);
            let ports = (1..5).map(|port| now.on_port(Port::new(port).unwrap()).count());
            assert_eq!(ports.sum::<usize>(), count, "{count} links, port {port}");
        }
    }

    #[test]
    fn traffic_is_no_change_of_a_link() {
        let name: InterfaceName = "a".parse().unwrap();
        let of = |peer| -> Links {
            let mut link = link("a", 1);
            let peers = &mut link.wireguard.as_mut().unwrap().peers;
            peers.insert(PublicKey::new([1; 32]), Box::new(peer));
            [(name.clone(), link)].into_iter().collect()
        };
        let with = |rx_bytes, keepalive| {
            of(WireGuardPeer {
                rx_bytes,
                keepalive,
                ..WireGuardPeer::default()
            })
        };
        let answered = |second: Option<i64>| {
            let at = |second| jiff::Timestamp::from_second(second).unwrap();
            of(WireGuardPeer {
                last_handshake: second.map(at),
                ..WireGuardPeer::default()
            })
        };
        assert_eq!(with(2, None).changed_since(&with(1, None)).count(), 0);
        assert_eq!(with(1, Some(5)).changed_since(&with(1, None)).count(), 1);
        for (before, now, changes) in [(Some(0), 130, 0), (Some(0), 200, 1), (None, 130, 1)] {
            let changed = answered(Some(now));
            assert_eq!(changed.changed_since(&answered(before)).count(), changes);
        }
        let mut now = with(2, None);
        now.share(&with(1, None));
        assert_eq!(now, with(2, None), "the counters are the new ones");
    }

    #[test]
    fn change_of_a_link_changes_its_place_in_the_indexes() {
        let (first, second) = ("a".parse().unwrap(), "b".parse().unwrap());
        let names = ["wg_1", "wg_2"].map(|name| name.parse().unwrap());
        let all = names.clone().map(|name| (name, link("a", 1)));
        let mut links: Links = all.into_iter().collect();
        assert_eq!(links.owned_by(&first).count(), 2);
        assert_eq!(links.on_port(Port::new(1).unwrap()).count(), 2);
        let before = links.clone();
        links.insert(names[1].clone(), link("b", 2));
        assert_eq!(before.owned_by(&first).count(), 2, "a copy stays as it was");
        let owned: Vec<_> = links.owned_by(&second).map(|(name, _)| name).collect();
        assert_eq!(owned, [&names[1]]);
        assert_eq!(links.owned_by(&first).count(), 1);
        assert_eq!(links.on_port(Port::new(2).unwrap()).count(), 1);
        links.get_mut(&names[0]).unwrap().mark = Mark::Ours(second.clone());
        let owned: Vec<_> = links.owned_by(&second).map(|(name, _)| name).collect();
        assert_eq!(owned, [&names[0], &names[1]]);
        links.remove(&names[0]);
        assert_eq!(links.owned_by(&second).count(), 1);
        for number in 0..=FEW {
            let name = format!("wg_{}", 100 + number).parse().unwrap();
            links.insert(name, link("a", 3));
        }
        assert_eq!(links.owned_by(&first).count(), FEW + 1);
        assert_eq!(links.on_port(Port::new(3).unwrap()).count(), FEW + 1);
    }
}
