//! What is on disk, what should be, and the difference. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

/// BIRD's main file.
pub(super) const MAIN: &str = "bird.conf";
/// The directory that is ours alone.
pub(super) const TREE: &str = "moenet";
/// The directory of the fragments.
pub(super) const SESSIONS: &str = "moenet/sessions";
/// The file that says which tree this is.
pub(super) const GENERATION: &str = "moenet/generation.conf";
/// The constant in it.
pub(super) const GENERATION_SYMBOL: &str = "MOE_GENERATION";

/// A whole configuration. Printed without its texts, for they may hold passwords.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Relative path → text.
    pub base: BTreeMap<String, String>,
    /// Name → text; the file is `moenet/sessions/<name>.conf`.
    pub fragments: BTreeMap<String, String>,
}

/// The files on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveTree {
    /// The base files and the fragments.
    pub tree: Tree,
    /// The text of `moenet/generation.conf`. It does not match the tree after a death midway.
    pub generation: Option<String>,
}

/// The files to write, in order, and then those to remove. Printed without their texts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FileChanges {
    /// Relative path and text. The generation comes last: a BIRD that starts in the middle reads the
    /// old one, and is found out.
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

impl FileChanges {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }
}

impl Tree {
    /// Every file but the generation: relative path → text.
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

    /// The hash of all files, in 32 hexadecimal digits. It depends on names and texts alone.
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

    /// Whether nothing of ours is in it, as before the first base.
    pub fn is_blank(&self) -> bool {
        self.fragments.is_empty() && self.base.keys().all(|path| path == MAIN)
    }
}

/// The text of the generation file.
pub(super) fn generation_text(generation: &str) -> String {
    format!("define {GENERATION_SYMBOL} = \"{generation}\";\n")
}

/// Where a fragment lives.
pub(super) fn fragment_path(name: &str) -> String {
    format!("{SESSIONS}/{name}.conf")
}

/// The fragment that lives there.
pub(super) fn fragment_at(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix(SESSIONS)?
        .strip_prefix('/')?
        .strip_suffix(".conf")?;
    (!name.contains('/')).then_some(name)
}

/// What to write and remove, so that the disk has the wanted tree. Empty if it has.
pub fn plan_commit(live: &LiveTree, wanted: &Tree) -> FileChanges {
    let (have, want) = (live.tree.files(), wanted.files());
    let differs = |(path, text): &(&String, &&str)| have.get(*path) != Some(*text);
    let mut write: Vec<_> = want
        .iter()
        .filter(differs)
        .map(|(path, text)| (path.clone(), (*text).to_owned()))
        .collect();
    let remove = have
        .into_keys()
        .filter(|path| !want.contains_key(path))
        .collect();
    let generation = generation_text(&wanted.generation());
    if !wanted.is_blank() && live.generation.as_ref() != Some(&generation) {
        write.push((GENERATION.to_owned(), generation));
    }
    FileChanges { write, remove }
}

/// What takes these changes back, and leads to what was on disk before them.
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
            Some(text) => undo.write.push((path.clone(), (*text).to_owned())),
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
        })
    }

    /// What the disk holds after changes, as the code that does them would leave it.
    fn applied(live: &LiveTree, changes: &FileChanges) -> LiveTree {
        let mut after = live.clone();
        for (path, text) in &changes.write {
            match fragment_at(path) {
                Some(name) => drop(after.tree.fragments.insert(name.to_owned(), text.clone())),
                None if path == GENERATION => after.generation = Some(text.clone()),
                None => drop(after.tree.base.insert(path.clone(), text.clone())),
            }
        }
        for path in &changes.remove {
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
            let live = LiveTree { generation: Some(generation_text(&have.generation())), tree: have };
            let after = applied(&live, &plan_commit(&live, &wanted));
            prop_assert_eq!(&after.tree, &wanted);
            prop_assert!(plan_commit(&after, &wanted).is_empty());
        }

        #[test]
        fn an_undo_leads_back(have in trees(), wanted in trees(), known: bool) {
            let live = LiveTree { generation: known.then(|| generation_text(&have.generation())), tree: have };
            let changes = plan_commit(&live, &wanted);
            prop_assert_eq!(applied(&applied(&live, &changes), &plan_undo(&live, &changes)), live);
        }
    }

    #[test]
    fn the_generation_is_written_last_and_only_when_it_differs() {
        let wanted = Tree {
            fragments: [("zz".into(), "x".into())].into(),
            ..Tree::default()
        };
        let changes = plan_commit(&LiveTree::default(), &wanted);
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
        let changes = plan_commit(&LiveTree::default(), &tree);
        let fragment = crate::bird::Fragment {
            text: tree.fragments["a"].clone(),
            protocols: vec![],
        };
        assert!(!format!("{tree:?} {changes:?} {fragment:?}").contains("hunter2"));
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
        assert!(plan_commit(&live, &live.tree).is_empty());
    }
}
