//! Questions on a terminal.

use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Limit of an answer, in bytes.
const LONGEST: u64 = 4096;

/// Returns whether a person can answer.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Prints a text without a line break.
///
/// # Errors
/// When the terminal cannot be written to.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut terminal = io::stderr();
    terminal.write_all(text.as_bytes())?;
    terminal.flush()
}

/// Asks a question.
///
/// # Errors
/// When the terminal cannot be read.
pub(super) fn answer(question: &str) -> io::Result<String> {
    write(&format!("{question}: "))?;
    let mut line = Vec::new();
    // Byte by byte: what is behind the line belongs to the next question.
    for byte in io::stdin().lock().take(LONGEST).bytes() {
        match byte? {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim().to_owned()),
            byte => line.push(byte),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Asks for a secret, which is not shown. Ctrl-C ends the question like any other, after the terminal is as before.
///
/// # Errors
/// When the terminal cannot be read, and after Ctrl-C.
pub(super) fn secret(question: &str) -> io::Result<String> {
    write(&format!("{question}: "))?;
    let raw = Raw::begin();
    let read = typed(io::stdin().lock().take(LONGEST).bytes());
    drop(raw);
    write("\n")?;
    read
}

/// Reads a line as a terminal does that does not handle the keys itself.
fn typed(bytes: impl Iterator<Item = io::Result<u8>>) -> io::Result<String> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    const ERASE: [u8; 2] = [8, 127];
    const KILL: u8 = 21;
    const QUIT: u8 = 28;
    let mut line = Vec::new();
    for byte in bytes {
        match byte? {
            b'\n' | b'\r' => return Ok(String::from_utf8_lossy(&line).trim().to_owned()),
            INTERRUPT | QUIT => return Err(io::Error::new(ErrorKind::Interrupted, "interrupted")),
            END if line.is_empty() => break,
            KILL => line.clear(),
            byte if ERASE.contains(&byte) => drop(line.pop()),
            byte => line.push(byte),
        }
    }
    Err(ErrorKind::UnexpectedEof.into())
}

/// A terminal that neither shows what is typed nor makes signals of keys, until this is dropped: a signal would end the process
/// before the terminal is as it was.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else {
            return Self(None);
        };
        let mut raw = before.clone();
        let modes = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        raw.local_modes.remove(modes);
        let set = tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        Self(set.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Asks for consent; everything but `y` and `yes` refuses.
///
/// # Errors
/// When the terminal cannot be read.
pub(super) fn agrees(question: &str) -> io::Result<bool> {
    let answer = answer(&format!("{question} [y/N]"))?;
    Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed_as(keys: &str) -> io::Result<String> {
        typed(keys.bytes().map(Ok))
    }

    #[test]
    fn interrupted_question_is_an_error() {
        for keys in ["sec\x03ret\n", "sec\x1c\n"] {
            assert_eq!(typed_as(keys).unwrap_err().kind(), ErrorKind::Interrupted);
        }
        for keys in ["", "\x04", "cut"] {
            assert_eq!(typed_as(keys).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn keys_of_a_line_are_understood() {
        assert_eq!(typed_as("wrong\x15tokek\x7fn\r").unwrap(), "token");
        assert_eq!(typed_as("\x08a\nb").unwrap(), "a");
    }
}
