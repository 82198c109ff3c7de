//! Changes of links that the kernel has announced and no observation has read yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::InterfaceName;

/// More changed links than this count as unknown.
const LINKS_MAX: usize = 4096;

/// The unread changes, each with its number in the order of the events.
#[derive(Debug, Default)]
pub(super) struct Unread {
    links: BTreeMap<InterfaceName, u64>,
    /// The last change of an unknown link.
    unknown: Option<u64>,
    events: u64,
}

impl Unread {
    /// Adds a change of a link, or of an unknown one.
    pub(super) fn add(&mut self, link: Option<InterfaceName>) {
        self.events += 1;
        match link.filter(|_| self.links.len() < LINKS_MAX) {
            Some(link) => drop(self.links.insert(link, self.events)),
            None => self.unknown = Some(self.events),
        }
    }

    /// Returns the number of the last event. A later look at the link shows it.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// Records that all links were read after these events.
    pub(super) fn read_all(&mut self, events: u64) {
        self.links.retain(|_, at| *at > events);
        self.unknown = self.unknown.filter(|at| *at > events);
    }

    /// Records that some links were read after these events.
    pub(super) fn read(&mut self, links: &BTreeSet<InterfaceName>, events: u64) {
        for link in links {
            if self.links.get(link).is_some_and(|at| *at <= events) {
                self.links.remove(link);
            }
        }
    }

    /// Returns whether nothing else than these links changed.
    pub(super) fn is_within(&self, links: &BTreeSet<InterfaceName>) -> bool {
        self.unknown.is_none() && self.links.keys().all(|link| links.contains(link))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.unknown.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> InterfaceName {
        name.parse().unwrap()
    }

    #[test]
    fn change_while_a_link_is_read_stays_unread() {
        let mut unread = Unread::default();
        unread.add(Some(link("a")));
        unread.add(Some(link("b")));
        let begun = unread.events();
        unread.add(Some(link("a")));
        unread.read(&[link("a"), link("b")].into(), begun);
        assert!(!unread.is_empty());
        unread.read(&[link("a")].into(), unread.events());
        assert!(unread.is_empty());
    }

    #[test]
    fn unknown_change_needs_all_links() {
        let mut unread = Unread::default();
        unread.add(None);
        unread.read(&[link("a")].into(), unread.events());
        assert!(!unread.is_empty());
        let begun = unread.events();
        unread.add(Some(link("a")));
        unread.read_all(begun);
        assert!(!unread.is_empty());
        unread.read_all(unread.events());
        assert!(unread.is_empty());
    }
}
