//! Compares the outline of a tree with the protocols it promises. Pure.
//!
//! `bird -p` accepts a configuration that defines less than promised: an empty file is valid. Loading it would take
//! sessions down before the agent notices, so the outline of the tree is compared first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::batch::Wishes;
use super::names::plain;
use crate::observed::bird::Tree;
use crate::observed::bird::outline::{Outline, protocols_in};
use crate::observed::bird::tree::{GENERATION, MAIN, fragment_path};
use crate::util::sorted::Sorted as _;

/// The agent's main file, included by the operator's main file.
const OUR_MAIN: &str = "moenet/main.conf";

/// The missing parts of a wanted tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// Files that no include reaches: a fault of the base.
    Files(Vec<String>),
    /// Protocols that fragments promise and their texts do not define, by fragment.
    Protocols(BTreeMap<String, Vec<String>>),
}

/// Returns the missing parts of a tree, compared with the requested changes. `directory` is where the tree will
/// be installed.
pub(super) fn lack(tree: &Tree, wishes: &Wishes, directory: &Path) -> Option<Lack> {
    let unreached = unreached(tree, directory);
    if !unreached.is_empty() {
        return Some(Lack::Files(unreached));
    }
    let lacking = wishes.fragments.iter().filter_map(|(name, fragment)| {
        let fragment = fragment.as_ref()?;
        let there = protocols_in(&fragment.text);
        let missing: Vec<_> = fragment
            .protocols
            .iter()
            .filter(|protocol| !there.contains(protocol))
            .cloned()
            .collect();
        (!missing.is_empty()).then(|| (name.clone(), missing))
    });
    let lacking: BTreeMap<_, _> = lacking.sorted_map();
    (!lacking.is_empty()).then_some(Lack::Protocols(lacking))
}

/// Returns the generation and the fragments that no include reaches.
fn unreached(tree: &Tree, directory: &Path) -> Vec<String> {
    let mut files = tree.files();
    files.insert(GENERATION.to_owned(), "");
    // Without a main file in the tree, the operator's main file includes the agent's; it is not checked here.
    let start = [MAIN, OUR_MAIN]
        .into_iter()
        .find(|path| files.contains_key(*path));
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = start.into_iter().collect();
    while let Some(path) = next.pop() {
        if let Some(text) = files.get(path)
            && reached.insert(path)
        {
            next.extend(included(path, text, &files, directory));
        }
    }
    let needed = [GENERATION.to_owned()]
        .into_iter()
        .chain(tree.fragments.keys().map(|name| fragment_path(name)));
    needed
        .filter(|path| !reached.contains(path.as_str()))
        .collect()
}

/// Returns the files of the tree that a text includes. BIRD resolves a relative path from the including file's folder.
fn included<'a>(
    path: &str,
    text: &str,
    files: &'a BTreeMap<String, &str>,
    directory: &Path,
) -> Vec<&'a str> {
    // Most files are fragments, which include nothing.
    if !text.contains("include") {
        return Vec::new();
    }
    let folder = directory.join(path);
    let folder = folder.parent().unwrap_or(directory);
    let patterns: Vec<String> = Outline::of(text)
        .includes()
        .filter_map(|pattern| {
            let pattern = plain(&folder.join(pattern));
            let below = pattern.strip_prefix(directory).ok()?;
            Some(below.to_string_lossy().into_owned())
        })
        .collect();
    let is_included = |file: &&str| patterns.iter().any(|pattern| matches(pattern, file));
    let files = files.keys().map(String::as_str);
    files.filter(is_included).collect()
}

/// Returns whether a path matches a shell pattern with `*` and `?`. Neither matches a slash.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    match (pattern.chars().next(), path.chars().next()) {
        (None, None) => true,
        (Some('*'), there) => {
            matches(&pattern[1..], path)
                || there.is_some_and(|c| c != '/' && matches(pattern, &path[c.len_utf8()..]))
        }
        (Some('?'), Some(c)) if c != '/' => matches(&pattern[1..], &path[c.len_utf8()..]),
        (Some(want), Some(have)) if want == have => {
            matches(&pattern[want.len_utf8()..], &path[have.len_utf8()..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Fragment;

    const OURS: &str = "include \"generation.conf\";\ninclude \"sessions/*.conf\";\n";

    fn tree(main: Option<&str>, ours: &str, fragment: &str) -> Tree {
        let main = main.map(|text| (MAIN.to_owned(), text.into()));
        Tree {
            base: main
                .into_iter()
                .chain([(OUR_MAIN.to_owned(), ours.into())])
                .collect(),
            fragments: [("a".to_owned(), fragment.into())].into(),
            ..Tree::default()
        }
    }

    fn wishes(text: &str) -> Wishes {
        let fragment = Fragment {
            text: text.into(),
            protocols: vec!["moe_a".to_owned()],
        };
        Wishes {
            base: None,
            fragments: [("a".to_owned(), Some(fragment))].into(),
        }
    }

    fn lacks(tree: &Tree, wishes: &Wishes) -> Option<Lack> {
        lack(tree, wishes, Path::new("/etc/bird"))
    }

    #[test]
    fn empty_fragment_lacks_its_protocols() {
        for text in [
            "",
            "# protocol bgp moe_a { }\n",
            "/* protocol bgp moe_a { } */",
            "protocol bgp moe_b { }",
            "template bgp moe_a { }",
            "define x = \"protocol bgp moe_a { }\";",
        ] {
            let lack = lacks(&tree(None, OURS, text), &wishes(text));
            let missing = vec!["moe_a".to_owned()];
            let expected = Lack::Protocols([("a".to_owned(), missing)].into());
            assert_eq!(lack, Some(expected), "{text}");
        }
        let whole = "protocol bgp moe_a from t { }";
        assert_eq!(lacks(&tree(None, OURS, whole), &wishes(whole)), None);
    }

    #[test]
    fn files_that_no_include_reaches_are_named() {
        let whole = "protocol bgp moe_a { }";
        let of = |main: &str, ours: &str| lacks(&tree(Some(main), ours, whole), &wishes(whole));
        let both = vec![GENERATION.to_owned(), "moenet/sessions/a.conf".to_owned()];
        let main = "include \"moenet/main.conf\";\n";
        assert_eq!(of(main, OURS), None);
        assert_eq!(of("", OURS), Some(Lack::Files(both.clone())));
        assert_eq!(
            of("# include \"moenet/main.conf\";", OURS),
            Some(Lack::Files(both.clone()))
        );
        assert_eq!(of(main, ""), Some(Lack::Files(both)));
        let sessions = vec!["moenet/sessions/a.conf".to_owned()];
        assert_eq!(
            of(main, "include \"generation.conf\";"),
            Some(Lack::Files(sessions))
        );
    }

    #[test]
    fn includes_are_followed_as_bird_does() {
        let whole = "protocol bgp moe_a { }";
        for (main, ours) in [
            ("include \"./moenet/main.conf\";", OURS),
            ("include \"/etc/bird/moenet/main.conf\";", OURS),
            (
                "include \"moenet/*.conf\"; include \"moenet/sessions/?.conf\";",
                "",
            ),
            (
                "include \"moenet/main.conf\";",
                "include \"../moenet/generation.conf\"; include \"/etc/bird/moenet/sessions/*\";",
            ),
        ] {
            let lack = lacks(&tree(Some(main), ours, whole), &wishes(whole));
            assert_eq!(lack, None, "{main} {ours}");
        }
    }
}
