use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use super::Link;
use crate::model::{InterfaceName, Port, Uid};

/// The links of a network namespace by name, with indexes: a plan of one object must not read all links.
#[derive(Debug, Clone, Default)]
pub struct Links {
    all: BTreeMap<InterfaceName, Link>,
    /// Built at the first use after a change.
    indexes: OnceLock<Indexes>,
}

#[derive(Debug, Clone, Default)]
struct Indexes {
    owners: BTreeMap<Uid, Vec<InterfaceName>>,
    ports: BTreeMap<Port, Vec<InterfaceName>>,
}

impl Links {
    /// Returns the links that carry the mark of this object.
    pub fn owned_by(&self, uid: &Uid) -> impl Iterator<Item = (&InterfaceName, &Link)> {
        self.named(self.indexes().owners.get(uid))
    }

    /// Returns the links whose WireGuard listens on this port, as far as known.
    pub fn on_port(&self, port: Port) -> impl Iterator<Item = (&InterfaceName, &Link)> {
        self.named(self.indexes().ports.get(&port))
    }

    fn named(
        &self,
        names: Option<&Vec<InterfaceName>>,
    ) -> impl Iterator<Item = (&InterfaceName, &Link)> {
        let names = names.map(Vec::as_slice).unwrap_or_default();
        names.iter().filter_map(|name| self.all.get_key_value(name))
    }

    fn indexes(&self) -> &Indexes {
        self.indexes.get_or_init(|| {
            let mut indexes = Indexes::default();
            for (name, link) in &self.all {
                if let Some(uid) = link.mark.object() {
                    let owned = indexes.owners.entry(uid.clone()).or_default();
                    owned.push(name.clone());
                }
                if let Some(port) = link.listen_port() {
                    indexes.ports.entry(port).or_default().push(name.clone());
                }
            }
            indexes
        })
    }
}

impl Deref for Links {
    type Target = BTreeMap<InterfaceName, Link>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl DerefMut for Links {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.indexes.take();
        &mut self.all
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
        BTreeMap::from_iter(links).into()
    }
}

impl From<BTreeMap<InterfaceName, Link>> for Links {
    fn from(all: BTreeMap<InterfaceName, Link>) -> Self {
        let indexes = OnceLock::new();
        Self { all, indexes }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LinkKind, WireGuard};
    use super::*;
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
            learnt_address: false,
            sysctls: BTreeMap::new(),
        }
    }

    #[test]
    fn change_of_a_link_changes_its_place_in_the_indexes() {
        let (first, second) = ("a".parse().unwrap(), "b".parse().unwrap());
        let names = ["wg_1", "wg_2"].map(|name| name.parse().unwrap());
        let all = names.clone().map(|name| (name, link("a", 1)));
        let mut links: Links = all.into_iter().collect();
        assert_eq!(links.owned_by(&first).count(), 2);
        assert_eq!(links.on_port(Port::new(1).unwrap()).count(), 2);
        links.insert(names[1].clone(), link("b", 2));
        let owned: Vec<_> = links.owned_by(&second).map(|(name, _)| name).collect();
        assert_eq!(owned, [&names[1]]);
        assert_eq!(links.owned_by(&first).count(), 1);
        assert_eq!(links.on_port(Port::new(2).unwrap()).count(), 1);
    }
}
