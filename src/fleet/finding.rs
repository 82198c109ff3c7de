use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::check::Problem;
use crate::document::{DocumentError, locate, parse_list};

/// An error in a fleet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, below the fleet directory.
    pub file: PathBuf,
    /// Counted from 1; `None` for a finding about the whole file.
    pub line: Option<u64>,
    /// Counted from 1.
    pub column: Option<u64>,
    /// The field, such as `sessions[wg_4242421080].mtu`; empty for the file as a whole.
    pub field: String,
    /// The field and the broken rule.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl Finding {
    /// Creates the finding for a problem of a file with this text.
    pub(super) fn new(file: &Path, text: &str, problem: &Problem) -> Self {
        let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
        // A missing field has no place; the innermost existing object around it is used.
        let place = (1..=path.len())
            .rev()
            .find_map(|end| locate(text, &path[..end]));
        let field = dotted(text, &path);
        let message = match field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        };
        Self {
            file: file.to_owned(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            field,
            message,
        }
    }

    pub(super) fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            column: None,
            field: String::new(),
            message: message.into(),
        }
    }

    pub(super) fn syntax(file: &Path, error: DocumentError) -> Self {
        Self {
            line: error.location.map(|(line, _)| line),
            column: error.location.map(|(_, column)| column),
            field: error.field.clone(),
            ..Self::whole(file, error.message)
        }
    }
}

/// Formats a path as `sessions[wg_4242421080].mtu`. An item of a list has its own name, because its index changes with the
/// items before it; one without a name has its index.
fn dotted(file: &str, path: &[&str]) -> String {
    let is_index = |segment: &&str| segment.bytes().all(|b| b.is_ascii_digit());
    let root: Value = match path.iter().any(is_index) {
        true => parse_list(file).unwrap_or_default(),
        false => Value::Null,
    };
    let (mut text, mut at) = (String::new(), Some(&root));
    for segment in path {
        at = at.and_then(|it| match it {
            Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
            it => it.get(segment),
        });
        if is_index(segment) {
            let name = at.and_then(name);
            text.push_str(&format!("[{}]", name.as_deref().unwrap_or(segment)));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(segment);
        }
    }
    text
}

/// Returns the name of an item of a list, if it can be a part of a path. An item that is a text may be a secret.
fn name(item: &Value) -> Option<String> {
    let is_plain = |text: &&str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b']')
    };
    let named = ["interface", "name", "uuid", "host"].into_iter();
    let text = named
        .filter_map(|key| item.get(key)?.as_str())
        .find(is_plain);
    let number = || Some(format!("node {}", item.get("nodeId")?.as_u64()?));
    text.map(str::to_owned).or_else(number)
}

/// Returns one line for each finding.
pub(super) fn lines(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn item_of_a_list_is_named_by_itself() {
        let file = "sessions:\n- {uuid: a, name: A a}\n- {uuid: b, name: B b, interface: wg_b}\n- {uuid: 'x]'}\n- 5\n\
                    peers: [{nodeId: 2}]\nwaves: [[jp1]]\n";
        for (path, wanted) in [
            (&["sessions", "0", "asn"][..], "sessions[a].asn"),
            (&["sessions", "1"], "sessions[wg_b]"),
            (&["sessions", "2"], "sessions[2]"),
            (&["sessions", "3"], "sessions[3]"),
            (&["sessions", "9", "asn"], "sessions[9].asn"),
            (&["peers", "0", "nodeId"], "peers[node 2].nodeId"),
            (&["waves", "0", "0"], "waves[0][0]"),
            (&["node", "id"], "node.id"),
            (&[], ""),
        ] {
            assert_eq!(dotted(file, path), wanted);
        }
        assert_eq!(dotted("- [", &["sessions", "0"]), "sessions[0]");
    }
}
