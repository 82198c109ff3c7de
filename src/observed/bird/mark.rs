//! The mark: the first line of every file that the agent writes outside its state directory. Pure.
//!
//! ```text
//! # Written by moenet-agent:2:4f1c8a09d2e7b365; edits are replaced, a copy is kept. sha256:4f1c…
//! ```
//!
//! The identity is that of the agent's state directory, as in the alias of a link. Earlier builds wrote none.
//! The hash covers all lines below. An edited file keeps the line but no longer matches the hash, so edits are
//! detected without a separate record.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::model::Identity;
use crate::observed::mark::{AGENT, identity_in, mark_of};

/// Prefix of every mark, of every build.
const BEGIN: &str = "# Written by moenet-agent";
/// The word before the hash.
const HASH: &str = "sha256:";

/// Parsed first line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark<'a> {
    /// The file carries no mark: it is not the agent's.
    Missing,
    /// The mark of a build that wrote no hash. Whether the file was edited is unknown.
    Old,
    Complete {
        /// The first line, with its line end.
        head: &'a str,
        /// All lines below.
        text: &'a str,
        /// Whether the text is what the agent wrote.
        intact: bool,
        /// The state directory of the agent that wrote it; `None` in a mark of an earlier build.
        identity: Option<Identity>,
    },
}

/// Returns a file with this text and the mark of this state directory.
pub fn marked(text: &str, identity: Option<&Identity>) -> String {
    let agent = identity.map_or_else(|| AGENT.to_owned(), mark_of);
    format!(
        "# Written by {agent}; edits are replaced, a copy is kept. {HASH}{}\n{text}",
        hash(text)
    )
}

/// Returns a file that is only parsed, with this text: its lines have the numbers of the marked file.
pub fn staged(text: &str) -> String {
    format!("{BEGIN}\n{text}")
}

pub fn read(file: &str) -> Mark<'_> {
    let (line, text) = file.split_at(first_line(file));
    read_parts(line, text, is_intact(line, text))
}

/// Returns the length of a file's first line, with its line end.
pub fn first_line(file: &str) -> usize {
    file.find('\n').map_or(file.len(), |at| at + 1)
}

/// Returns whether the first line has the hash of all lines below.
pub fn is_intact(line: &str, text: &str) -> bool {
    hash_in(line).is_some_and(|said| said == hash(text))
}

fn hash_in(line: &str) -> Option<&str> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(HASH))
}

/// As [`read`], from the first line, all lines below, and whether they are intact.
pub fn read_parts<'a>(line: &'a str, text: &'a str, intact: bool) -> Mark<'a> {
    if !line.starts_with(BEGIN) {
        return Mark::Missing;
    }
    match hash_in(line) {
        None => Mark::Old,
        Some(_) => Mark::Complete {
            head: line,
            text,
            intact,
            identity: identity_in(line),
        },
    }
}

/// Returns the first 32 hexadecimal digits of a text's SHA-256.
pub fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Completes an error text that begins with a path ("/etc/bird/bird.conf …").
pub(crate) fn whose(identity: Option<&Identity>) -> String {
    identity.map_or_else(
        || "has the mark of an earlier build, and no applied record here explains it".to_owned(),
        |identity| format!("belongs to another moenet-agent (identity {identity})"),
    )
}

/// Returns what to do about such a file.
pub(crate) fn way_out(identity: Option<&Identity>) -> String {
    match identity {
        Some(_) => "move it away if that agent is gone for good".to_owned(),
        None => format!("{EARLIER_BUILD}; otherwise move it away"),
    }
}

/// How an operator says that files of an earlier build, whose marks name no state directory, are the agent's.
pub(super) const EARLIER_BUILD: &str =
    "if an earlier build of this agent wrote it, run `moenet-agent approve --earlier-build`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_file_is_intact_and_edited_file_is_not() {
        let file = marked("protocol device {}\n", None);
        let intact = |file: &str| matches!(read(file), Mark::Complete { intact: true, .. });
        assert!(intact(&file));
        let edited = file.replace("{}", "{ scan time 5; }");
        assert!(!intact(&edited));
        let Mark::Complete { head, text, .. } = read(&edited) else {
            panic!("an edit takes no mark away");
        };
        assert_eq!(format!("{head}{text}"), edited);
    }

    #[test]
    fn mark_names_the_state_directory() {
        let identity: Identity = "4f1c8a09d2e7b365".parse().unwrap();
        let file = marked("x;\n", Some(&identity));
        let named = |file: &str| match read(file) {
            Mark::Complete { identity, .. } => identity,
            Mark::Missing | Mark::Old => None,
        };
        assert_eq!(named(&file), Some(identity));
        assert_eq!(
            named(&marked("# moenet-agent:2:4f1c8a09d2e7b365\n", None)),
            None
        );
    }

    #[test]
    fn mark_counts_in_the_first_line_only() {
        for file in [
            "",
            "\n# Written by moenet-agent; sha256:0\n",
            "log syslog all;\n",
        ] {
            assert_eq!(read(file), Mark::Missing, "{file:?}");
        }
        let old = "# Written by moenet-agent; changes here are overwritten.\nx;\n";
        assert_eq!(read(old), Mark::Old);
    }
}
