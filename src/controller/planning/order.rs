//! Decides the order in which objects of this router take over interface names and UDP ports from each other.
//! Waiting for another object that moves away is no error; in a ring, one object gives way first.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Desired;
use crate::desired::{Intent, WantedLink};
use crate::model::{InterfaceName, Port, Uid};
use crate::observed::kernel::{KernelView, Link};
use crate::util::sorted::Sorted as _;

/// Whether an object can have its wanted name or port now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// The object can have it, or no object of this router blocks it.
    Free,
    /// Another object has it and moves away, or is removed.
    Waits(Uid),
    /// Each object of a ring wants the name or port of the next one, and this object begins.
    GivesWay(Uid),
    /// Another object has it and keeps it.
    Blocked(Uid),
}

/// Names or ports that objects have and want, of one type.
#[derive(Debug)]
struct Order<T> {
    has: BTreeMap<T, Uid>,
    wants: BTreeMap<Uid, T>,
    leaving: BTreeSet<Uid>,
}

impl<T: Ord + Clone> Order<T> {
    fn turn(&self, uid: &Uid) -> Turn {
        let holder =
            |of: &Uid| Some(self.has.get(self.wants.get(of)?)?).filter(|holder| *holder != of);
        let Some(first) = holder(uid) else {
            return Turn::Free;
        };
        let mut ring = BTreeSet::from([uid]);
        let mut next = first;
        loop {
            if next == uid {
                return match ring.first() {
                    Some(smallest) if *smallest == uid => Turn::GivesWay(first.clone()),
                    _ => Turn::Waits(first.clone()),
                };
            }
            if self.leaving.contains(next) {
                return Turn::Waits(first.clone());
            }
            let Some(wanted) = self.wants.get(next) else {
                return Turn::Blocked(first.clone());
            };
            // The objects of a ring further on break that ring themselves.
            if !ring.insert(next) {
                return Turn::Waits(first.clone());
            }
            next = match self.has.get(wanted) {
                Some(holder) if holder == next => return Turn::Blocked(first.clone()),
                Some(holder) => holder,
                None => return Turn::Waits(first.clone()),
            };
        }
    }
}

/// Returns whether an object can have the interface name it wants.
pub(super) fn name(
    desired: &Desired,
    kernel: &KernelView,
    uid: &Uid,
    wanted: &InterfaceName,
) -> Turn {
    // In a stable state every object has its wanted name, and the comparison with all others is skipped.
    let link = kernel.links.get(wanted);
    if link.is_none_or(|link| link.mark.is(uid)) {
        return Turn::Free;
    }
    let owners = Owners::of(desired);
    let links = kernel.links.iter();
    let has = links.filter_map(|(name, link)| Some((name.clone(), owners.owner(link)?)));
    order(desired, has.sorted_map(), |wanted| {
        Some(wanted.interface.clone())
    })
    .turn(uid)
}

/// Returns whether an object can have the UDP port it wants.
pub(super) fn port(
    desired: &Desired,
    kernel: &KernelView,
    uid: &Uid,
    interface: &InterfaceName,
    wanted: Port,
) -> Turn {
    let is_wanted = |link: &Link| link.listen_port() == Some(wanted);
    let own = kernel.links.get(interface);
    let has_it = own.is_some_and(|link| link.mark.is(uid) && is_wanted(link));
    if has_it || kernel.links.on_port(wanted).next().is_none() {
        return Turn::Free;
    }
    let owners = Owners::of(desired);
    let has = kernel.links.values().filter_map(|link| {
        let port = link.listen_port()?;
        Some((port, owners.owner(link)?))
    });
    order(desired, has.sorted_map(), |wanted| wanted.listen_port).turn(uid)
}

/// The objects that got another uuid, by the former one.
struct Owners<'a>(BTreeMap<&'a Uid, &'a Uid>);

impl<'a> Owners<'a> {
    fn of(desired: &'a Desired) -> Self {
        let objects = desired.objects.values();
        let renewed = objects.filter_map(|object| Some((object.formerly.as_ref()?, &object.uid)));
        Self(renewed.sorted_map())
    }

