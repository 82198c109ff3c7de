//! Holds the modules to the dependencies that `docs/architecture.md#allowed-dependencies` allows, by reading the
//! paths that start with `crate::`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One module uses another, with a file that does.
type Edges = BTreeMap<(String, String), String>;

pub(crate) fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The two lists of the page: the layers, and the exceptions as `user -> used`.
fn rules() -> (Vec<Vec<String>>, BTreeSet<(String, String)>) {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = page.split_once("## Allowed dependencies").unwrap();
    let mut blocks = section.split("```text\n").skip(1);
    let mut block = || blocks.next().unwrap().split("```").next().unwrap().lines();
    let layers = block()
        .map(|line| line.split(", ").map(str::to_owned).collect())
        .collect();
    let exceptions = block()
        .map(|line| line.split_once(" -> ").unwrap())
        .map(|(user, used)| (user.to_owned(), used.to_owned()))
        .collect();
    (layers, exceptions)
}

pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

/// A source up to its tests, without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let bare = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    bare.collect::<Vec<_>>().join("\n")
}

/// The modules that follow `crate::`, also those of a group in braces.
fn used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        let text = text.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut found = BTreeSet::new();
    for (_, rest) in code
        .match_indices("crate::")
        .map(|(at, it)| (at, &code[at + it.len()..]))
    {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut starts = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => starts = true,
                c if starts && !c.is_whitespace() => {
                    found.insert(word(&group[at..]));
                    starts = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn edges() -> Edges {
    let src = root().join("src");
    let mut edges = Edges::new();
    for file in sources(&src) {
        let path = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        if matches!(module, "main" | "lib") {
            continue;
        }
        for other in used(&code(&fs::read_to_string(&file).unwrap())) {
            if other != module {
                edges.insert((module.to_owned(), other), path.clone());
            }
        }
    }
    edges
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    let (layers, exceptions) = rules();
    let layer = |module: &str| {
        layers
            .iter()
            .position(|names| names.iter().any(|it| it == module))
    };
    let edges = edges();
    for ((user, used), file) in &edges {
        let allowed = match (layer(user), layer(used)) {
            (Some(user), Some(used)) => used < user,
            _ => panic!("docs/architecture.md has no layer for {user} or {used} ({file})"),
        };
        let excepted = exceptions.contains(&(user.clone(), used.clone()));
        assert!(
            allowed || excepted,
            "{file}: {user} uses {used}, which docs/architecture.md does not allow"
        );
        assert!(
            !(allowed && excepted),
            "{user} -> {used} needs no exception in docs/architecture.md"
        );
    }
    for exception in &exceptions {
        assert!(
            edges.contains_key(exception),
            "remove the exception {exception:?}: no source needs it"
        );
    }
}

#[test]
fn groups_of_imports_name_every_module() {
    let text =
        "use crate::{\n    model::{Asn, Uid},\n    plan,\n};\nlet x = crate::store::Store::open();";
    let expected = ["model", "plan", "store"].map(str::to_owned);
    assert_eq!(used(text), expected.into());
}
