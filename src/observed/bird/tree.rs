//! The tree on disk, and a whole tree as it is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::main_file::{BirdProblem, MainFile};
use super::mark::{EARLIER_BUILD, whose};
use super::outline::protocols_in;
use crate::model::Identity;
use crate::util::sorted::Sorted as _;

pub(crate) const MAIN: &str = "bird.conf";
/// The directory that only the agent uses.
pub(crate) const TREE: &str = "moenet";
/// The directory of the fragments.
pub(crate) const SESSIONS: &str = "moenet/sessions";
/// The file of the tree that includes all others.
pub(crate) const MAIN_OF_TREE: &str = "moenet/main.conf";
/// The file that identifies the tree.
pub(crate) const GENERATION: &str = "moenet/generation.conf";
/// The constant that this file defines.
pub(crate) const GENERATION_SYMBOL: &str = "MOE_GENERATION";

/// The texts of files, by path or name. Shared, because the wanted tree, the one on disk, and the one that the agent wrote
/// last mostly have the same texts.
pub type Texts = BTreeMap<String, Arc<str>>;

/// A whole configuration. `Debug` omits the texts, which may hold passwords.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Relative path → text.
    pub base: Texts,
    /// Name → text; the file is `moenet/sessions/<name>.conf`.
    pub fragments: Texts,
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
    pub marks: Texts,
    /// Files that get the agent's mark with the next commit: those of builds that marked only some or wrote no
    /// identity, those of a lost directory that the agent's succeeds, and files without any statement.
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
    pub main: MainFile,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("files", &self.files().keys())
            .field("generation", &self.generation())
            .finish()
    }
}

impl LiveTree {
    /// Returns the content of a file as it is on disk.
    pub(crate) fn content(&self, path: &str, text: &str) -> String {
        let mark = self.marks.get(path).map_or("", |mark| &**mark);
        format!("{mark}{text}")
    }

    /// Returns whether the generation of the whole tree proves that the agent wrote this content. Needed for builds
    /// that marked only some files.
    pub(crate) fn vouches_for(&self, path: &str, content: &str) -> bool {
        let whole = self.generation.as_deref() == Some(&generation_text(&self.tree.generation()));
        let same = |text: &str| self.content(path, text) == content;
        let generation = self.generation.as_deref().filter(|_| path == GENERATION);
        whole && (generation.is_some_and(same) || self.tree.text(path).is_some_and(same))
    }

    /// Returns whether the tree was written by a build that marked only some of its files.
    pub(crate) fn is_of_old_build(&self) -> bool {
        self.generation.is_some() && !self.marks.contains_key(GENERATION)
    }

    /// Returns why nothing can be loaded until an operator acts. `running` are the protocols of the daemon.
    pub fn blocked<'a>(&self, running: impl Iterator<Item = &'a str>) -> Option<BirdProblem> {
        self.in_use().or_else(|| self.main.blocked(running))
    }

    /// Returns why the whole directory belongs to another agent: one of the files that every agent writes has its mark.
    /// The agent writes nothing to such a directory.
    pub fn in_use(&self) -> Option<BirdProblem> {
        let (path, identity) = [MAIN, MAIN_OF_TREE, GENERATION]
            .iter()
            .find_map(|path| self.others.get_key_value(*path))?;
        let directory = self.main.path.with_file_name("");
        let separate = "set bird.directory and bird.controlSocket to those of a BIRD of its own";
        let ways = match identity {
            None => format!("{EARLIER_BUILD}; otherwise {separate}"),
            Some(_) => format!(
                "{separate}, or, if the other agent is gone for good, move the files with its mark away: {}",
                self.files_of(identity.as_ref())
            ),
        };
        let message = format!(
            "{} {}, so the agent changes nothing in {}; tunnels are configured meanwhile",
            directory.join(path).display(),
            whose(identity.as_ref()),
            directory.display(),
        );
        Some(BirdProblem {
            reason: "BirdDirectoryInUse",
            message,
            action: ways,
        })
    }

    /// Returns the files with the mark of another agent, as a list. Files without a mark are the operator's, and stay.
    fn files_of(&self, identity: Option<&Identity>) -> String {
        const SHOWN: usize = 8;
        let of_agent = |(_, named): &(_, &Option<Identity>)| named.as_ref() == identity;
        let files = self.others.iter().filter(of_agent);
        let files: Vec<&str> = files.map(|(path, _)| path.as_str()).collect();
        let shown = files[..files.len().min(SHOWN)].join(", ");
        match files.len().saturating_sub(SHOWN) {
            0 => shown,
            more => format!("{shown} and {more} more"),
        }
    }

    /// Returns why the agent writes nothing here until an operator acts.
    pub fn left_alone(&self) -> Option<BirdProblem> {
        self.in_use().or_else(|| self.main.on_hold())
    }

    /// Returns whether the agent's mark is the only thing to write.
    pub fn lacks_marks(&self) -> bool {
        !self.unmarked.is_empty()
    }

    /// Returns the foreign files whose names these base files need.
    pub fn in_the_way<'a>(&'a self, wanted: &'a Texts) -> Vec<&'a str> {
        let foreign = self.tree.foreign.keys().map(String::as_str);
        foreign.filter(|path| wanted.contains_key(*path)).collect()
    }
}

