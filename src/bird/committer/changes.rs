//! The difference between the tree on disk and the wanted tree. Pure.

use std::fmt;

use crate::model::Identity;
use crate::observed::bird::tree::{GENERATION, MAIN, generation_text};
use crate::observed::bird::{LiveTree, Tree, mark};

/// The files to write, in order, and then those to remove. `Debug` omits the texts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FileChanges {
    /// Relative path and content, with the mark. The generation comes last: a BIRD that starts in the middle reads the
    /// old one, which reveals it.
    pub write: Vec<(String, String)>,
    /// Relative paths.
    pub remove: Vec<String>,
}

impl fmt::Debug for FileChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.write.iter().map(|(path, _)| path).collect();
        f.debug_struct("FileChanges")
            .field("write", &paths)
            .field("remove", &self.remove)
            .finish()
    }
}

impl FileChanges {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }
}

/// Returns the files to write and remove to get the wanted tree, of this generation, on disk. Empty if nothing differs.
pub fn plan_commit(
    live: &LiveTree,
    wanted: &Tree,
    generation: &str,
    identity: Option<&Identity>,
) -> FileChanges {
    let (have, want) = (live.tree.files(), wanted.files());
    let differs = |(path, text): &(&String, &&str)| {
        have.get(*path) != Some(*text) || live.unmarked.contains(*path)
    };
    let mut write: Vec<_> = want
        .iter()
        .filter(differs)
        .map(|(path, text)| (path.clone(), mark::marked(text, identity)))
        .collect();
    // BIRD cannot start without its main file.
    let remove = have
        .into_keys()
        .filter(|path| !want.contains_key(path) && path != MAIN)
        .collect();
    let generation = generation_text(generation);
    let is_current = live.generation.as_ref() == Some(&generation)
        && !live.is_of_old_build()
        && !live.unmarked.contains(GENERATION);
    if !wanted.is_blank() && !is_current {
        write.push((GENERATION.to_owned(), mark::marked(&generation, identity)));
    }
    FileChanges { write, remove }
}

