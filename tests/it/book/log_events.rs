//! The page of log events, from the macros in the sources.

use std::collections::BTreeSet;
use std::fs;

use crate::modules::{root, sources};

const HEAD: &str = "# Log event reference

Generated from the sources: every line of level INFO, WARN and ERROR with a constant text, and the fields that it has. A
session's line also has `asn`. Lines about conditions: [condition reference](conditions.md).

| level | event | fields |
|---|---|---|
";

/// Returns the page.
pub(super) fn page() -> String {
    let mut rows = BTreeSet::new();
    for file in sources(&root().join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for level in ["info", "warn", "error"] {
            let begin = format!("{level}!(");
            let found = code.split(&begin).skip(1);
            rows.extend(found.filter_map(|rest| row(level, &arguments(rest)?)));
        }
    }
    format!(
        "{HEAD}{}",
        rows.into_iter().map(|(_, row)| row).collect::<String>()
    )
}

/// Returns the arguments of a macro up to its end; `None` without such a macro.
fn arguments(text: &str) -> Option<Vec<String>> {
    let (mut arguments, mut depth, mut is_text, mut is_escaped) =
        (vec![String::new()], 0, false, false);
    for c in text.chars() {
        let ends = is_text && c == '"' && !is_escaped;
        is_escaped = is_text && c == '\\' && !is_escaped;
        match c {
            '"' if !is_text => is_text = true,
            _ if ends => is_text = false,
            '(' | '[' | '{' if !is_text => depth += 1,
            ')' if !is_text && depth == 0 => return Some(arguments),
            ')' | ']' | '}' if !is_text => depth -= 1,
            ',' if !is_text && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut()?.push(c);
    }
    None
}

/// Returns the sort key and the row of an event with a constant text.
fn row(level: &str, arguments: &[String]) -> Option<(String, String)> {
    let mut words = arguments
        .iter()
        .map(|word| word.trim())
        .filter(|word| !word.is_empty());
    let text = words.next_back()?.strip_prefix('"')?.strip_suffix('"')?;
    // Texts that are values come from places that the page of conditions covers.
    if text.starts_with('{') {
        return None;
    }
    // A line break in a source text becomes a blank in the log.
    let text: Vec<_> = text.split("\\\n").map(str::trim_start).collect();
    let text = text.concat().replace("\\\"", "\"").replace('|', "\\|");
    let fields = words.filter_map(|word| {
        let name = word
            .split('=')
            .next()?
            .trim()
            .trim_start_matches(['%', '?']);
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        name.chars()
            .all(is_name)
            .then(|| format!("`{}`", name.trim_start_matches("r#")))
    });
    let fields: Vec<_> = fields.collect();
    let fields = if fields.is_empty() {
        "–".to_owned()
    } else {
        fields.join(", ")
    };
    let row = format!("| {} | `{text}` | {fields} |\n", level.to_uppercase());
    Some((format!("{text} {level}"), row))
}
