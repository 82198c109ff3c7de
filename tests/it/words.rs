//! Holds every text to plain technical English: phrases that the language guide rules out do not occur.

use std::fs;
use std::path::{Path, PathBuf};

use crate::modules::root;

/// Folders and files that people read.
const READ: [&str; 6] = [
    "src",
    "docs",
    "examples",
    "templates",
    "packaging",
    "README.md",
];

/// Phrases, as words. `*` at the end of a word means any ending. A single word counts inside an identifier too.
const RULED_OUT: [&str; 20] = [
    "is none",
    "nobody",
    "somebody",
    "of ours",
    "is told",
    "stands in",
    "stands on",
    "stands for",
    "stands there",
    "in force",
    "in_force",
    "anew",
    "absorb*",
    "mend*",
    "for ever",
    "let pass",
    "lets pass",
    "let passes",
    "whoever",
    "that which",
];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else {
        found.push(path.to_owned());
    }
}

/// A word in lower case, with the number of its line.
struct Word {
    line: usize,
    text: String,
    /// Only spaces, or the beginning of a comment, lie between this word and the one before.
    follows: bool,
}

/// The words of a text. An identifier is one word.
fn words(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut gap = String::new();
        for part in line.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_') {
            let word = part.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '_');
            if !word.is_empty() {
                found.push(Word {
                    line: at + 1,
                    text: word.to_lowercase(),
                    follows: matches!(
                        gap.trim(),
                        "" | "//" | "///" | "//!" | "#" | "-" | "\"" | "|"
                    ),
                });
                gap.clear();
            }
            gap.push_str(&part[word.len()..]);
        }
    }
    found
}

/// Returns the phrases that a text has, each with the number of its line.
fn ruled_out(text: &str) -> Vec<(usize, &'static str)> {
    let words = words(text);
    let is = |word: &str, phrase: &str| match phrase.strip_suffix('*') {
        Some(start) => word.starts_with(start),
        None => word == phrase,
    };
    let begins = |at: usize, phrase: &str| {
        // A phrase inside an identifier, in either case.
        if phrase.contains('_') {
            let joined = |text: &str| text.replace('_', "");
            return joined(&words[at].text).contains(&joined(phrase));
        }
        if !phrase.contains(' ') {
            return words[at].text.split('_').any(|word| is(word, phrase));
        }
        let mut parts = phrase.split(' ').zip(&words[at..]).enumerate();
        let long = words.len() - at >= phrase.split(' ').count();
        long && parts.all(|(n, (part, word))| is(&word.text, part) && (n == 0 || word.follows))
    };
    let found = |at: usize| {
        let phrases = RULED_OUT.into_iter();
        let phrases = phrases.filter(|phrase| begins(at, phrase));
        phrases
            .map(|phrase| (words[at].line, phrase))
            .collect::<Vec<_>>()
    };
    (0..words.len()).flat_map(found).collect()
}

#[test]
fn no_text_has_a_ruled_out_phrase() {
    let mut all = Vec::new();
    READ.iter()
        .for_each(|path| files(&root().join(path), &mut all));
    let mut found = Vec::new();
    for file in all {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        let path = file.strip_prefix(root()).unwrap().display().to_string();
        let named = |(line, phrase)| format!("{path}:{line}: {phrase}");
        found.extend(ruled_out(&text).into_iter().map(named));
    }
    assert!(found.is_empty(), "say it plainly:\n{}", found.join("\n"));
}

#[test]
fn phrases_are_found_across_lines_and_in_names() {
    let text = "// What is in\n// force is mended.\nfn nobody_waits() {}\nspec_in_force(); x.is_none(); is `None`, of(ours), for every one\n";
    let expected = [
        (1, "in force"),
        (2, "mend*"),
        (3, "nobody"),
        (4, "in_force"),
    ];
    assert_eq!(ruled_out(text), expected);
}
