//! Hard limits of size, for every source and test.

use std::fs;

use crate::modules::{root, sources};

/// Largest number of lines of a file.
const FILE: usize = 630;
/// Largest number of lines of a function in `src`. A test may tell a longer story.
const FUNCTION: usize = 60;
/// Largest number of words of a test's name.
const NAME: usize = 10;

/// Files that are still too long. Only remove lines.
const LONG_FILES: [&str; 0] = [];

/// Longer functions, each with the reason.
const LONG_FUNCTIONS: [&str; 1] = [
    // A table with a row for each type of condition; the compiler checks that none is missing.
    "src/status/edges.rs condition_texts",
];

/// A function, as its name, its number of lines, and whether it is a test.
type Function = (String, usize, bool);

/// Returns the functions with a body. rustfmt puts the closing brace at the indentation of the first line.
fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |at: usize| Some((at, name(lines[at])?));
    (0..lines.len())
        .filter_map(begins)
        .filter_map(|(at, name)| Some((name, length(&lines[at..])?, is_test(&lines[..at]))))
        .collect()
}

/// Returns the name of the function that begins in this line.
fn name(line: &str) -> Option<String> {
    let code = line.trim_start();
    let starts = ["fn ", "pub", "async ", "const ", "unsafe ", "extern "];
    if !starts.iter().any(|start| code.starts_with(start)) {
        return None;
    }
    let (_, rest) = format!(" {code}").split_once(" fn ").map(owned)?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    Some(rest[..end].to_owned())
}

fn owned((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

/// Returns the number of lines of the function that begins in the first line, if it has a body of several lines.
fn length(lines: &[&str]) -> Option<usize> {
    let ends = |line: &&str| line.ends_with(['{', ';', '}']);
    let head = lines.iter().position(ends)?;
    if !lines[head].ends_with('{') {
        return None;
    }
    let indent = lines[0].len() - lines[0].trim_start().len();
    let end = format!("{}}}", &lines[0][..indent]);
    Some(lines.iter().skip(head).position(|line| *line == end)? + head + 1)
}

/// Returns whether the attributes at the end of these lines make the next item a test.
fn is_test(before: &[&str]) -> bool {
    let attributes = before.iter().rev().map(|line| line.trim_start());
    let mut attributes = attributes.take_while(|line| !line.is_empty() && *line != "}");
    attributes.any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
}

/// Every source and test, with its path.
fn files() -> Vec<(String, String)> {
    let all = ["src", "tests"].map(|folder| sources(&root().join(folder)));
    let path = |file: &std::path::Path| {
        let path = file.strip_prefix(root()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    all.iter()
        .flatten()
        .map(|file| (path(file), fs::read_to_string(file).unwrap()))
        .collect()
}

/// Fails with everything that is over a limit, and with exceptions that are not needed any more.
fn hold(over: &[(String, String)], exceptions: &[&str]) {
    let new: Vec<_> = over
        .iter()
        .filter(|(name, _)| !exceptions.contains(&name.as_str()))
        .map(|(name, what)| format!("{name}: {what}"))
        .collect();
    assert!(new.is_empty(), "split these:\n{}", new.join("\n"));
    let needed = |exception: &&&str| over.iter().any(|(name, _)| name == **exception);
    let old: Vec<_> = exceptions.iter().filter(|it| !needed(it)).collect();
    assert!(old.is_empty(), "remove these exceptions: {old:?}");
}

#[test]
fn no_file_is_too_long() {
    let long = files().into_iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > FILE).then(|| (path, format!("{lines} lines")))
    });
    hold(&long.collect::<Vec<_>>(), &LONG_FILES);
}

#[test]
fn no_function_is_too_long() {
    let sources = files().into_iter();
    let sources = sources.filter(|(path, _)| path.starts_with("src/"));
    let long = sources.flat_map(|(path, text)| {
        let long = functions(&text).into_iter();
        let long = long.filter(|(_, lines, test)| *lines > FUNCTION && !test);
        let named = move |(name, lines, _)| (format!("{path} {name}"), format!("{lines} lines"));
        long.map(named).collect::<Vec<_>>()
    });
    hold(&long.collect::<Vec<_>>(), &LONG_FUNCTIONS);
}

#[test]
fn test_names_are_short() {
    let long = files().into_iter().flat_map(|(path, text)| {
        let tests = functions(&text).into_iter().filter(|(_, _, test)| *test);
        let words = |name: &str| name.split('_').filter(|word| !word.is_empty()).count();
        let long = tests.filter(move |(name, ..)| words(name) > NAME);
        let named = move |(name, ..): Function| (format!("{path} {name}"), "its name".to_owned());
        long.map(named).collect::<Vec<_>>()
    });
    hold(&long.collect::<Vec<_>>(), &[]);
}

#[test]
fn every_type_is_described() {
    let types = ["pub struct ", "pub enum ", "pub trait "];
    let mut bare = Vec::new();
    for (path, text) in files().iter().filter(|(path, _)| path.starts_with("src/")) {
        let mut described = false;
        for line in text.lines() {
            if types.iter().any(|start| line.starts_with(start)) && !described {
                bare.push(format!("{path}: {line}"));
            }
            // Attributes, of one line or several, may come between the two.
            let attribute = line.starts_with(['#', ')', ' ']);
            described = line.starts_with("///") || described && attribute;
        }
    }
    assert!(bare.is_empty(), "describe these:\n{}", bare.join("\n"));
}

#[test]
fn function_reader_counts_lines_and_knows_tests() {
    let text = "#[test]\nfn a_b() {\n    x();\n}\n\nimpl X {\n    pub(super) async fn c(\n        x: u8,\n    ) {\n        if x {\n        }\n    }\n}\nfn d();\n";
    let expected = [("a_b", 3, true), ("c", 6, false)];
    let expected = expected.map(|(name, lines, test)| (name.to_owned(), lines, test));
    assert_eq!(functions(text), expected);
}
