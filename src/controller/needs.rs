//! What the next run of each key needs to see of the kernel. A change of one link needs that link alone, so that it waits
//! for no observation of everything.

use std::collections::{BTreeMap, BTreeSet};

use super::pass::Reads;
use crate::model::{InterfaceName, ObjectKey};
use crate::util::sorted::Sorted as _;

/// Largest number of links that are read one by one: several messages each, where one dump has all.
pub(super) const LINKS_MAX: usize = 16;

/// What a run needs to see of the kernel as it is now. Everything else is as last observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    Links(BTreeSet<InterfaceName>),
    Reads(Reads),
}

impl Need {
    /// Returns what satisfies both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Reads(a), Self::Reads(b)) => Self::Reads(a.max(b)),
            (Self::Links(a), Self::Links(b)) => Self::Links(a.into_iter().chain(b).sorted_set()),
            (Self::Links(links), Self::Reads(Reads::Nothing))
            | (Self::Reads(Reads::Nothing), Self::Links(links)) => Self::Links(links),
            _ => Self::Reads(Reads::Everything),
        }
    }

    /// Returns what a pass reads for it.
    fn reads(self) -> Reads {
        match self {
            Self::Links(_) => Reads::Everything,
            Self::Reads(reads) => reads,
        }
    }
}

/// The needs of the keys. Without one, a run needs what no event announces.
#[derive(Debug, Default)]
pub(super) struct Needs {
    waiting: BTreeMap<ObjectKey, Need>,
    /// The waiting keys that need single links alone: few, as [`LINKS_MAX`] says, while all others may be thousands.
    glances: BTreeSet<ObjectKey>,
    /// Those that the current runs began with.
    running: BTreeMap<ObjectKey, Need>,
    /// What changed while the key was running.
    meanwhile: BTreeMap<ObjectKey, Need>,
    /// Whether more links changed since the last pass than are read one by one.
    are_many: bool,
}

