use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::event::Line;
use super::form::Form;
use crate::intervals::LOG_FLUSH;
use crate::util::progress;

/// Number of lines that may wait for a slow sink; more are dropped.
const WAITING: usize = 4096;

/// Number of dropped lines since the start.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Returns how many log lines were dropped because they could not be written.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// When the last line was dropped, in seconds since the epoch.
static LAST_LOST: AtomicI64 = AtomicI64::new(0);

/// How long a dropped line counts as recent, in seconds.
const RECENT: i64 = 60;

/// Returns whether a line was dropped within the last minute.
pub fn loses_lines() -> bool {
    let last = LAST_LOST.load(Ordering::Relaxed);
    last > 0 && Timestamp::now().as_second() - last < RECENT
}

fn count_lost() {
    LOST.fetch_add(1, Ordering::Relaxed);
    LAST_LOST.store(Timestamp::now().as_second(), Ordering::Relaxed);
}

/// The log sink: a thread writes the lines. The logging code never waits, and never sees an error: a line that cannot
/// be written is dropped and counted.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    Flush(SyncSender<()>),
}

impl Sink {
    pub(super) fn start(form: Form) -> Self {
        let (lines, received) = sync_channel(WAITING);
        let (to, form) = destination(form);
        let mut writer = LineWriter::new(to, form);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without the thread the channel is closed, and every line counts as dropped.
        let _ = thread.spawn(move || writer.run(&received));
        Self { lines }
    }

    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LOG_FLUSH);
        }
    }
}

impl<S: Subscriber> Layer<S> for Sink {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = Message::Line(Box::new(Line::of(event)));
        if self.lines.try_send(line).is_err() {
            count_lost();
        }
    }
}

/// Returns where lines go: to the journal's socket in its form, else to standard error.
fn destination(form: Form) -> (Box<dyn Write + Send>, Form) {
    match form {
        Form::Journal => match Journal::connect() {
            Ok(journal) => (Box::new(journal), form),
            // The journal reads standard error too.
            Err(_) => (Box::new(Stderr), Form::Logfmt),
        },
        _ => (Box::new(Stderr), form),
    }
}

/// Standard error, where a verb may show its progress.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::above(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The socket of the journal: each write is one entry.
struct Journal(UnixDatagram);

impl Journal {
    fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect("/run/systemd/journal/socket")?;
        Ok(Self(socket))
    }
}

impl Write for Journal {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        // After a restart of the journal the old connection is refused.
        if self.0.send(entry).is_err() {
            *self = Self::connect()?;
            self.0.send(entry)?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines, and reports missing ones.
struct LineWriter<W> {
    to: W,
    form: Form,
    /// The number of lost lines at the last report.
    told: u64,
    /// Whether the last line may be incomplete.
    torn: bool,
}

impl<W: Write> LineWriter<W> {
    fn new(to: W, form: Form) -> Self {
        Self {
            to,
            form,
            told: lost_lines(),
            torn: false,
        }
    }

    fn run(&mut self, messages: &Receiver<Message>) {
        for message in messages {
            match message {
                Message::Line(line) => self.line(&line),
                Message::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    fn line(&mut self, line: &Line) {
        let lost = lost_lines();
        let missing = (lost > self.told).then(|| {
            let text = "log lines dropped, the log could not be written";
            let lines = (lost - self.told).into();
            Line::new(Level::WARN, text, vec![("lines", lines)])
        });
        let mut lines = missing.iter().chain([line]);
        match lines.try_for_each(|line| self.write(line)) {
            Ok(()) => self.told = lost,
            Err(_) => count_lost(),
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = self.form.encode(line);
        if self.torn && self.form != Form::Journal {
            bytes.insert(0, b'\n');
        }
        let written = self.to.write_all(&bytes).and_then(|()| self.to.flush());
        self.torn = written.is_err();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with limited space.
    struct Disk {
        room: usize,
        holds: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room);
            if fits == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= fits;
            self.holds.extend(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(text: &str) -> Line {
        Line::new(Level::INFO, text, Vec::new())
    }

    #[test]
    fn log_resumes_after_full_disk_and_counts_lost_lines() {
        let (room, holds) = (80, Vec::new());
        let mut writer = LineWriter::new(Disk { room, holds }, Form::Logfmt);
        for text in ["first", "second", "third"] {
            writer.line(&line(text));
        }
        writer.to.room = 1000;
        writer.line(&line("fourth"));
        writer.line(&line("fifth"));
        let text = String::from_utf8(writer.to.holds).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("msg=\"first\""), "{text}");
        assert!(!lines[1].ends_with("second\""), "{text}");
        assert!(
            lines[2].contains("dropped") && lines[2].contains("lines="),
            "{text}"
        );
        assert!(
            lines[3].ends_with("fourth\"") && lines[4].ends_with("fifth\""),
            "{text}"
        );
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_up_no_caller() {
        let (lines, _received) = sync_channel(1);
        let sink = Sink { lines };
        let before = lost_lines();
        let log =
            tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), sink);
        tracing::subscriber::with_default(log, || (0..10).for_each(|_| tracing::info!("line")));
        assert!(lost_lines() >= before + 9 && loses_lines());
    }
}
