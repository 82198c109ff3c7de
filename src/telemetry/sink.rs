use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;
use crate::intervals::LOG_FLUSH;
use crate::redact::redact;

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

/// The log sink: a thread writes the lines to standard error. The logging code never waits, and never sees
/// an error: a line that cannot be written is dropped and counted.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    lines: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Sink {
    pub(super) fn start(format: LogFormat) -> Self {
        let (lines, received) = sync_channel(WAITING);
        let mut writer = LineWriter::new(io::stderr(), format);
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

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Message::Line(line.to_vec())).is_err() {
            count_lost();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes lines, and reports missing ones.
struct LineWriter<W> {
    to: W,
    format: LogFormat,
    /// The number of lost lines at the last report.
    told: u64,
    /// Whether the last line may be incomplete.
    torn: bool,
}

impl<W: Write> LineWriter<W> {
    fn new(to: W, format: LogFormat) -> Self {
        Self {
            to,
            format,
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

    fn line(&mut self, line: &[u8]) {
        let lost = lost_lines();
        let mut text = Vec::with_capacity(line.len());
        if self.torn {
            text.push(b'\n');
        }
        if lost > self.told {
            text.extend(self.notice(lost - self.told).into_bytes());
        }
        // Redacts secrets, whatever a reason or an error quotes.
        text.extend(redact(&String::from_utf8_lossy(line)).as_bytes());
        let written = self.to.write_all(&text).and_then(|()| self.to.flush());
        self.torn = written.is_err();
        match written {
            Ok(()) => self.told = lost,
            Err(_) => count_lost(),
        }
    }

    /// Returns the line that reports how many lines are missing before it.
    fn notice(&self, lost: u64) -> String {
        let now = Timestamp::now();
        let text = "log lines dropped, the log could not be written";
        match self.format {
            LogFormat::Text => format!("{now}  WARN {text} lines={lost}\n"),
            LogFormat::Json => {
                let fields = serde_json::json!({"message": text, "lines": lost});
                let line = serde_json::json!({"timestamp": now, "level": "WARN", "fields": fields});
                format!("{line}\n")
            }
        }
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

    #[test]
    fn lines_come_again_when_there_is_room_and_the_gap_is_named() {
        let (room, holds) = (9, Vec::new());
        let mut writer = LineWriter::new(Disk { room, holds }, LogFormat::Text);
        for line in ["first\n", "second\n", "third\n"] {
            writer.line(line.as_bytes());
        }
        writer.to.room = 1000;
        writer.line(b"fourth\n");
        writer.line(b"fifth\n");
        let text = String::from_utf8(writer.to.holds).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["first", "sec"]);
        assert!(
            lines[2].contains("dropped") && lines[2].contains("lines="),
            "{text}"
        );
        assert_eq!(lines[3..], ["fourth", "fifth"]);
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_up_no_caller() {
        let (lines, _received) = sync_channel(1);
        let mut sink = Sink { lines };
        let before = lost_lines();
        for _ in 0..10 {
            assert_eq!(sink.write(b"line\n").unwrap(), 5);
        }
        assert!(lost_lines() >= before + 9 && loses_lines());
    }
}
