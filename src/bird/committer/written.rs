//! The last texts that the agent wrote, for files that another program has edited or removed since. Pure.
//!
//! A commit loads all files. Without this memory, the commit of one session would load the edited text of another: an
//! emptied file takes its session down.

use std::collections::BTreeSet;

use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

use crate::observed::bird::tree::{MAIN, Texts, fragment_at};
use crate::observed::bird::{LiveTree, Tree};

/// Relative path → text of the files below `moenet/`.
#[derive(Default)]
pub(super) struct Written(Texts);

impl Written {
    /// Stores the texts of the files that are as the agent wrote them.
    pub(super) fn learn(&mut self, live: &LiveTree) {
        let is_intact = |(path, _): &(String, _)| path != MAIN && !live.edited.contains(path);
        for (path, text) in live.tree.texts().filter(is_intact) {
            self.0.insert(path, text.clone());
        }
    }

    pub(super) fn set(&mut self, tree: &Tree) {
        let texts = tree.texts().filter(|(path, _)| path != MAIN);
        self.0 = texts.map(|(path, text)| (path, text.clone())).sorted_map();
    }

    /// Returns whether the agent wrote this file before.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Returns the tree on disk, with the stored texts of files that were edited or removed.
    /// Fragments of paused sessions stay as on disk.
    pub(super) fn tree(&self, live: &LiveTree, paused: &BTreeSet<ObjectName>) -> Tree {
        let mut tree = live.tree.clone();
        for (path, text) in &self.0 {
            let differs = live.edited.contains(path) || live.tree.text(path).is_none();
            let is_paused = fragment_at(path)
                .is_some_and(|name| paused.iter().any(|paused| paused.as_str() == name));
            if !differs || is_paused || live.tree.foreign.contains_key(path) {
                continue;
            }
            match fragment_at(path) {
                Some(name) => drop(tree.fragments.insert(name.to_owned(), text.clone())),
                None => drop(tree.base.insert(path.clone(), text.clone())),
            }
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(fragments: &[(&str, &str)]) -> LiveTree {
        let fragments = fragments
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).into()));
        LiveTree {
            tree: Tree {
                fragments: fragments.collect(),
                ..Tree::default()
            },
            ..LiveTree::default()
        }
    }

    #[test]
    fn edited_and_removed_files_have_their_known_texts() {
        let mut written = Written::default();
        written.learn(&live(&[("a", "1"), ("b", "2"), ("c", "3")]));
        let mut now = live(&[("a", ""), ("b", "2")]);
        now.edited.insert("moenet/sessions/a.conf".to_owned());
        let foreign = "moenet/sessions/c.conf".to_owned();
        assert_eq!(
            written.tree(&now, &BTreeSet::new()).fragments,
            live(&[("a", "1"), ("b", "2"), ("c", "3")]).tree.fragments
        );
        now.tree.foreign.insert(foreign, "3".to_owned());
        assert!(
            !written
                .tree(&now, &BTreeSet::new())
                .fragments
                .contains_key("c")
        );
        written.learn(&now);
        assert_eq!(
            written.tree(&now, &BTreeSet::new()).fragments["a"].as_ref(),
            "1",
            "an edit is not learned"
        );
        let paused = ["a".parse().unwrap()].into();
        assert_eq!(
            written.tree(&now, &paused).fragments["a"].as_ref(),
            "",
            "a paused file"
        );
        written.set(&Tree::default());
        assert_eq!(
            written.tree(&now, &BTreeSet::new()),
            now.tree,
            "a removal of the agent is final"
        );
    }
}
