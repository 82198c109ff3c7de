//! The tree on disk, the wanted tree, and the difference. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use super::error::whose;
use crate::model::Identity;
use crate::observed::bird::{Blocked, MainFile, mark};

/// BIRD's main file.
pub(super) const MAIN: &str = "bird.conf";
/// The directory that only the agent uses.
pub(super) const TREE: &str = "moenet";
/// The directory of the fragments.
pub(super) const SESSIONS: &str = "moenet/sessions";
/// The file of the tree that includes all others.
const MAIN_OF_TREE: &str = "moenet/main.conf";
/// The file that identifies the tree.
pub(super) const GENERATION: &str = "moenet/generation.conf";
/// The constant that this file defines.
pub(super) const GENERATION_SYMBOL: &str = "MOE_GENERATION";

/// A whole configuration. `Debug` omits the texts, which may hold passwords.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Relative path → text.
    pub base: BTreeMap<String, String>,
    /// Name → text; the file is `moenet/sessions/<name>.conf`.
    pub fragments: BTreeMap<String, String>,
    /// Files below `moenet/` that are not the agent's: relative path → text. BIRD reads them, so they are part of
    /// every check; they are never changed, and are not part of the generation.
    pub foreign: BTreeMap<String, String>,
}

/// The files on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveTree {
    /// The base files and the fragments.
    pub tree: Tree,
    /// The text of `moenet/generation.conf`. It does not match the tree if the agent was killed while writing.
    pub generation: Option<String>,
    /// The marks of the files: relative path → first line.
    pub marks: BTreeMap<String, String>,
    /// Files that get the agent's mark with the next commit: those of builds that marked only some or wrote no
    /// identity,
    /// those of a lost directory that the agent's succeeds, and files without any statement.
    pub unmarked: BTreeSet<String>,
    /// Marked files that differ from the text the agent wrote, and files that lost their mark together with their
    /// statements.
    pub edited: BTreeSet<String>,
    /// Files with the mark of another state directory: relative path → its identity, if the mark names one.
    pub others: BTreeMap<String, Option<Identity>>,
    /// Entries among the session files that BIRD would read and that are not readable files.
    pub unusable: BTreeSet<String>,
    /// The quarantined files, relative to BIRD's directory.
    pub quarantined: BTreeSet<String>,
    /// BIRD's main file.
    pub main: MainFile,
}

/// The files to write, in order, and then those to remove. `Debug` omits the texts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FileChanges {
    /// Relative path and content, with the mark. The generation comes last: a BIRD that starts in the middle reads the
    /// old one, which reveals it.
    pub write: Vec<(String, String)>,
    /// Relative paths.
    pub remove: Vec<String>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("files", &self.files().keys())
            .field("generation", &self.generation())
            .finish()
    }
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

impl LiveTree {
    /// Returns the content of a file as it is on disk.
    fn content(&self, path: &str, text: &str) -> String {
        let mark = self.marks.get(path).map_or("", String::as_str);
        format!("{mark}{text}")
    }

    /// Returns whether the generation of the whole tree proves that the agent wrote this content. Needed for builds
    /// that
    /// marked only some files.
    pub(super) fn vouches_for(&self, path: &str, content: &str) -> bool {
        let whole = self.generation.as_deref() == Some(&generation_text(&self.tree.generation()));
        let same = |text: &str| self.content(path, text) == content;
        let generation = self.generation.as_deref().filter(|_| path == GENERATION);
        whole && (generation.is_some_and(same) || self.tree.text(path).is_some_and(same))
    }

    /// Returns whether the tree was written by a build that marked only some of its files.
    pub(super) fn is_of_old_build(&self) -> bool {
        self.generation.is_some() && !self.marks.contains_key(GENERATION)
    }

    /// Returns why nothing can be loaded until an operator acts. `running` are the protocols of the daemon.
    pub fn blocked<'a>(&self, running: impl Iterator<Item = &'a str>) -> Option<Blocked> {
        self.in_use().or_else(|| self.main.blocked(running))
    }

    /// Returns why the whole directory belongs to another agent: one of the files that every agent writes has its mark.
    /// The
    /// agent writes nothing to such a directory.
    pub fn in_use(&self) -> Option<Blocked> {
        let (path, identity) = [MAIN, MAIN_OF_TREE, GENERATION]
            .iter()
            .find_map(|path| self.others.get_key_value(*path))?;
        let directory = self.main.path.with_file_name("");
        let message = format!(
            "{} {}; nothing in {} is changed. Set bird.directory and bird.controlSocket to those of a BIRD of its \
             own, or, if the other agent is gone for good, move {MAIN} and {TREE} out of the directory. Tunnels are \
             configured meanwhile",
            directory.join(path).display(),
            whose(identity.as_ref()),
            directory.display(),
        );
        Some(Blocked {
            reason: "BirdDirectoryInUse",
            message,
        })
    }

    /// Returns whether the agent's mark is the only thing to write.
    pub fn lacks_marks(&self) -> bool {
        !self.unmarked.is_empty()
    }

    /// Returns the foreign files whose names these base files need.
    pub fn in_the_way<'a>(&'a self, wanted: &'a BTreeMap<String, String>) -> Vec<&'a str> {
        let foreign = self.tree.foreign.keys().map(String::as_str);
        foreign.filter(|path| wanted.contains_key(*path)).collect()
    }
}

impl FileChanges {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }
}

impl Tree {
    /// Returns every file except the generation: relative path → text.
    pub fn files(&self) -> BTreeMap<String, &str> {
        let base = self
            .base
            .iter()
            .map(|(path, text)| (path.clone(), text.as_str()));
        base.chain(
            self.fragments
                .iter()
                .map(|(name, text)| (fragment_path(name), text.as_str())),
        )
        .collect()
    }