/// Returns the changes that revert these and restore the files on disk before them.
pub(super) fn plan_undo(live: &LiveTree, changes: &FileChanges) -> FileChanges {
    let mut before = live.tree.files();
    before.extend(
        live.generation
            .iter()
            .map(|text| (GENERATION.to_owned(), text.as_str())),
    );
    let touched = changes
        .write
        .iter()
        .map(|(path, _)| path)
        .chain(&changes.remove);
    let mut undo = FileChanges::default();
    for path in touched {
        match before.get(path) {
            Some(text) => undo.write.push((path.clone(), live.content(path, text))),
            None => undo.remove.push(path.clone()),
        }
    }
    undo
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::Texts;
    use crate::observed::bird::tree::fragment_at;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn planned(live: &LiveTree, wanted: &Tree, identity: Option<&Identity>) -> FileChanges {
        plan_commit(live, wanted, &wanted.generation(), identity)
    }

    fn texts() -> impl Strategy<Value = Texts> {
        let text = "[xy]".prop_map(|text| text.into());
        proptest::collection::btree_map("[a-c]", text, 0..3)
    }

    fn trees() -> impl Strategy<Value = Tree> {
        (texts(), texts()).prop_map(|(base, fragments)| Tree {
            base: base
                .into_iter()
                .map(|(name, text)| (format!("moenet/{name}.conf"), text))
                .collect(),
            fragments,
            ..Tree::default()
        })
    }

    /// Returns a tree on disk, with all its marks.
    fn on_disk(tree: Tree, known: bool) -> LiveTree {
        let mut live = LiveTree {
            generation: known.then(|| generation_text(&tree.generation())),
            ..LiveTree::default()
        };
        let files = tree
            .files()
            .into_iter()
            .map(|(path, text)| (path, text.to_owned()));
        let generation = live.generation.clone();
        for (path, text) in files.chain(generation.map(|text| (GENERATION.to_owned(), text))) {
            let content = mark::marked(&text, None);
            live.marks
                .insert(path, content[..content.len() - text.len()].into());
        }
        live.tree = tree;
        live
    }

    /// Returns the tree on disk after these changes.
    fn applied(live: &LiveTree, changes: &FileChanges) -> LiveTree {
        let mut after = live.clone();
        for (path, content) in &changes.write {
            let mark::Mark::Complete {
                head,
                text,
                intact: true,
                ..
            } = mark::read(content)
            else {
                panic!("{path} has no mark: {content}");
            };
            after.marks.insert(path.clone(), head.into());
            let text: Arc<str> = text.into();
            match fragment_at(path) {
                Some(name) => drop(after.tree.fragments.insert(name.to_owned(), text)),
                None if path == GENERATION => after.generation = Some(text.to_string()),
                None => drop(after.tree.base.insert(path.clone(), text)),
            }
        }
        for path in &changes.remove {
            after.marks.remove(path);
            match fragment_at(path) {
                Some(name) => drop(after.tree.fragments.remove(name)),
                None if path == GENERATION => after.generation = None,
                None => drop(after.tree.base.remove(path)),
            }
        }
        after
    }

    proptest! {
        #[test]
        fn applied_tree_plan_leaves_an_empty_plan(have in trees(), wanted in trees()) {
            let live = on_disk(have, true);
            let after = applied(&live, &planned(&live, &wanted, None));
            prop_assert_eq!(&after.tree, &wanted);
            prop_assert!(planned(&after, &wanted, None).is_empty());
        }

        #[test]
        fn an_undo_leads_back(have in trees(), wanted in trees(), known: bool) {
            let live = on_disk(have, known);
            let changes = planned(&live, &wanted, None);
            prop_assert_eq!(applied(&applied(&live, &changes), &plan_undo(&live, &changes)), live);
        }
    }

    #[test]
    fn the_generation_is_written_last_and_only_when_it_differs() {
        let wanted = Tree {
            fragments: [("zz".into(), "x".into())].into(),
            ..Tree::default()
        };
        let changes = planned(&LiveTree::default(), &wanted, None);
        let paths: Vec<_> = changes
            .write
            .iter()
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(paths, ["moenet/sessions/zz.conf", GENERATION]);
    }

    #[test]
    fn no_text_is_ever_printed() {
        let tree = Tree {
            fragments: [("a".into(), "password \"hunter2\";".into())].into(),
            ..Tree::default()
        };
        let changes = planned(&LiveTree::default(), &tree, None);
        let fragment = crate::ports::Fragment {
            text: tree.fragments["a"].clone(),
            protocols: vec![],
        };
        assert!(!format!("{tree:?} {changes:?} {fragment:?}").contains("hunter2"));
    }

    #[test]
    fn main_file_is_never_removed() {
        let live = on_disk(
            Tree {
                base: [
                    (MAIN.into(), "x".into()),
                    ("moenet/a.conf".into(), "x".into()),
                ]
                .into(),
                ..Tree::default()
            },
            true,
        );
        assert_eq!(
            planned(&live, &Tree::default(), None).remove,
            ["moenet/a.conf"]
        );
    }

    #[test]
    fn first_commit_marks_an_old_build_tree() {
        let tree = Tree {
            base: [("moenet/a.conf".into(), "x".into())].into(),
            ..Tree::default()
        };
        let old = LiveTree {
            generation: Some(generation_text(&tree.generation())),
            unmarked: ["moenet/a.conf".to_owned()].into(),
            tree,
            ..LiveTree::default()
        };
        assert!(old.is_of_old_build() && old.vouches_for("moenet/a.conf", "x"));
        assert!(!old.vouches_for("moenet/a.conf", "edited"));
        let changes = planned(&old, &old.tree, None);
        let paths: Vec<_> = changes
            .write
            .iter()
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(paths, ["moenet/a.conf", GENERATION]);
    }

    #[test]
    fn earlier_mark_is_upgraded_within_the_same_generation() {
        let tree = Tree {
            base: [("moenet/a.conf".into(), "x".into())].into(),
            ..Tree::default()
        };
        let mut live = on_disk(tree, true);
        let identity: Identity = "4f1c8a09d2e7b365".parse().unwrap();
        assert!(planned(&live, &live.tree, Some(&identity)).is_empty());
        live.unmarked = ["moenet/a.conf".to_owned(), GENERATION.to_owned()].into();
        let changes = planned(&live, &live.tree, Some(&identity));
        assert_eq!(changes.write.len(), 2);
        for (path, content) in &changes.write {
            let mark::Mark::Complete {
                text,
                identity: named,
                ..
            } = mark::read(content)
            else {
                panic!("{path} has no mark");
            };
            assert_eq!(named.as_ref(), Some(&identity));
            assert!(
                text == "x" || Some(text) == live.generation.as_deref(),
                "{path}"
            );
        }
    }

    #[test]
    fn nothing_is_written_where_there_is_nothing() {
        let live = LiveTree {
            tree: Tree {
                base: [(MAIN.into(), "theirs".into())].into(),
                ..Tree::default()
            },
            ..LiveTree::default()
        };
        assert!(planned(&live, &live.tree, None).is_empty());
    }
}
