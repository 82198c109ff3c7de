//! Links and citations: what a page or a comment points to is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose texts cite pages as `docs/<page>.md#<section>`.
const CITING: [&str; 7] = [
    "src",
    "tests/it",
    "tests/live",
    "templates",
    "schemas",
    "examples",
    "packaging",
];

/// Pages below the root of the repository; all below these folders too.
const PAGES: [&str; 4] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "state/README.md",
];
const FOLDERS: [&str; 3] = ["docs", "templates", "tests/lab"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Every file below a folder whose name ends like this.
fn files(folder: &Path, ends: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path, ends));
        } else if ends.iter().any(|end| name.ends_with(end)) {
            found.push(path);
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        fenced ^= line.starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            found.insert(kept.collect::<String>().replace(' ', "-"));
        }
    }
    found
}

/// Why a target does not exist, if so.
fn broken(file: &Path, anchor: &str) -> Option<String> {
    if !file.exists() {
        return Some(format!("no file {}", file.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let page = fs::read_to_string(file).unwrap_or_default();
    (!anchors(&page).contains(anchor))
        .then(|| format!("no section #{anchor} in {}", file.display()))
}

/// The targets of a page's links that are no URLs.
fn links(page: &str) -> Vec<String> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets
        .filter(|target| !target.contains("://") && !target.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The citations `docs/<page>.md#<section>` of a text.
fn citations(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("docs/") {
        // A word that only ends in "docs", or an address.
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || "/.:_-".contains(c)) {
            continue;
        }
        let page = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
        let section = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let rest = &text[at..];
        let end = rest.find(|c| !page(c)).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches('.');
        let anchor = rest[path.len()..].strip_prefix('#').unwrap_or_default();
        let end = anchor.find(|c| !section(c)).unwrap_or(anchor.len());
        found.push((path.to_owned(), anchor[..end].to_owned()));
    }
    found
}

#[test]
fn every_relative_link_resolves() {
    let mut pages: Vec<PathBuf> = PAGES.iter().map(|page| root().join(page)).collect();
    for folder in FOLDERS {
        pages.extend(files(&root().join(folder), &[".md"]));
    }
    let mut errors = Vec::new();
    let mut checked = 0;
    for path in pages {
        let page = fs::read_to_string(&path).unwrap();
        for link in links(&page) {
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            errors.extend(
                broken(&target, anchor).map(|why| format!("{}: {link}: {why}", path.display())),
            );
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn cited_sections_exist() {
    let mut errors = Vec::new();
    let mut checked = 0;
    for folder in CITING {
        let ends = [".rs", ".md", ".conf", ".json", ".yaml", ".sh", ".service"];
        for path in files(&root().join(folder), &ends) {
            if path.ends_with("tests/it/docs.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for (page, anchor) in citations(&text) {
                checked += 1;
                errors.extend(
                    broken(&root().join(&page), &anchor)
                        .map(|why| format!("{}: {why}", path.display())),
                );
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    assert!(checked > 20, "only {checked} citations were found");
}

#[test]
fn comments_cite_only_the_repository() {
    // What earlier comments cited; those texts are not part of the repository.
    let outside = [
        "semantics, section",
        "semantics.md",
        "agent-api-reference",
        "pitfalls.md",
    ];
    let mut found = Vec::new();
    for folder in CITING {
        for path in files(&root().join(folder), &[".rs", ".md", ".conf", ".yaml"]) {
            let text = fs::read_to_string(&path).unwrap();
            let cites = |word: &&&str| text.contains(**word) && !path.ends_with("docs.rs");
            found.extend(
                outside
                    .iter()
                    .filter(cites)
                    .map(|word| format!("{}: {word}", path.display())),
            );
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The waits of a constant in microseconds: `from_secs(15 * 60)` is 900 000 000.
fn waits(value: &str) -> Vec<u64> {
    let units = [
        ("from_micros(", 1),
        ("from_millis(", 1000),
        ("from_secs(", 1_000_000),
        ("from_mins(", 60_000_000),
        ("from_hours(", 3_600_000_000),
    ];
    let parts = value.split("Duration::").skip(1);
    let wait = |part: &str| {
        let (rest, unit) = units
            .iter()
            .find_map(|(name, unit)| Some((part.strip_prefix(name)?, *unit)))?;
        let factors = rest.split_once(')')?.0.split('*');
        let product: u64 = factors
            .map(|factor| factor.trim().replace('_', "").parse::<u64>().unwrap())
            .product();
        Some(product * unit)
    };
    parts.filter_map(wait).collect()
}

/// The waits of a cell in microseconds: `1 s, 30 s`.
fn shown(cell: &str) -> Vec<u64> {
    let wait = |text: &str| {
        let (number, unit) = text.trim().split_once(' ').unwrap();
        let number: u64 = number.parse().unwrap();
        match unit {
            "µs" => number,
            "ms" => number * 1000,
            "s" => number * 1_000_000,
            other => panic!("{other} is no unit of the table"),
        }
    };
    cell.split(',').map(wait).collect()
}

/// The constants of a source that are waits: names and values, without those of its tests.
fn constants(source: &str) -> BTreeMap<String, Vec<u64>> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let parts = source.split("const ").skip(1);
    let constant = |part: &str| {
        let (name, rest) = part.split_once(": ")?;
        let (kind, rest) = rest.split_once('=')?;
        let kind = kind.trim().trim_start_matches("std::time::");
        let is_wait = ["Duration", "SignedDuration", "(Duration, Duration)"].contains(&kind);
        is_wait.then(|| (name.to_owned(), waits(rest.split(';').next().unwrap())))
    };
    parts.filter_map(constant).collect()
}

/// The lines of a source with a wait in numbers, without those of its tests.
fn numbers(source: &str) -> Vec<&str> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let is_wait = |line: &&str| {
        let mut calls = line.split("Duration::from_").skip(1);
        calls.any(|call| {
            call.split_once('(')
                .is_some_and(|(_, value)| value.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    source.lines().filter(is_wait).collect()
}

#[test]
fn table_of_intervals_has_every_constant_with_its_value() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = page.split_once("## Intervals and deadlines").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|row| row.starts_with("| `"));
    let rows = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), shown(cells[2]))
    });
    let rows: BTreeMap<String, Vec<u64>> = rows.collect();
    let source = fs::read_to_string(root().join("src/intervals.rs")).unwrap();
    assert!(rows.len() > 100, "only {} rows were found", rows.len());
    assert_eq!(rows, constants(&source), "correct docs/architecture.md");
}

#[test]
fn intervals_are_constants_of_one_file() {
    let sources = files(&root().join("src"), &[".rs"]);
    let others = sources
        .iter()
        .filter(|path| !path.ends_with("intervals.rs") && !path.ends_with("testing.rs"))
        .filter(|path| {
            let inside = path.strip_prefix(root()).unwrap();
            !inside
                .iter()
                .any(|part| part.to_string_lossy().starts_with("tests"))
        });
    for path in others {
        let source = fs::read_to_string(path).unwrap();
        let found = constants(&source);
        assert!(
            found.is_empty(),
            "{}: move {found:?} to src/intervals.rs",
            path.display()
        );
        let found = numbers(&source);
        assert!(
            found.is_empty(),
            "{}: move {found:?} to src/intervals.rs",
            path.display()
        );
    }
}

#[test]
fn tests_named_in_the_table_exist() {
    let page = fs::read_to_string(root().join("docs/contract/known-faults.md")).unwrap();
    let sources = ["src", "tests"].map(|folder| files(&root().join(folder), &[".rs"]));
    let sources: Vec<String> = sources
        .iter()
        .flatten()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let names = page.lines().filter_map(|row| {
        let name = row.strip_suffix("` |")?.rsplit_once("| `")?.1;
        Some(name.to_owned())
    });
    let names: Vec<String> = names.collect();
    assert!(names.len() > 20, "only {} tests were found", names.len());
    let is_missing = |name: &&String| {
        let head = format!("fn {name}(");
        // A macro makes one test for each version of BIRD, and names it.
        let made = format!("{name},");
        !sources
            .iter()
            .any(|text| text.contains(&head) || text.contains(&made))
    };
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    assert!(
        missing.is_empty(),
        "correct docs/contract/known-faults.md, no test has the name: {missing:?}"
    );
}

#[test]
fn broken_targets_are_found() {
    let page =
        "# A title\n\n## Rule 1\n\n```\n## not a heading\n```\n[x](y.md#z) [u](https://a.b/c)";
    assert_eq!(
        anchors(page),
        BTreeSet::from(["a-title".to_owned(), "rule-1".to_owned()])
    );
    assert_eq!(links(page), ["y.md#z"]);
    let text = "(docs/contract/safety.md#rule-1). See docs/x.md. https://site/docs/y.md";
    let expected = [
        ("docs/contract/safety.md".to_owned(), "rule-1".to_owned()),
        ("docs/x.md".to_owned(), String::new()),
    ];
    assert_eq!(citations(text), expected);
    let safety = root().join("docs/contract/safety.md");
    assert!(broken(&safety, "rule-1").is_none());
    assert!(broken(&safety, "rule-99").is_some());
    assert!(broken(&root().join("docs/none.md"), "").is_some());
}
