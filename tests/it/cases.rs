//! Every folder of `tests/cases` is the input of a test, or its README names tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("cases.rs") {
            found.push(path);
        }
    }
}

/// The names of tests in a README: the last part of what stands between backticks.
fn named(readme: &str) -> impl Iterator<Item = &str> {
    let quoted = readme.split('`').skip(1).step_by(2);
    let is_name = |name: &&str| {
        name.contains('_') && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    quoted
        .filter_map(|text| text.rsplit("::").next())
        .filter(is_name)
}

#[test]
fn every_case_is_used_by_a_test() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files = Vec::new();
    sources(&tests, &mut files);
    let code: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let mut count = 0;
    for entry in fs::read_dir(tests.join("cases")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        let names: Vec<_> = named(&readme).collect();
        let is_named = names
            .iter()
            .any(|name| code.contains(&format!("fn {name}(")));
        assert!(
            code.contains(name) || is_named,
            "no test uses the case {name}"
        );
        count += 1;
    }
    assert!(count >= 11, "cases are missing: {count}");
}
