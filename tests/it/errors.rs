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

#[test]
fn error_reader_sees_nested_results() {
    let code = "fn f() -> Result<BTreeMap<String, String>, String> {}\nfn g() -> Result<String, Error> {}\n\
                x: Option<Result<(), String>>, y: Result<\n    (u8, String),\n    String,\n>";
    assert_eq!(texts(code), 3);
}
