//! Holds the files inside a module to uses without cycles, by reading their paths. A file and the files of its
//! folder may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::modules::{root, sources};
use crate::purity::{code, flattened};

/// Cycles that are left. Only remove lines.
const CYCLES: [&str; 0] = [];

/// The path of a module: `["plan", "link"]`.
type Module = Vec<String>;

/// Every file, with the paths that it imports (by the name that an import gives) and those that it names in place.
struct Files(BTreeMap<Module, Paths>);

struct Paths {
    imports: BTreeMap<String, Module>,
    named: Vec<Module>,
}

fn words(path: &str) -> Module {
    path.split("::")
        .map(|word| word.trim().to_owned())
        .collect()
}

/// Returns the absolute path, without `crate`. A path that starts with another word is a child's or a crate's.
fn absolute(module: &Module, path: &Module) -> Module {
    let supers = path.iter().take_while(|word| *word == "super").count();
    match path.first().map(String::as_str) {
        Some("crate") => path[1..].to_vec(),
        Some("self") => [module, &path[1..]].concat(),
        Some("super") => [
            &module[..module.len().saturating_sub(supers)],
            &path[supers..],
        ]
        .concat(),
        _ => [module, path.as_slice()].concat(),
    }
}

impl Paths {
    fn of(module: &Module, text: &str) -> Self {
        let (mut imports, mut named) = (BTreeMap::new(), Vec::new());
        let code = code(text);
        for statement in code.split("use ").skip(1) {
            let tree = statement.split(';').next().unwrap_or_default();
            for path in flattened("", &tree.split_whitespace().collect::<Vec<_>>().join(" ")) {
                let (path, alias) = path.split_once(" as ").unwrap_or((&path, ""));
                let path = absolute(module, &words(path.trim_end_matches("::self")));
                let name = if alias.is_empty() { path.last() } else { None };
                let name = name.cloned().unwrap_or_else(|| alias.to_owned());
                imports.insert(name, path);
            }
        }
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for path in code.split(|c| !is_path(c)) {
            let is_whole = !path.ends_with(':');
            if is_whole && (path.starts_with("crate::") || path.starts_with("super::")) {
                named.push(absolute(module, &words(path)));
            }
        }
        Self { imports, named }
    }
}

impl Files {
    fn read() -> Self {
        let src = root().join("src");
        let module = |path: &str| {
            let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
            path.split('/').map(str::to_owned).collect::<Module>()
        };
        let files = sources(&src).into_iter().map(|file| {
            let module = module(file.strip_prefix(&src).unwrap().to_str().unwrap());
            let paths = Paths::of(&module, &fs::read_to_string(&file).unwrap());
            (module, paths)
        });
        Self(files.collect())
    }

    /// Returns the file that defines the item at this path. Follows imports, because an item has the path of each
    /// module that imports it.
    fn of_item(&self, path: &[String], depth: usize) -> Option<Module> {
        let lengths = (1..=path.len()).rev();
        let module = lengths
            .map(|length| &path[..length])
            .find(|start| self.0.contains_key(*start))?;
        let rest = &path[module.len()..];
        let import = rest
            .first()
            .and_then(|name| self.0[module].imports.get(name));
        match import {
            Some(import) if depth > 0 && !import.starts_with(path) => {
                self.of_item(&[import, &rest[1..]].concat(), depth - 1)
            }
            _ => Some(module.to_vec()),
        }
    }

    /// Returns the files of the same module that a file uses, except those above and below it.
    fn used(&self, user: &Module) -> BTreeSet<Module> {
        let paths = &self.0[user];
        let all = paths.imports.values().chain(&paths.named);
        all.filter_map(|path| self.of_item(path, 8))
            .filter(|used| used[0] == user[0] && !used.starts_with(user) && !user.starts_with(used))
            .collect()
    }

    /// Returns the groups of files each of which uses all others of the group, some through others.
    fn cycles(&self) -> BTreeSet<BTreeSet<String>> {
        let used: BTreeMap<_, _> = self.0.keys().map(|file| (file, self.used(file))).collect();
        let reached = |from: &Module| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(file) = next.pop() {
                let new = used[&file].iter().filter(|file| !seen.contains(*file));
                let new: Vec<_> = new.cloned().collect();
                seen.extend(new.iter().cloned());
                next.extend(new);
            }
            seen
        };
        let reached: BTreeMap<_, _> = self.0.keys().map(|file| (file, reached(file))).collect();
        let group = |file: &Module| -> BTreeSet<String> {
            let mutual = reached[file].iter();
            let mutual = mutual.filter(|other| reached[*other].contains(file));
            mutual.map(|file| file.join("/")).collect()
        };
        self.0
            .keys()
            .map(group)
            .filter(|group| !group.is_empty())
            .collect()
    }
}

#[test]
fn files_of_a_module_use_each_other_without_cycles() {
    let exceptions: Vec<BTreeSet<String>> = CYCLES
        .iter()
        .map(|line| line.split(", ").map(str::to_owned).collect())
        .collect();
    let cycles = Files::read().cycles();
    let known = |cycle: &&BTreeSet<String>| exceptions.iter().any(|known| cycle.is_subset(known));
    let new: Vec<_> = cycles.iter().filter(|cycle| !known(cycle)).collect();
    assert!(
        new.is_empty(),
        "these files use each other, in cycles: {new:#?}"
    );
    for known in &exceptions {
        assert!(
            cycles.iter().any(|cycle| cycle.is_subset(known)),
            "remove the exception {known:?}: the cycle is gone"
        );
    }
}

#[test]
fn cycle_through_a_reexport_is_found() {
    let file = |module: &str, text: &str| {
        let module = words(module);
        let paths = Paths::of(&module, text);
        (module, paths)
    };
    let files = Files(
        [
            file("a", "mod b;\npub use b::B;\npub use c::C;\n"),
            file("a::b", "use super::{C, D as Other};\n"),
            file("a::c", "fn f(b: &crate::a::B) {}\n"),
            file("a::d", "use super::B;\n"),
        ]
        .into(),
    );
    let expected = ["a/b", "a/c"].map(str::to_owned);
    assert_eq!(files.cycles(), [expected.into()].into());
}
