//! BIRD's main file on disk, with the files that it includes. Reads only.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::{Content, Seen};
use super::names::plain;
use super::{owned, promise};
use crate::observed::Ownership;
use crate::observed::bird::main_file::Unmarked;
use crate::observed::bird::mark::Mark;
use crate::observed::bird::outline::includes_in;
use crate::observed::bird::tree::{MAIN, TREE};
use crate::observed::bird::{LiveTree, MainFile};
use crate::ports::CommitError;
use crate::util::fs;
use crate::util::sorted::Sorted as _;

/// Limits for following an operator's includes: depth, number of files, and size.
const DEEPEST: usize = 8;
const MOST_FILES: usize = 4096;
const LARGEST: u64 = 4 << 20;

/// One of the operator's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Whether it includes the agent's tree, directly or through another file.
    pub(super) leads: bool,
}

/// Reads the main file into the tree if it is the agent's, and its definitions otherwise.
pub(super) fn read(
    directory: &Path,
    manages_main: bool,
    ownership: &Ownership,
    seen: &Seen,
    live: &mut LiveTree,
) -> Result<(), CommitError> {
    let path = directory.join(MAIN);
    let content = seen.read_file(&path)?;
    let mark = content.as_ref().map(Content::mark);
    if let Some(whose) = mark.and_then(|mark| owned::other_agent(&mark, ownership))
        && manages_main
    {
        live.others.insert(MAIN.to_owned(), whose);
    }
    let is_link = fs::symlink_metadata(&path).is_ok_and(|facts| !facts.is_file());
    let agents = manages_main
        && !is_link
        && content.as_ref().is_none_or(|content| match content.mark() {
            Mark::Missing => {
                let whole = content.whole();
                !owned::is_foreign(MAIN, &whole, live) && !includes_tree(directory, &whole)
            }
            Mark::Old | Mark::Complete { .. } => true,
        });
    if agents {
        live.main = MainFile {
            path,
            managed: true,
            unmarked: match &content {
                None => Some(Unmarked::Missing),
                Some(content) => (content.mark() == Mark::Missing).then_some(Unmarked::Shipped),
            },
            ..MainFile::default()
        };
        if let Some(content) = content {
            let text = match content.mark() {
                Mark::Complete { identity, .. } => {
                    live.marks.insert(MAIN.to_owned(), content.line);
                    if !ownership.is_current(identity.as_ref()) {
                        live.unmarked.insert(MAIN.to_owned());
                    }
                    content.text
                }
                Mark::Old | Mark::Missing => content.whole().into(),
            };
            live.tree.base.insert(MAIN.to_owned(), text);
        }
        return Ok(());
    }
    let files = sources(directory, seen);
    let included = files.first().is_some_and(|main| main.leads);
    let texts = files
        .iter()
        .map(|source| (source.path.as_path(), source.text.as_str()));
    live.main = MainFile::of_operator(path, manages_main, included, texts);
    Ok(())
}

/// Returns the main file and the files it includes, the main file first. Unreadable files are skipped: BIRD reports
/// them.
pub(super) fn sources(directory: &Path, seen: &Seen) -> Vec<Source> {
    let mut found = Vec::new();
    follow(directory, &directory.join(MAIN), DEEPEST, seen, &mut found);
    found
}

/// Reads a file and those that it includes. Returns whether it reaches the agent's tree.
fn follow(root: &Path, path: &Path, depth: usize, seen: &Seen, found: &mut Vec<Source>) -> bool {
    seen.note(path);
    let facts = seen.check(fs::metadata(path));
    let is_readable = facts.is_ok_and(|facts| facts.is_file() && facts.len() <= LARGEST);
    if !is_readable || found.len() >= MOST_FILES {
        return false;
    }
    let Ok(Some(content)) = seen.read_file(path) else {
        return false;
    };
    let text = content.whole();
    let (folder, at) = (path.parent().unwrap_or(root).to_owned(), found.len());
    let patterns = includes_in(&text);
    found.push(Source {
        path: path.to_owned(),
        text,
        leads: false,
    });
    let mut leads = false;
    for pattern in patterns.iter().map(|pattern| plain(&folder.join(pattern))) {
        if is_tree(root, &pattern) {
            leads = true;
        } else if depth > 0 {
            for file in matches(&pattern, seen) {
                leads |= follow(root, &file, depth - 1, seen, found);
            }
        }
    }
    found[at].leads = leads;
    leads
}

