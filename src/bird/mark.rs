//! The mark: the first line of every file that the agent writes outside its state directory. Pure.
//!
//! ```text
//! # Written by moenet-agent; edits are replaced, a copy is kept. sha256:4f1c…
//! ```
//!
//! The hash is that of all lines below. A file that was edited keeps the line and loses the match, so that no
//! record beside the file is needed to tell a file as the agent wrote it from one that a person edited.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// How every mark begins, of every build.
const BEGIN: &str = "# Written by moenet-agent";
/// What stands before the hash.
const HASH: &str = "sha256:";

/// What the first line of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// The file carries no mark: it is not the agent's.
    Missing,
    /// The mark of a build that wrote no hash. Whether the file was edited is unknown.
    Old,
    /// A mark with a hash.
    Complete {
        /// The first line, with its line end.
        head: &'a str,
        /// All lines below.
        text: &'a str,
        /// Whether the text is what the agent wrote.
        intact: bool,
    },
}

/// A file of this text, with its mark.
pub fn marked(text: &str) -> String {
    format!(
        "{BEGIN}; edits are replaced, a copy is kept. {HASH}{}\n{text}",
        hash(text)
    )
}

/// Reads the mark of a file.
pub fn read(file: &str) -> Mark<'_> {
    let line = file.split_inclusive('\n').next().unwrap_or_default();
    if !line.starts_with(BEGIN) {
        return Mark::Missing;
    }
    let said = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(HASH));
    let text = &file[line.len()..];
    match said {
        None => Mark::Old,
        Some(said) => Mark::Complete {
            head: line,
            text,
            intact: said == hash(text),
        },
    }
}

/// The first 32 hexadecimal digits of a text's SHA-256.
pub fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_file_is_intact_and_edited_file_is_not() {
        let file = marked("protocol device {}\n");
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
