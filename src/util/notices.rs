//! Problems that last: each is logged when it begins, and not again while it lasts.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::sorted::Sorted as _;

/// The problems of one place at its last look.
#[derive(Debug)]
pub(crate) struct Notices<T = String>(Mutex<BTreeSet<T>>);

/// The difference between two looks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct News<T> {
    /// The problems that began.
    pub(crate) new: Vec<T>,
    /// Whether there were problems before, and there are none now.
    pub(crate) is_over: bool,
}

impl<T> Default for News<T> {
    fn default() -> Self {
        Self {
            new: Vec::new(),
            is_over: false,
        }
    }
}

impl<T> Default for Notices<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Ord + Clone> Notices<T> {
    /// Replaces the problems by those of now.
    pub(crate) fn news(&self, now: impl IntoIterator<Item = T>) -> News<T> {
        let now: BTreeSet<T> = now.into_iter().sorted_set();
        let mut before = self.0.lock();
        let news = News {
            new: now.difference(&before).cloned().collect(),
            is_over: now.is_empty() && !before.is_empty(),
        };
        *before = now;
        news
    }

    /// Replaces the problems by those of now. Returns the new ones.
    pub(crate) fn new_in(&self, now: impl IntoIterator<Item = T>) -> Vec<T> {
        self.news(now).new
    }

    /// Returns the first of the problems, while there are any.
    pub(crate) fn first(&self) -> Option<T> {
        self.0.lock().first().cloned()
    }
}

impl Notices {
    /// Follows a place that has one problem, independent of its cause. Returns whether the problem begins; `None`
    /// between the edges.
    pub(crate) fn edge(&self, fails: bool) -> Option<bool> {
        let news = self.news(fails.then(String::new));
        match (news.new.is_empty(), news.is_over) {
            (false, _) => Some(true),
            (true, true) => Some(false),
            (true, false) => None,
        }
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
        assert_eq!(notices.first().as_deref(), Some("b"));
        assert_eq!(new(&[]), [""; 0]);
        assert_eq!(new(&["b"]), ["b"]);
    }

    #[test]
    fn end_of_the_last_problem_is_news_once() {
        let notices = Notices::default();
        let is_over = |now: &[u8]| notices.news(now.to_vec()).is_over;
        assert_eq!(
            [is_over(&[1, 2]), is_over(&[2]), is_over(&[]), is_over(&[])],
            [false, false, true, false]
        );
    }

    #[test]
    fn one_problem_has_two_edges() {
        let notices = Notices::default();
        let edges = [false, true, true, false, false].map(|fails| notices.edge(fails));
        assert_eq!(edges, [None, Some(true), None, Some(false), None]);
    }
}
