//! Progress of long work: one line below the output of a terminal, which each output replaces.
//!
//! A verb begins it, any layer below says what it does, and whatever writes to the terminal does so with [`above`].

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::intervals::{PROGRESS_AFTER, PROGRESS_TICK};

/// Returns to the start of the line and erases it (ECMA-48).
const ERASE: &str = "\r\x1b[K";
/// Columns of a terminal that does not tell its size.
const COLUMNS: usize = 80;

/// The work that is shown, if any.
static SHOWN: Mutex<Option<Work>> = Mutex::new(None);

struct Work {
    what: String,
    since: Instant,
    /// How long it will take, if that is known.
    limit: Option<Duration>,
    /// Parts that are done, of all.
    parts: Option<(usize, usize)>,
    is_painted: bool,
}

impl Work {
    fn new(what: String, limit: Option<Duration>) -> Self {
        Self {
            what,
            since: Instant::now(),
            limit,
            parts: None,
            is_painted: false,
        }
    }

    /// Returns the line, which must not wrap: only the last line of the terminal can be erased.
    fn line(&self, elapsed: Duration, columns: usize) -> String {
        let mut text = format!("{} …", self.what);
        if let Some((done, all)) = self.parts {
            let _ = write!(text, " {done} of {all},");
        }
        let _ = write!(text, " {} s", elapsed.as_secs());
        if let Some(limit) = self.limit.filter(|limit| elapsed <= *limit) {
            let _ = write!(text, " of {} s", limit.as_millis().div_ceil(1000));
        }
        let visible = text.chars().filter(|letter| !letter.is_control());
        visible.take(columns.saturating_sub(1)).collect()
    }

    fn erase(&mut self) {
        if std::mem::take(&mut self.is_painted) {
            let _ = io::stderr().write_all(ERASE.as_bytes());
        }
    }

    fn paint(&mut self) {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        let columns = size.map_or(0, |size| size.ws_col.into());
        let columns = if columns == 0 { COLUMNS } else { columns };
        let line = self.line(self.since.elapsed(), columns);
        let _ = io::stderr().write_all(format!("{ERASE}{line}").as_bytes());
        self.is_painted = true;
    }
}

/// Shows work until this is dropped.
#[must_use]
pub(crate) struct Progress {
    /// The thread that paints ends with it. `None`: nothing is shown.
    _ends: Option<Sender<()>>,
}

impl Progress {
    /// Shows what a verb does, if standard error is a terminal, once it has taken [`PROGRESS_AFTER`].
    pub(crate) fn begin(what: &str) -> Self {
        let is_possible =
            io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|it| it != "dumb");
        if !is_possible {
            return Self { _ends: None };
        }
        *SHOWN.lock() = Some(Work::new(what.to_owned(), None));
        let (ends, ended) = channel();
        // Without a thread nothing is shown.
        let thread = thread::Builder::new().name("progress".to_owned());
        let _ = thread.spawn(move || paint(&ended));
        Self { _ends: Some(ends) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(mut work) = SHOWN.lock().take() {
            work.erase();
        }
    }
}

fn paint(ended: &Receiver<()>) {
    let mut wait = PROGRESS_AFTER;
    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        if let Some(work) = SHOWN.lock().as_mut() {
            work.paint();
        }
        wait = PROGRESS_TICK;
    }
}

/// Says what the verb does now, and how long that will take, if it is known.
pub(crate) fn say(what: &str, limit: Option<Duration>) {
    if let Some(work) = SHOWN.lock().as_mut() {
        let is_painted = work.is_painted;
        *work = Work::new(what.to_owned(), limit);
        work.is_painted = is_painted;
    }
}

/// Says how many parts of the work are done.
pub(crate) fn count(done: usize, all: usize) {
    if let Some(work) = SHOWN.lock().as_mut() {
        work.parts = Some((done, all));
    }
}

/// Writes to the terminal, or asks there, without the line.
pub(crate) fn above<T>(write: impl FnOnce() -> T) -> T {
    let mut shown = SHOWN.lock();
    if let Some(work) = shown.as_mut() {
        work.erase();
    }
    write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_time_parts_and_limit() {
        let mut work = Work::new("watching".to_owned(), Some(Duration::from_secs(60)));
        let line = |work: &Work, seconds| work.line(Duration::from_secs(seconds), 80);
        assert_eq!(line(&work, 12), "watching … 12 s of 60 s");
        assert_eq!(line(&work, 61), "watching … 61 s");
        work.parts = Some((3, 40));
        assert_eq!(line(&work, 12), "watching … 3 of 40, 12 s of 60 s");
    }

    #[test]
    fn line_fits_the_terminal_and_has_no_control_characters() {
        let work = Work::new("a\x1b[2Jb\nc".repeat(20), None);
        let line = work.line(Duration::ZERO, 20);
        assert_eq!(line.chars().count(), 19);
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
