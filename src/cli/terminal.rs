//! Questions on a terminal.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::util::progress;

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
    progress::above(|| asked(question))
}

fn asked(question: &str) -> io::Result<String> {
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

/// Asks for a secret, which is not shown. Ctrl-C and a signal end the question like any other, after the terminal is as before.
///
/// # Errors
/// When the terminal cannot be read, and after Ctrl-C.
pub(super) fn secret(question: &str) -> io::Result<String> {
    write(&format!("{question}: "))?;
    // In this order: the terminal is as before when a signal ends the process.
    let signals = HeldSignals::begin()?;
    let raw = Raw::begin();
    let longest = usize::try_from(LONGEST).unwrap_or(usize::MAX);
    let read = typed(Keys::of(&signals).take(longest));
    drop(raw);
    write("\n")?;
    drop(signals);
    read
}

/// Signals that would end the process, until this is dropped. The process has no other thread yet.
struct HeldSignals {
    fd: SignalFd,
    all: SigSet,
}

impl HeldSignals {
    fn begin() -> io::Result<Self> {
        let all: SigSet = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT]
            .into_iter()
            .collect();
        let fd = SignalFd::new(&all)?;
        all.thread_block()?;
        Ok(Self { fd, all })
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = self.all.thread_unblock();
    }
}

/// The bytes that a person types; an error once a signal came.
struct Keys<'a> {
    signals: &'a HeldSignals,
    read: VecDeque<u8>,
}

impl<'a> Keys<'a> {
    fn of(signals: &'a HeldSignals) -> Self {
        Self {
            signals,
            read: VecDeque::new(),
        }
    }

    /// Waits for a key or a signal, and reads what is there.
    fn wait(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        let mut events = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(&self.signals.fd, PollFlags::IN),
        ];
        retry_on_intr(|| poll(&mut events, None))?;
        if events.iter().skip(1).any(|it| !it.revents().is_empty()) {
            return Err(io::Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        let mut bytes = [0; 256];
        let count = rustix::io::read(&stdin, &mut bytes)?;
        self.read.extend(bytes.iter().take(count));
        Ok(())
    }
}

impl Iterator for Keys<'_> {
    type Item = io::Result<u8>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.is_empty()
            && let Err(error) = self.wait()
        {
            return Some(Err(error));
        }
        self.read.pop_front().map(Ok)
    }
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
