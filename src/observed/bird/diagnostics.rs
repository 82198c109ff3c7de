//! Parser of the messages that `bird -p` prints to stderr. Pure.
//!
//! ```text
//! 2.x   error    bird: /etc/bird/a.conf:2:10 Kernel device protocol already defined
//!       warning  bird: /etc/bird/a.conf:2:103: Missing authentication option, assuming MD5
//! 3.x   error    bird: 2026-11-23 20:59:08.469 [0001] <FATAL> /etc/bird/a.conf:2:10 Kernel …
//!       warning  bird: 2026-11-23 20:59:08.476 [0001] <WARN> /etc/bird/a.conf:2:103: Missing …
//! ```
//!
//! 2.0.12 warns without a location. A file that cannot be opened has no location either (measured).

use std::fmt;

use super::text::{cut, decode};

/// Length limit of a message, in characters.
const LONGEST: usize = 400;

/// One message of BIRD's parser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostic {
    /// The file, as BIRD names it; for an error in an included file, the included one.
    pub file: Option<String>,
    /// The line, from 1. BIRD reports the end of the construct.
    pub line: Option<u32>,
    /// The column, as BIRD counts it.
    pub column: Option<u32>,
    /// BIRD's message, cut to 400 characters.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line, self.column) {
            (Some(file), Some(line), Some(column)) => {
                write!(f, "{file}:{line}:{column}: {}", self.message)
            }
            _ => f.write_str(&self.message),
        }
    }
}

/// Returns every message in the output of `bird -p`, in order. After a failure the last one is the error.
pub fn parse(output: &[u8]) -> Vec<Diagnostic> {
    let lines = output.split(|byte| *byte == b'\n').map(decode);
    lines
        .filter(|line| !line.trim().is_empty())
        .map(|line| parse_line(&line))
        .collect()
}

/// Parses one message, with or without the prefix of `bird`. Also parses the text of `8002`.
pub fn parse_line(line: &str) -> Diagnostic {
    let text = strip_stamp(line.strip_prefix("bird: ").unwrap_or(line)).trim();
    let Some((file, line, column, message)) = place(text) else {
        return Diagnostic {
            message: cut(text, LONGEST),
            ..Diagnostic::default()
        };
    };
    Diagnostic {
        file: Some(file.to_owned()),
        line: Some(line),
        column: Some(column),
        message: cut(message, LONGEST),
    }
}

/// Removes the prefix `2026-11-23 20:59:08.469 [0001] <FATAL> ` of 3.x.
fn strip_stamp(text: &str) -> &str {
    let starts_with_date = text
        .get(..5)
        .is_some_and(|year| year.ends_with('-') && year.as_bytes()[0].is_ascii_digit());
    match text.split_once("> ") {
        Some((stamp, rest)) if starts_with_date && stamp.contains(" <") => rest,
        _ => text,
    }
}

/// Returns the first `FILE:LINE:COLUMN` that is followed by a blank or a colon.
fn place(text: &str) -> Option<(&str, u32, u32, &str)> {
    text.match_indices(':').find_map(|(at, _)| {
        let (line, rest) = text[at + 1..].split_once(':')?;
        let end = rest.find([' ', ':']).unwrap_or(rest.len());
        let message = rest[end..].trim_start_matches(':').trim_start();
        Some((
            text.get(..at).filter(|file| !file.is_empty())?,
            line.parse().ok()?,
            rest[..end].parse().ok()?,
            message,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(file: &str, line: u32, column: u32, message: &str) -> Diagnostic {
        Diagnostic {
            file: Some(file.into()),
            line: Some(line),
            column: Some(column),
            message: message.into(),
        }
    }

    #[test]
    fn errors_and_warnings_of_both_branches_are_read() {
        let output = b"bird: /t/e.conf:2:103: Missing authentication option, assuming MD5\n\
            bird: 2026-11-23 20:59:08.476 [0001] <WARN> /t/e.conf:3:27: Inferring function f: bool\n\
            bird: 2026-11-23 20:59:08.469 [0001] <FATAL> /t/e.conf:2:10 Kernel device protocol already defined\n\
            bird: /t/e.conf:1:0 No protocol is specified in the config file\n";
        let want = [
            at(
                "/t/e.conf",
                2,
                103,
                "Missing authentication option, assuming MD5",
            ),
            at("/t/e.conf", 3, 27, "Inferring function f: bool"),
            at("/t/e.conf", 2, 10, "Kernel device protocol already defined"),
            at(
                "/t/e.conf",
                1,
                0,
                "No protocol is specified in the config file",
            ),
        ];
        assert_eq!(parse(output), want);
    }

    #[test]
    fn a_message_without_a_place_is_kept_whole() {
        for stamp in ["bird: ", "bird: 2026-11-23 20:59:08.486 [0001] <FATAL> "] {
            let line = format!(
                "{stamp}Unable to open configuration file /t/n.conf: No such file or directory"
            );
            let message =
                "Unable to open configuration file /t/n.conf: No such file or directory".to_owned();
            assert_eq!(
                parse_line(&line),
                Diagnostic {
                    message,
                    ..Diagnostic::default()
                }
            );
        }
    }

    #[test]
    fn a_place_inside_a_message_is_no_second_place() {
        let line = "/t/a.conf:2:10 Unable to match pattern /t/b:3:4: No such file";
        assert_eq!(
            parse_line(line),
            at(
                "/t/a.conf",
                2,
                10,
                "Unable to match pattern /t/b:3:4: No such file"
            )
        );
    }

    proptest! {
        #[test]
        fn random_output_never_panics(output: Vec<u8>, text: String) {
            parse(&output);
            parse_line(&text);
        }
    }
}
