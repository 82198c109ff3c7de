//! Configurations that failed after their load. Each such load restarts sessions, so the same configuration
//! is not retried at every backoff.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::intervals::{LOAD_COINCIDENCE, LOAD_REMEMBERED};
use crate::ports::{CommitError, Fragment, FragmentError};
use crate::util::sorted::Sorted as _;

/// Loads that failed.
#[derive(Debug, Default)]
pub(super) struct FailedLoads {
    /// Failures by the generation of the tree.
    trees: HashMap<String, Failed>,
    /// Failures by name and text, independent of the rest of the tree: BIRD had no such protocols.
    fragments: HashMap<(String, Arc<str>), (Instant, FragmentError)>,
}

#[derive(Debug)]
struct Failed {
    cause: String,
    until: Instant,
    times: u32,
}

impl FailedLoads {
    /// Removes expired failures.
    pub(super) fn expire(&mut self, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LOAD_REMEMBERED;
        self.trees.retain(|_, failed| is_recent(failed.until));
        self.fragments.retain(|_, (since, _)| is_recent(*since));
    }

    /// Returns why the tree of this generation is not loaded now.
    pub(super) fn of_tree(&self, generation: &str, now: Instant) -> Option<CommitError> {
        let failed = self
            .trees
            .get(generation)
            .filter(|failed| now < failed.until)?;
        Some(CommitError::FailedBefore {
            cause: failed.cause.clone(),
            wait: Duration::from_secs(failed.until.duration_since(now).as_secs() + 1),
        })
    }

    /// Remembers why a tree was undone. An error without a load, such as a BIRD that does not answer, is not
    /// remembered.
    pub(super) fn remember_tree(&mut self, generation: &str, error: &CommitError, now: Instant) {
        let went_down = matches!(error, CommitError::WentDown(_));
        if !went_down && !matches!(error, CommitError::NotIncluded) {
            return;
        }
        let times = self.trees.get(generation).map_or(0, |failed| failed.times) + 1;
        let wait = match went_down && times == 1 {
            true => LOAD_COINCIDENCE,
            false => LOAD_REMEMBERED,
        };
        let failed = Failed {
            cause: error.to_string(),
            until: now + wait,
            times,
        };
        self.trees.insert(generation.to_owned(), failed);
    }

    /// Takes out the fragments that failed before, each with its error.
    pub(super) fn recall(
        &self,
        fragments: &mut BTreeMap<String, Option<Fragment>>,
    ) -> BTreeMap<String, FragmentError> {
        if self.fragments.is_empty() {
            return BTreeMap::new();
        }
        let known = |(name, fragment): (&String, &Option<Fragment>)| {
            let key = (name.clone(), fragment.as_ref()?.text.clone());
            let (_, error) = self.fragments.get(&key)?;
            Some((name.clone(), error.clone()))
        };
        let failed: BTreeMap<_, _> = fragments.iter().filter_map(known).sorted_map();
        fragments.retain(|name, _| !failed.contains_key(name));
        failed
    }

    /// Remembers a fragment whose protocols BIRD did not have after its load.
    pub(super) fn remember_fragment(
        &mut self,
        name: &str,
        text: Arc<str>,
        error: FragmentError,
        now: Instant,
    ) {
        self.fragments.insert((name.to_owned(), text), (now, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn went_down() -> CommitError {
        CommitError::WentDown(vec!["moe_a".to_owned()])
    }

    #[test]
    fn failed_tree_waits_longer_each_time() {
        let (mut loads, start) = (FailedLoads::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(loads.of_tree("g", start).is_none());
        loads.remember_tree("g", &went_down(), start);
        assert!(loads.of_tree("g", at(29)).is_some() && loads.of_tree("g", at(30)).is_none());
        assert!(
            loads.of_tree("h", at(1)).is_none(),
            "another tree is loaded at once"
        );
        loads.remember_tree("g", &went_down(), at(31));
        let waiting = loads.of_tree("g", at(600)).unwrap().to_string();
        assert!(waiting.contains("moe_a"), "{waiting}");
        loads.expire(at(1300));
        assert!(loads.of_tree("g", at(1300)).is_none());
    }

    #[test]
    fn silent_bird_is_no_failed_load() {
        let (mut loads, now) = (FailedLoads::default(), Instant::now());
        loads.remember_tree("g", &CommitError::NotSettled(Duration::from_secs(1)), now);
        assert!(loads.of_tree("g", now).is_none());
        loads.remember_tree("g", &CommitError::NotIncluded, now);
        assert!(loads.of_tree("g", now + Duration::from_secs(599)).is_some());
    }

    #[test]
    fn failed_fragment_is_recalled_by_its_text() {
        let (mut loads, now) = (FailedLoads::default(), Instant::now());
        let error = FragmentError::Unverified {
            name: "a".to_owned(),
            missing: vec!["moe_a".to_owned()],
        };
        loads.remember_fragment("a", "bad".into(), error, now);
        let fragment = |text: &str| {
            let protocols = Vec::new();
            let text = text.into();
            Some(Fragment { text, protocols })
        };
        let mut fragments = BTreeMap::from([
            ("a".to_owned(), fragment("bad")),
            ("b".to_owned(), fragment("bad")),
        ]);
        assert!(loads.recall(&mut fragments).contains_key("a"));
        assert_eq!(fragments.keys().collect::<Vec<_>>(), ["b"]);
        fragments.insert("a".to_owned(), fragment("good"));
        assert!(loads.recall(&mut fragments).is_empty());
        loads.expire(now + LOAD_REMEMBERED);
        fragments.insert("a".to_owned(), fragment("bad"));
        assert!(loads.recall(&mut fragments).is_empty());
    }
}