fn includes_tree(root: &Path, text: &str) -> bool {
    includes_in(text)
        .iter()
        .any(|pattern| is_tree(root, &plain(&root.join(pattern))))
}

pub(super) fn is_tree(root: &Path, path: &Path) -> bool {
    path.strip_prefix(root)
        .is_ok_and(|path| path.starts_with(TREE))
}

/// Returns the files that a pattern of an `include` matches, in BIRD's order. Wildcards count only in the last part of
/// the path.
pub(super) fn matches(pattern: &Path, seen: &Seen) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let name = name.to_string_lossy();
    if !name.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let entries = seen.read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let files: BTreeSet<_> = names
        .filter(|file| !file.starts_with('.') && promise::matches(&name, file))
        .map(|file| folder.join(file))
        .sorted_set();
    files.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::mark;
    use std::fs;

    fn with(files: &[(&str, &str)], manages_main: bool) -> (tempfile::TempDir, LiveTree) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut live = LiveTree::default();
        let (none, seen) = (Ownership::default(), Seen::default());
        read(root.path(), manages_main, &none, &seen, &mut live).unwrap();
        (root, live)
    }

    #[test]
    fn main_file_that_includes_the_tree_is_the_operators() {
        let text = "protocol device {}\ninclude \"moenet/main.conf\";\n";
        let (_root, live) = with(&[(MAIN, text)], true);
        assert!(!live.main.is_agents() && live.main.included);
        assert!(live.tree.base.is_empty() && live.main.provided("dummy0").device);
    }

    #[test]
    fn included_files_of_the_operator_are_followed() {
        let files = [
            (MAIN, "include \"conf.d/*.conf\";\n"),
            (
                "conf.d/a.conf",
                "protocol kernel k { ipv4 { export all; }; }\n",
            ),
            ("conf.d/b.conf", "include \"../moenet/main.conf\";\n"),
            ("conf.d/c.off", "protocol device {}\n"),
        ];
        let (root, live) = with(&files, false);
        assert!(live.main.included && live.main.provided("lo").kernel4);
        assert!(!live.main.provided("lo").device);
        let leads: Vec<_> = sources(root.path(), &Seen::default())
            .iter()
            .map(|source| source.leads)
            .collect();
        assert_eq!(leads, [true, false, true]);
    }

    #[test]
    fn missing_shipped_and_marked_main_files_are_the_agents() {
        assert!(with(&[], true).1.main.is_agents());
        assert!(!with(&[], false).1.main.is_agents());
        for text in [
            "protocol device {}\n".to_owned(),
            mark::marked("x;\n", None),
        ] {
            let (_root, live) = with(&[(MAIN, &text)], true);
            assert!(
                live.main.is_agents() && live.tree.base.contains_key(MAIN),
                "{text}"
            );
            assert!(!with(&[(MAIN, &text)], false).1.main.is_agents());
        }
        let (_root, live) = with(&[(MAIN, "protocol bgp p {}\n")], true);
        assert_eq!(
            live.main.blocked([].into_iter()).unwrap().reason,
            "ForeignMainConfig"
        );
    }

    #[test]
    fn include_cycles_end() {
        let files = [
            (MAIN, "include \"a.conf\";\n"),
            ("a.conf", "include \"bird.conf\";\n"),
        ];
        let (_root, live) = with(&files, true);
        assert!(!live.main.included);
    }
}
