//! Problems that last: each is logged when it begins, and not again while it lasts.

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// The problems of one place at its last look.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<BTreeSet<String>>);

impl Notices {
    /// Replaces the problems by those of now. Returns the new ones.
    pub(crate) fn new_in(&self, now: impl IntoIterator<Item = String>) -> Vec<String> {
        let now: BTreeSet<String> = now.into_iter().collect();
        let mut before = self.0.lock();
        let new = now.difference(&before).cloned().collect();
        *before = now;
        new
    }

    /// Follows a place that has one problem, independent of its cause. Returns whether the problem begins; `None`
    /// between the edges.
    pub(crate) fn edge(&self, fails: bool) -> Option<bool> {
        let mut before = self.0.lock();
        if fails != before.is_empty() {
            return None;
        }
        match fails {
            true => drop(before.insert(String::new())),
            false => before.clear(),
        }
        Some(fails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_new_once_while_it_lasts() {
        let notices = Notices::default();
        let new = |now: &[&str]| notices.new_in(now.iter().map(|text| (*text).to_owned()));
        assert_eq!(new(&["a", "b"]), ["a", "b"]);
        assert_eq!(new(&["b", "c"]), ["c"]);
        assert_eq!(new(&[]), [""; 0]);
        assert_eq!(new(&["b"]), ["b"]);
    }

    #[test]
    fn one_problem_has_two_edges() {
        let notices = Notices::default();
        let edges = [false, true, true, false, false].map(|fails| notices.edge(fails));
        assert_eq!(edges, [None, Some(true), None, Some(false), None]);
    }
}
