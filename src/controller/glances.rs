//! The keys of which only links changed, as the kernel announced: an observation of these links alone is enough for them,
//! so that a repair waits for no observation of everything.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{InterfaceName, ObjectKey};

/// Largest number of links that are read one by one: several messages each, where one dump has all.
const LINKS_MAX: usize = 16;

/// The keys of which only links changed.
#[derive(Debug, Default)]
pub(super) struct Glances {
    /// Those that wait for such an observation.
    waiting: BTreeMap<ObjectKey, BTreeSet<InterfaceName>>,
    /// Those that run after one.
    running: BTreeMap<ObjectKey, BTreeSet<InterfaceName>>,
    /// The links that changed while their key was running.
    meanwhile: BTreeMap<ObjectKey, BTreeSet<InterfaceName>>,
    /// Running keys whose next run needs an observation of everything.
    full: BTreeSet<ObjectKey>,
}

impl Glances {
    /// Adds a link of a key that is not running. `is_due`: whether a run of the key is due already; unless for such
    /// links too, that run needs an observation of everything.
    pub(super) fn add(&mut self, key: &ObjectKey, link: InterfaceName, is_due: bool) {
        if !is_due || self.waiting.contains_key(key) {
            self.wait(key, [link].into());
        }
    }

    /// Adds a link of a key that is running.
    pub(super) fn add_meanwhile(&mut self, key: &ObjectKey, link: InterfaceName) {
        self.meanwhile.entry(key.clone()).or_default().insert(link);
    }

    fn wait(&mut self, key: &ObjectKey, links: BTreeSet<InterfaceName>) {
        self.waiting.entry(key.clone()).or_default().extend(links);
        if self.waiting.values().map(BTreeSet::len).sum::<usize>() > LINKS_MAX {
            self.waiting.clear();
        }
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &ObjectKey> {
        self.waiting.keys()
    }

    /// Returns whether a link of a key changed that no observation shows.
    pub(super) fn has(&self, key: &ObjectKey) -> bool {
        self.waiting.contains_key(key)
    }

    /// Begins the run of a key after an observation of its links, which are returned.
    pub(super) fn begin(&mut self, key: &ObjectKey) -> BTreeSet<InterfaceName> {
        let links = self.waiting.remove(key).unwrap_or_default();
        self.running.insert(key.clone(), links.clone());
        links
    }

    /// Ends the run of a key. If its steps are to be read back, that observation shows later changes too. Returns whether
    /// the key must run again.
    pub(super) fn end(&mut self, key: &ObjectKey, is_read_back: bool) -> bool {
        let (links, meanwhile) = (self.running.remove(key), self.meanwhile.remove(key));
        let is_full = self.full.remove(key) || (is_read_back && links.is_none());
        if is_full {
            return false;
        }
        let links: BTreeSet<_> = [links.filter(|_| is_read_back), meanwhile]
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        let is_changed = !links.is_empty();
        if is_changed {
            self.wait(key, links);
        }
        is_changed && !is_read_back
    }

    /// Records that the next run of a key needs an observation of everything.
    pub(super) fn remove(&mut self, key: &ObjectKey, is_running: bool) {
        self.waiting.remove(key);
        self.running.remove(key);
        if is_running {
            self.full.insert(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Kind;

    fn key(name: &str) -> ObjectKey {
        Kind::BgpSession.key(&name.parse().unwrap())
    }

    #[test]
    fn run_for_another_reason_needs_an_observation_of_everything() {
        let (mut glances, link) = (Glances::default(), || "wg_1".parse().unwrap());
        glances.add(&key("wg_1"), link(), true);
        assert_eq!(glances.waiting().count(), 0);
        glances.add(&key("wg_1"), link(), false);
        glances.add(&key("wg_1"), link(), true);
        assert_eq!(glances.begin(&key("wg_1")), [link()].into());
        glances.add_meanwhile(&key("wg_1"), link());
        glances.remove(&key("wg_1"), true);
        glances.add_meanwhile(&key("wg_1"), link());
        assert!(!glances.end(&key("wg_1"), true));
        assert_eq!(glances.waiting().count(), 0);
    }

    #[test]
    fn steps_after_a_glance_are_read_back_by_a_glance() {
        let (mut glances, links) = (Glances::default(), ["wg_1".parse().unwrap()].into());
        glances.add(&key("wg_1"), "wg_1".parse().unwrap(), false);
        glances.begin(&key("wg_1"));
        glances.add_meanwhile(&key("wg_1"), "wg_1".parse().unwrap());
        assert!(!glances.end(&key("wg_1"), true), "the steps' own events");
        assert_eq!(glances.begin(&key("wg_1")), links);
        assert!(!glances.end(&key("wg_1"), false));
        assert_eq!(glances.waiting().count(), 0);
    }

    #[test]
    fn change_during_a_run_without_steps_is_looked_at() {
        let mut glances = Glances::default();
        glances.add_meanwhile(&key("wg_1"), "wg_1".parse().unwrap());
        assert!(glances.end(&key("wg_1"), false));
        assert_eq!(glances.waiting().count(), 1);
    }

    #[test]
    fn many_changes_are_read_with_one_dump() {
        let mut glances = Glances::default();
        for index in 0..=LINKS_MAX {
            let name = format!("wg_{index}");
            glances.add(&key(&name), name.parse().unwrap(), false);
        }
        assert_eq!(glances.waiting().count(), 0);
    }
}
