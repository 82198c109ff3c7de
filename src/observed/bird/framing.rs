//! Bytes of BIRD's control socket → [`Reply`]. Pure.
//!
//! A reply is lines: `NNNN-text` (more follows), ` text` (one blank: the code of the line before),
//! `NNNN text` (the last line), and `+text` (asynchronous, part of no reply). Only the last line's
//! code says whether the command worked: `0002-Reading configuration` comes before every error too,
//! and an `8000-<line overflow>` in the middle of a listing is no failure (measured).

use super::text::{cut, decode};

/// Size limit of a reply in bytes. `show protocols all` of 3000 sessions is 2.4 MB (measured), so this is
/// room for about 20 000. A larger reply is an error, and the limit protects the router's memory.
pub const MAX_REPLY: usize = 16 * 1024 * 1024;

/// One complete reply of BIRD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The lines before the last one, each with its code (a continuation has the code of the line
    /// before it). Indentation is kept; the prefix of exactly 1 or 5 bytes is not.
    pub lines: Vec<(u16, String)>,
    /// The code of the last line, which alone classifies the reply.
    pub code: u16,
    /// The text of the last line, often empty.
    pub text: String,
}

impl Reply {
    /// Returns whether BIRD executed the command: codes 8xxx (refused) and 9xxx (not understood) are failures.
    pub fn is_success(&self) -> bool {
        self.code < 8000
    }

    /// Returns the texts of the lines with this code, in order, including the last line.
    pub fn with_code(&self, code: u16) -> impl Iterator<Item = &str> {
        let last = (self.code == code).then_some(self.text.as_str());
        self.lines
            .iter()
            .filter(move |(have, _)| *have == code)
            .map(|(_, text)| text.as_str())
            .chain(last)
    }
}

/// Reason why bytes are not a reply. The connection cannot be used afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The reply is larger than [`MAX_REPLY`].
    #[error("BIRD's reply is larger than {MAX_REPLY} bytes")]
    TooLarge,
    /// A line has none of the four forms; holds its beginning.
    #[error("unexpected line from BIRD: {0:?}; is this BIRD's control socket?")]
    Malformed(String),
}

/// Assembles replies from arbitrary chunks.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    scanned: usize,
    lines: Vec<(u16, String)>,
    held: usize,
}

enum Line {
    More(u16, String),
    Last(u16, String),
    Asynchronous,
}

impl Decoder {
    /// Creates a decoder for the beginning of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes and returns the reply if they complete one. Bytes after a complete reply
    /// are kept: call [`Decoder::take`] for the next reply.
    ///
    /// # Errors
    /// [`FramingError`]; the connection must then be closed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Reply>, FramingError> {
        if self.held + self.buffer.len() + bytes.len() > MAX_REPLY {
            return Err(FramingError::TooLarge);
        }
        self.buffer.extend_from_slice(bytes);
        self.take()
    }

    /// Returns the next reply in the bytes received so far, if it is complete.
    ///
    /// # Errors
    /// [`FramingError::Malformed`]; the connection must then be closed.
    pub fn take(&mut self) -> Result<Option<Reply>, FramingError> {
        let mut start = 0;
        let mut complete = None;
        while let Some(length) = self.buffer[self.scanned..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let end = self.scanned + length;
            self.scanned = end + 1;
            let line = parse_line(
                &self.buffer[start..end],
                self.lines.last().map(|(code, _)| *code),
            )?;
            self.held += end + 1 - start;
            start = end + 1;
            match line {
                Line::More(code, text) => self.lines.push((code, text)),
                Line::Last(code, text) => {
                    self.held = 0;
                    complete = Some(Reply {
                        lines: std::mem::take(&mut self.lines),
                        code,
                        text,
                    });
                    break;
                }
                Line::Asynchronous => {}
            }
        }
        self.buffer.drain(..start);
        self.scanned = if complete.is_some() {
            0
        } else {
            self.buffer.len()
        };
        Ok(complete)
    }
}

/// Parses one line without its newline. Removes a prefix of exactly 1 or 5 bytes: the rest is indentation,
/// which has a meaning.
fn parse_line(line: &[u8], previous: Option<u16>) -> Result<Line, FramingError> {
    let malformed = || FramingError::Malformed(cut(&decode(line), 80));
    match (line.first(), code(line), line.get(4), previous) {
        (Some(b'+'), ..) => Ok(Line::Asynchronous),
        (Some(b' '), _, _, Some(code)) => Ok(Line::More(code, decode(&line[1..]))),
        (_, Some(code), Some(b'-'), _) => Ok(Line::More(code, decode(&line[5..]))),
        (_, Some(code), Some(b' '), _) => Ok(Line::Last(code, decode(&line[5..]))),
        _ => Err(malformed()),
    }
}

fn code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..4)?;
    digits.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u16::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> Reply {
        Decoder::new().push(bytes).unwrap().unwrap()
    }

    #[test]
    fn line_with_blank_fifth_byte_does_not_end_a_reply() {
        let reply = decoded(b"1002-a\n abc def\n1006-  x\n    y\n0000 \n");
        let lines = [
            (1002, "a"),
            (1002, "abc def"),
            (1006, "  x"),
            (1006, "   y"),
        ];
        assert_eq!(
            reply.lines,
            lines.map(|(code, text)| (code, text.to_owned()))
        );
        assert_eq!((reply.code, reply.text.as_str()), (0, ""));
    }

    #[test]
    fn the_last_line_alone_decides() {
        assert!(
            !decoded(b"0002-Reading configuration from x\n8002 x:1:1 syntax error\n").is_success()
        );
        assert!(decoded(b"1002-a\n8000-<line overflow>\n0000 \n").is_success());
        assert!(!decoded(b"9001 syntax error\n").is_success());
    }

    #[test]
    fn asynchronous_lines_are_no_part_of_a_reply() {
        let reply = decoded(b"+Config timeout expired, starting undo\n0003 Reconfigured\n");
        assert_eq!((reply.lines.len(), reply.code), (0, 3));
    }

    #[test]
    fn two_replies_in_one_chunk_are_two_replies() {
        let mut decoder = Decoder::new();
        assert_eq!(
            decoder
                .push(b"0001 BIRD 3.4.0 ready.\n0023 9\n00")
                .unwrap()
                .unwrap()
                .code,
            1
        );
        assert_eq!(decoder.take().unwrap().unwrap().text, "9");
        assert_eq!(decoder.take().unwrap(), None);
        assert_eq!(decoder.push(b"00 \n").unwrap().unwrap().code, 0);
    }

    #[test]
    fn a_line_that_is_no_reply_line_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 200 OK\n"[..],
            b"\n",
            b" first\n",
            b"12\n",
            b"00010x\n",
        ] {
            assert!(matches!(
                Decoder::new().push(bytes),
                Err(FramingError::Malformed(_))
            ));
        }
    }

    #[test]
    fn a_reply_without_end_is_cut_off() {
        let mut decoder = Decoder::new();
        let chunk = [b"1002-"[..].to_vec(), vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
        let result = (0..17).try_for_each(|_| decoder.push(&chunk).map(|_| ()));
        assert_eq!(result, Err(FramingError::TooLarge));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(chunks: Vec<Vec<u8>>) {
            let mut decoder = Decoder::new();
            for chunk in chunks {
                if decoder.push(&chunk).is_err() { break; }
            }
        }
    }
}