    /// Returns the text of one of the agent's files.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        let text = match fragment_at(path) {
            Some(name) => self.fragments.get(name),
            None => self.base.get(path),
        };
        text.map(String::as_str)
    }

    /// Returns the hash of all files, in 32 hexadecimal digits. It depends only on names and texts.
    pub fn generation(&self) -> String {
        let mut hash = Sha256::new();
        for (path, text) in self.files() {
            for part in [path.as_bytes(), text.as_bytes()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        hash.finalize()
            .iter()
            .take(16)
            .fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
    }

    /// Returns whether the tree holds nothing of the agent's, as before the first base.
    pub fn is_blank(&self) -> bool {
        self.fragments.is_empty() && self.base.keys().all(|path| path == MAIN)
    }
}

/// Returns the text of the generation file.
pub(super) fn generation_text(generation: &str) -> String {
    format!("define {GENERATION_SYMBOL} = \"{generation}\";\n")
}

/// Returns the path of a fragment.
pub(super) fn fragment_path(name: &str) -> String {
    format!("{SESSIONS}/{name}.conf")
}

/// Returns the name of the fragment at this path.
pub(super) fn fragment_at(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix(SESSIONS)?
        .strip_prefix('/')?
        .strip_suffix(".conf")?;
    (!name.contains('/')).then_some(name)
}

/// Returns the files to write and remove to get the wanted tree on disk. Empty if nothing differs.
pub fn plan_commit(live: &LiveTree, wanted: &Tree, identity: Option<&Identity>) -> FileChanges {
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
    let generation = generation_text(&wanted.generation());
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
    use proptest::prelude::*;

    fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
        proptest::collection::btree_map("[a-c]", "[xy]", 0..3)
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
                .insert(path, content[..content.len() - text.len()].to_owned());
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
            after.marks.insert(path.clone(), head.to_owned());
            let text = text.to_owned();
            match fragment_at(path) {
                Some(name) => drop(after.tree.fragments.insert(name.to_owned(), text)),
                None if path == GENERATION => after.generation = Some(text),
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
        fn a_plan_leads_to_what_is_wanted_and_is_then_empty(have in trees(), wanted in trees()) {
            let live = on_disk(have, true);
            let after = applied(&live, &plan_commit(&live, &wanted, None));
            prop_assert_eq!(&after.tree, &wanted);
            prop_assert!(plan_commit(&after, &wanted, None).is_empty());
        }

        #[test]
        fn an_undo_leads_back(have in trees(), wanted in trees(), known: bool) {
            let live = on_disk(have, known);
            let changes = plan_commit(&live, &wanted, None);
            prop_assert_eq!(applied(&applied(&live, &changes), &plan_undo(&live, &changes)), live);
        }
    }

    #[test]
    fn the_generation_is_written_last_and_only_when_it_differs() {
        let wanted = Tree {
            fragments: [("zz".into(), "x".into())].into(),
            ..Tree::default()
        };
        let changes = plan_commit(&LiveTree::default(), &wanted, None);
        let paths: Vec<_> = changes
            .write
            .iter()
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(paths, ["moenet/sessions/zz.conf", GENERATION]);
    }

    #[test]
    fn the_generation_tells_where_a_text_ends() {
        let tree = |a: &str, b: &str| Tree {
            fragments: [("a".into(), a.into()), ("b".into(), b.into())].into(),
            ..Tree::default()
        };
        assert_ne!(tree("xy", "").generation(), tree("x", "y").generation());
        assert_eq!(tree("x", "y").generation().len(), 32);
    }

    #[test]
    fn no_text_is_ever_printed() {
        let tree = Tree {
            fragments: [("a".into(), "password \"hunter2\";".into())].into(),
            ..Tree::default()
        };
        let changes = plan_commit(&LiveTree::default(), &tree, None);
        let fragment = crate::bird::Fragment {
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
            plan_commit(&live, &Tree::default(), None).remove,
            ["moenet/a.conf"]
        );
    }

    #[test]
    fn tree_of_an_old_build_gets_its_marks_with_the_first_commit() {
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
        let changes = plan_commit(&old, &old.tree, None);
        let paths: Vec<_> = changes
            .write
            .iter()
            .map(|(path, _)| path.as_str())
            .collect();
        assert_eq!(paths, ["moenet/a.conf", GENERATION]);
    }

    #[test]
    fn mark_of_an_earlier_build_is_upgraded_with_the_same_generation() {
        let tree = Tree {
            base: [("moenet/a.conf".into(), "x".into())].into(),
            ..Tree::default()
        };
        let mut live = on_disk(tree, true);
        let identity: Identity = "4f1c8a09d2e7b365".parse().unwrap();
        assert!(plan_commit(&live, &live.tree, Some(&identity)).is_empty());
        live.unmarked = ["moenet/a.conf".to_owned(), GENERATION.to_owned()].into();
        let changes = plan_commit(&live, &live.tree, Some(&identity));
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
    fn base_file_of_another_agent_blocks_the_directory() {
        let other: Identity = "ffffffffffffffff".parse().unwrap();
        let mut live = LiveTree::default();
        live.others
            .insert("moenet/sessions/x.conf".into(), Some(other.clone()));
        assert_eq!(live.in_use(), None, "a stray session file blocks no other");
        live.others.insert(GENERATION.into(), Some(other.clone()));
        let blocked = live.blocked([].into_iter()).unwrap();
        assert_eq!(blocked.reason, "BirdDirectoryInUse");
        assert!(
            blocked.message.contains(&other.to_string()),
            "{}",
            blocked.message
        );
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
        assert!(plan_commit(&live, &live.tree, None).is_empty());
    }
}