impl Tree {
    /// Returns every file except the generation: relative path → text.
    pub fn files(&self) -> BTreeMap<String, &str> {
        self.texts()
            .map(|(path, text)| (path, &**text))
            .sorted_map()
    }

    /// As [`Self::files`], to keep the texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (String, &Arc<str>)> {
        let base = self.base.iter().map(|(path, text)| (path.clone(), text));
        let fragments = self.fragments.iter();
        base.chain(fragments.map(|(name, text)| (fragment_path(name), text)))
    }

    /// Returns the text of one of the agent's files.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        let text = match fragment_at(path) {
            Some(name) => self.fragments.get(name),
            None => self.base.get(path),
        };
        text.map(|text| &**text)
    }

    /// Returns the names of the protocols that the files define.
    pub(crate) fn protocols(&self) -> BTreeSet<String> {
        let foreign = self.foreign.values().map(String::as_str);
        let texts = self.texts().map(|(_, text)| &**text).chain(foreign);
        texts.flat_map(protocols_in).sorted_set()
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

    /// Returns the number of files.
    pub(crate) fn count(&self) -> usize {
        self.base.len() + self.fragments.len() + self.foreign.len()
    }

    /// Returns whether the tree holds nothing of the agent's, as before the first base.
    pub fn is_blank(&self) -> bool {
        self.fragments.is_empty() && self.base.keys().all(|path| path == MAIN)
    }
}

/// Returns the text of the generation file.
pub(crate) fn generation_text(generation: &str) -> String {
    format!("define {GENERATION_SYMBOL} = \"{generation}\";\n")
}

pub(crate) fn fragment_path(name: &str) -> String {
    format!("{SESSIONS}/{name}.conf")
}

/// Returns the name of the fragment at this path.
pub(crate) fn fragment_at(path: &str) -> Option<&str> {
    let name = path
        .strip_prefix(SESSIONS)?
        .strip_prefix('/')?
        .strip_suffix(".conf")?;
    (!name.contains('/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn operators_files_are_never_named_as_files_to_move() {
        let other: Identity = "ffffffffffffffff".parse().unwrap();
        let ours = ["moenet/main.conf", GENERATION, "moenet/sessions/a.conf"];
        let mut live = LiveTree {
            others: ours
                .map(|path| (path.to_owned(), Some(other.clone())))
                .into(),
            ..LiveTree::default()
        };
        live.tree
            .foreign
            .insert("moenet/sessions/mine.conf".into(), String::new());
        live.others.insert("moenet/sessions/old.conf".into(), None);
        let message = live.in_use().unwrap().to_string();
        for path in ours {
            assert!(message.contains(path), "{message}");
        }
        for path in [MAIN, "mine.conf", "old.conf"] {
            assert!(!message.contains(path), "{message}");
        }
        live.others = [(GENERATION.to_owned(), None)].into();
        let message = live.in_use().unwrap().to_string();
        assert!(message.contains("approve --earlier-build"), "{message}");
        assert!(!message.contains("move"), "{message}");
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
}
