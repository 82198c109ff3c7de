//! Holds errors to types of their own: a text has no class, no source and no fields.

use std::fs;
use std::path::PathBuf;

use crate::modules::{root, sources};
use crate::purity::code;

/// Returns the number of `Result<_, String>` in a source, tests left out.
fn texts(code: &str) -> usize {
    let results = code.match_indices("Result<");
    let inside = results.filter_map(|(at, it)| arguments(&code[at + it.len()..]));
    inside.filter(|error| error == "String").count()
}

/// Returns the last of several arguments that end at the closing bracket.
fn arguments(text: &str) -> Option<String> {
    let (mut depth, mut last) = (0, None);
    let before = text
        .char_indices()
        .map(|(at, c)| (at, c, text[..at].ends_with('-')));
    for (at, c, is_arrow) in before {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' if is_arrow => {}
            '>' if depth == 0 => {
                let last = text[last?..at].trim().trim_end_matches(',');
                return Some(last.to_owned());
            }
            '>' | ')' | ']' => depth -= 1,
            ',' if depth == 0 && !text[at + 1..].trim_start().starts_with('>') => {
                last = Some(at + 1);
            }
            _ => {}
        }
    }
    None
}

#[test]
fn errors_are_types_and_not_texts() {
    let src = root().join("src");
    let returns_texts = |file: &PathBuf| texts(&code(&fs::read_to_string(file).unwrap())) > 0;
    let files = sources(&src).into_iter();
    let files = files.filter(|file| !file.ends_with("tests.rs"));
    let found: Vec<_> = files.filter(returns_texts).collect();
    assert!(found.is_empty(), "give these errors types: {found:#?}");
}

/// Files that compare texts with words, with the number of comparisons and the reason. None of these texts is an error
/// of the agent, and none decides more than the reason says. The list only shrinks.
const WORDS: [(&str, usize, &str); 24] = [
    (
        "src/bird/committer/disk.rs",
        2,
        "endings of files that BIRD reads",
    ),
    (
        "src/bird/committer/names.rs",
        1,
        "ending of a file that BIRD reads",
    ),
    (
        "src/bird/committer/promise.rs",
        1,
        "a word of BIRD's configuration",
    ),
    (
        "src/cli/change/document.rs",
        1,
        "document marks of YAML in an editor's text",
    ),
    (
        "src/cli/change/mod.rs",
        1,
        "the comment that names the schema for editors",
    ),
    (
        "src/cli/history.rs",
        1,
        "the line of git's output that begins a commit",
    ),
    (
        "src/controller/overrides.rs",
        1,
        "name of a field whose value is public",
    ),
    (
        "src/firewall/mod.rs",
        2,
        "advice: nft has one exit code for all errors",
    ),
    (
        "src/history/git.rs",
        1,
        "which line of git's output is shown",
    ),
    (
        "src/history/tree.rs",
        2,
        "names of programs, and the line of a branch in Git's HEAD",
    ),
    (
        "src/http/answers/metrics/process.rs",
        1,
        "the kernel's list of times",
    ),
    (
        "src/kernel/features.rs",
        1,
        "the kernel's list of its modules",
    ),
    (
        "src/kernel/userspace.rs",
        1,
        "names of environment variables",
    ),
    (
        "src/model/name.rs",
        1,
        "prefix of names that an operator owns",
    ),
    (
        "src/model/plain.rs",
        1,
        "name of a field whose value is public",
    ),
    ("src/model/roa.rs", 1, "the format of ROA tables"),
    ("src/observed/bird/diagnostics.rs", 2, "BIRD's output"),
    ("src/observed/bird/protocols/details.rs", 1, "BIRD's output"),
    ("src/observed/bird/roa.rs", 2, "BIRD's output"),
    ("src/observed/bird/session_error.rs", 4, "BIRD's output"),
    ("src/http/page/mod.rs", 1, "the pages that a client accepts"),
    ("src/redact.rs", 3, "names of fields and files with secrets"),
    ("src/sources/host.rs", 1, "the kernel's list of addresses"),
    (
        "src/store",
        5,
        "names of folders, the comment that names the schema, and the line of a branch in Git's HEAD",
    ),
];

/// Returns how often a source compares a text with a word, or takes words apart.
fn comparisons(code: &str) -> usize {
    let compare = [".contains(\"", ".starts_with(\"", ".ends_with(\""];
    let split = [
        ".strip_prefix(\"",
        ".strip_suffix(\"",
        ".split_once(\"",
        ".rsplit_once(\"",
    ];
    let is_prose = |text: &str| {
        let word = text.split('"').next().unwrap_or_default();
        word.contains(' ') && word.contains(char::is_alphabetic)
    };
    let splits = split.iter().flat_map(|call| code.split(call).skip(1));
    let compared = compare.iter().map(|call| code.matches(call).count());
    compared.sum::<usize>() + splits.filter(|text| is_prose(text)).count()
}

#[test]
fn printed_text_decides_nothing() {
    let mut found = std::collections::BTreeMap::new();
    for file in sources(&root().join("src")) {
        let path = file
            .strip_prefix(root())
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let number = comparisons(&lines.collect::<Vec<_>>().join("\n"));
        if number > 0 && !path.ends_with("tests.rs") && !path.contains("/tests/") {
            let known = WORDS.iter().find(|(known, ..)| path.starts_with(known));
            *found
                .entry(known.map_or(path, |known| known.0.to_owned()))
                .or_default() += number;
        }
    }
    let known = WORDS.map(|(path, number, _)| (path.to_owned(), number));
    assert_eq!(
        found,
        known.into(),
        "decide by a type, not by a text; a text of another program is parsed in one place"
    );
}

#[test]
fn words_taken_apart_count_as_a_decision() {
    let code =
        r#"e.strip_prefix("missing field `"), e.contains("budget"), path.strip_suffix(".conf")"#;
    assert_eq!(comparisons(code), 2);
}

#[test]
fn error_reader_sees_nested_results() {
    let code = "fn f() -> Result<BTreeMap<String, String>, String> {}\nfn g() -> Result<String, Error> {}\n\
                x: Option<Result<(), String>>, y: Result<\n    (u8, String),\n    String,\n>";
    assert_eq!(texts(code), 3);
}