impl Needs {
    /// Adds a need of a key that is not running. `is_due`: whether its run is due for another reason already.
    pub(super) fn add(&mut self, key: &ObjectKey, need: Need, is_due: bool) {
        let usual = || is_due.then_some(Need::Reads(Reads::WireGuard));
        let before = self.take(key).or_else(usual);
        let need = before.map_or(need.clone(), |before| before.and(need));
        let is_glance = matches!(need, Need::Links(_));
        self.waiting.insert(key.clone(), need);
        if is_glance {
            self.glances.insert(key.clone());
            self.limit();
        }
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Need> {
        self.glances.remove(key);
        self.waiting.remove(key)
    }

    /// Adds a need of a key that is running.
    pub(super) fn add_meanwhile(&mut self, key: &ObjectKey, need: Need) {
        let before = self.meanwhile.remove(key);
        let need = before.map_or(need.clone(), |before| before.and(need));
        self.meanwhile.insert(key.clone(), need);
    }

    /// Reads everything instead of many links.
    fn limit(&mut self) {
        let links = |key: &ObjectKey| match self.waiting.get(key) {
            Some(Need::Links(links)) => links.len(),
            Some(Need::Reads(_)) | None => 0,
        };
        self.are_many |= self.glances.iter().map(links).sum::<usize>() > LINKS_MAX;
        if !self.are_many {
            return;
        }
        for key in std::mem::take(&mut self.glances) {
            self.waiting.insert(key, Need::Reads(Reads::Everything));
        }
    }

    /// Returns the keys that need single links alone.
    pub(super) fn glances(&self) -> impl Iterator<Item = &ObjectKey> {
        self.glances.iter()
    }

    /// Returns whether a key needs single links alone.
    pub(super) fn is_glance(&self, key: &ObjectKey) -> bool {
        self.glances.contains(key)
    }

    /// Begins the run of a key after an observation of its links, which are returned.
    pub(super) fn begin_glance(&mut self, key: &ObjectKey) -> BTreeSet<InterfaceName> {
        match self.take(key) {
            Some(Need::Links(links)) => {
                self.running.insert(key.clone(), Need::Links(links.clone()));
                links
            }
            _ => BTreeSet::new(),
        }
    }

    /// Begins the run of a key in a pass. Returns what it reads.
    pub(super) fn begin(&mut self, key: &ObjectKey) -> Reads {
        self.are_many = false;
        let need = self.take(key);
        need.map_or(Reads::WireGuard, Need::reads)
    }

    /// Ends the run of a key. Its steps, if it made any, are read back as its run began; that shows later changes too. Returns
    /// whether something changed for which the key must run again.
    pub(super) fn end(&mut self, key: &ObjectKey, is_read_back: bool) -> bool {
        let (ran, meanwhile) = (self.running.remove(key), self.meanwhile.remove(key));
        let back = is_read_back.then(|| ran.unwrap_or(Need::Reads(Reads::Everything)));
        let is_changed = meanwhile.is_some();
        for need in back.into_iter().chain(meanwhile) {
            self.add(key, need, false);
        }
        is_changed && !is_read_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Kind;

    fn key(name: &str) -> ObjectKey {
        Kind::BgpSession.key(&name.parse().unwrap())
    }

    fn link(name: &str) -> Need {
        Need::Links([name.parse().unwrap()].into())
    }

    #[test]
    fn need_beside_a_link_is_met_by_a_dump() {
        let mut needs = Needs::default();
        needs.add(&key("wg_1"), link("wg_1"), true);
        assert_eq!(needs.glances().count(), 0);
        assert_eq!(needs.begin(&key("wg_1")), Reads::Everything);
        needs.add(&key("wg_1"), link("wg_1"), false);
        assert_eq!(needs.glances().count(), 1);
        needs.add(&key("wg_1"), Need::Reads(Reads::WireGuard), true);
        assert_eq!(needs.begin(&key("wg_1")), Reads::Everything);
    }

    #[test]
    fn run_without_a_need_reads_what_is_not_announced() {
        let mut needs = Needs::default();
        assert_eq!(needs.begin(&key("wg_1")), Reads::WireGuard);
        needs.add(&key("wg_1"), Need::Reads(Reads::Nothing), false);
        assert_eq!(needs.begin(&key("wg_1")), Reads::Nothing);
        needs.add(&key("wg_1"), Need::Reads(Reads::Nothing), true);
        assert_eq!(needs.begin(&key("wg_1")), Reads::WireGuard);
    }

    #[test]
    fn steps_of_a_pass_are_read_back_by_a_dump() {
        let mut needs = Needs::default();
        needs.begin(&key("wg_1"));
        needs.add_meanwhile(&key("wg_1"), link("wg_1"));
        assert!(!needs.end(&key("wg_1"), true), "the steps' own events");
        assert_eq!(needs.begin(&key("wg_1")), Reads::Everything);
    }

    #[test]
    fn steps_after_a_glance_are_read_back_by_a_glance() {
        let mut needs = Needs::default();
        needs.add(&key("wg_1"), link("wg_1"), false);
        let links = needs.begin_glance(&key("wg_1"));
        needs.add_meanwhile(&key("wg_1"), link("wg_1"));
        assert!(!needs.end(&key("wg_1"), true), "the steps' own events");
        assert_eq!(needs.begin_glance(&key("wg_1")), links);
        assert!(!needs.end(&key("wg_1"), false));
        assert_eq!(needs.glances().count(), 0);
    }

    #[test]
    fn change_during_a_run_without_steps_is_looked_at() {
        let mut needs = Needs::default();
        needs.begin(&key("wg_1"));
        needs.add_meanwhile(&key("wg_1"), link("wg_1"));
        assert!(needs.end(&key("wg_1"), false));
        assert_eq!(needs.glances().count(), 1);
    }

    #[test]
    fn many_changes_are_read_with_one_dump() {
        let mut needs = Needs::default();
        for index in 0..2 * LINKS_MAX {
            let name = format!("wg_{index}");
            needs.add(&key(&name), link(&name), false);
        }
        assert_eq!(needs.glances().count(), 0);
        assert_eq!(needs.begin(&key("wg_0")), Reads::Everything);
        needs.add(&key("wg_0"), link("wg_0"), false);
        assert_eq!(needs.glances().count(), 1, "the pass has begun");
    }

    #[test]
    fn change_of_any_need_during_a_run_is_looked_at() {
        let mut needs = Needs::default();
        needs.begin(&ObjectKey::Router);
        needs.add_meanwhile(&ObjectKey::Router, Need::Reads(Reads::Everything));
        assert!(needs.end(&ObjectKey::Router, false));
        assert_eq!(needs.begin(&ObjectKey::Router), Reads::Everything);
    }
}