    /// Returns the object that owns a link, by its current uuid.
    fn owner(&self, link: &Link) -> Option<Uid> {
        let marked = link.mark.object()?;
        let current = self.0.get(marked).copied();
        Some(current.unwrap_or(marked).clone())
    }
}

/// Returns the order of these owners. A paused object neither moves nor is removed.
fn order<T: Ord + Clone>(
    desired: &Desired,
    has: BTreeMap<T, Uid>,
    of: impl Fn(&WantedLink<'_>) -> Option<T>,
) -> Order<T> {
    let mut order = Order {
        has,
        wants: BTreeMap::new(),
        leaving: BTreeSet::new(),
    };
    let tunnels = desired
        .objects
        .values()
        .filter(|object| object.kind.has_tunnel() && !object.may_be_paused());
    for object in tunnels {
        match &object.intent {
            Intent::Present(wanted) => {
                let wanted = wanted.link().and_then(|link| of(&link));
                order
                    .wants
                    .extend(wanted.map(|wanted| (object.uid.clone(), wanted)));
            }
            Intent::Absent => drop(order.leaving.insert(object.uid.clone())),
            Intent::Stay => {}
        }
    }
    order
}

/// Returns the object with this mark, for a message.
pub(super) fn named(desired: &Desired, uid: &Uid) -> String {
    let mut objects = desired.objects.values();
    let found = objects.find(|object| object.uid == *uid);
    found.map_or_else(|| uid.to_string(), |object| object.key().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        text.parse().unwrap()
    }

    /// Returns objects with the values they have and want; 0 means no value.
    fn order(objects: &[(&str, u8, u8)]) -> Order<u8> {
        let has = objects.iter().filter(|it| it.1 > 0);
        let wants = objects.iter().filter(|it| it.2 > 0);
        Order {
            has: has.map(|(name, has, _)| (*has, uid(name))).collect(),
            wants: wants.map(|(name, _, wants)| (uid(name), *wants)).collect(),
            leaving: BTreeSet::new(),
        }
    }

    #[test]
    fn free_ports_and_own_ports_delay_no_object() {
        let order = order(&[("a", 1, 1), ("b", 0, 3)]);
        assert_eq!(order.turn(&uid("a")), Turn::Free);
        assert_eq!(order.turn(&uid("b")), Turn::Free);
    }

    #[test]
    fn one_of_a_ring_gives_way_and_the_others_wait() {
        for ring in [&["a", "b"][..], &["a", "b", "c"], &["c", "a", "d", "b"]] {
            let size = ring.len() as u8;
            let objects = ring
                .iter()
                .zip(1..)
                .map(|(name, has)| (*name, has, has % size + 1));
            let order = order(&objects.collect::<Vec<_>>());
            for (index, name) in ring.iter().enumerate() {
                let holder = uid(ring[(index + 1) % ring.len()]);
                let turn = if *name == "a" {
                    Turn::GivesWay(holder)
                } else {
                    Turn::Waits(holder)
                };
                assert_eq!(order.turn(&uid(name)), turn);
            }
        }
    }

    #[test]
    fn an_object_waits_for_one_that_moves_away_or_leaves() {
        let mut order = order(&[("a", 1, 2), ("b", 2, 3), ("c", 4, 0), ("d", 0, 4)]);
        assert_eq!(order.turn(&uid("a")), Turn::Waits(uid("b")));
        assert_eq!(
            order.turn(&uid("d")),
            Turn::Blocked(uid("c")),
            "it has no wish to move"
        );
        order.leaving.insert(uid("c"));
        assert_eq!(order.turn(&uid("d")), Turn::Waits(uid("c")));
    }

    #[test]
    fn an_object_that_stays_blocks_all_that_wait_for_it() {
        let order = order(&[("a", 1, 2), ("b", 2, 3), ("c", 3, 3)]);
        assert_eq!(order.turn(&uid("a")), Turn::Blocked(uid("b")));
    }
}
