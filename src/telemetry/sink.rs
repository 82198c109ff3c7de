use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use serde_json::Value;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::fields::MESSAGE;
use crate::config::LogFormat;
use crate::intervals::LOG_FLUSH;
use crate::redact::{redact, redact_value};

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
    /// Whether the next line is an event of the agent, and not of a library.
    own: bool,
}

#[derive(Debug)]
enum Message {
    /// A line, and whether it is an event of the agent.
    Line(Vec<u8>, bool),
    Flush(SyncSender<()>),
}

impl Sink {
    pub(super) fn start(format: LogFormat) -> Self {
        let (lines, received) = sync_channel(WAITING);
        let mut writer = LineWriter::new(io::stderr(), format);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without the thread the channel is closed, and every line counts as dropped.
        let _ = thread.spawn(move || writer.run(&received));
        Self { lines, own: false }
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
        if self
            .lines
            .try_send(Message::Line(line.to_vec(), self.own))
            .is_err()
        {
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

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self {
        Self {
            own: event.target().starts_with(env!("CARGO_CRATE_NAME")),
            ..self.clone()
        }
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
                Message::Line(line, own) => self.line(&line, own),
                Message::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    fn line(&mut self, line: &[u8], own: bool) {
        let lost = lost_lines();
        let mut text = Vec::with_capacity(line.len());
        if self.torn {
            text.push(b'\n');
        }
        if lost > self.told {
            text.extend(self.notice(lost - self.told).into_bytes());
        }
        let line = String::from_utf8_lossy(line);
        text.extend(without_secrets(&line, self.format, own).as_bytes());
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

/// Returns a line without secrets. The message of the agent's own events is constant, and has none.
fn without_secrets(line: &str, format: LogFormat, own: bool) -> Cow<'_, str> {
    let shown = match (format, own) {
        // The values lost theirs when they were written; see `fields`.
        (LogFormat::Text, true) => return Cow::Borrowed(line),
        _ => redact(line),
    };
    match (format, &shown) {
        (LogFormat::Json, Cow::Owned(_)) => match serde_json::from_str(line) {
            Ok(event) => Cow::Owned(format!("{}\n", event_without_secrets(event, own))),
            Err(_) => shown,
        },
        _ => shown,
    }
}

/// Redacts the values of an event, so that it stays valid JSON.
fn event_without_secrets(mut event: Value, own: bool) -> Value {
    let Some(fields) = event.get_mut("fields") else {
        redact_value(&mut event);
        return event;
    };
    let message = fields.get(MESSAGE).filter(|_| own).cloned();
    redact_value(fields);
    if let Some(message) = message {
        fields[MESSAGE] = message;
    }
    event
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::redact::{forget, remember};

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
    fn log_resumes_after_full_disk_and_counts_lost_lines() {
        let (room, holds) = (9, Vec::new());
        let mut writer = LineWriter::new(Disk { room, holds }, LogFormat::Text);
        for line in ["first\n", "second\n", "third\n"] {
            writer.line(line.as_bytes(), true);
        }
        writer.to.room = 1000;
        writer.line(b"fourth\n", true);
        writer.line(b"fifth\n", true);
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
    fn secret_leaves_json_valid_and_constant_parts_readable() {
        // A word of the log itself, JSON's own syntax, and text that JSON escapes.
        for secret in [
            "a-word-of-the-log",
            "\",\"level\":\"",
            "fields\":{",
            "pass\"word\\x",
        ] {
            remember("sink", secret);
            let line = json!({
                "level": "WARN",
                "fields": {
                    "message": "this is a-word-of-the-log",
                    "a-word-of-the-log": format!("it is {secret} or"),
                    "level_fields": 5
                },
                "target": "a-word-of-the-log"
            });
            let shown = without_secrets(&format!("{line}\n"), LogFormat::Json, true).into_owned();
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let mut expected = line;
            expected["fields"]["a-word-of-the-log"] = "it is (secret) or".into();
            assert_eq!(shown, expected, "{secret}");
        }
        remember("sink", "of-a-library");
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = "{\"fields\":{\"message\":\"of-a-library\"}}\n";
            let shown = without_secrets(line, format, false).into_owned();
            assert_eq!(shown, line.replace("of-a-library", "(secret)"));
        }
        forget("sink");
    }

    #[test]
    fn a_sink_that_takes_nothing_holds_up_no_caller() {
        let (lines, _received) = sync_channel(1);
        let mut sink = Sink { lines, own: true };
        let before = lost_lines();
        for _ in 0..10 {
            assert_eq!(sink.write(b"line\n").unwrap(), 5);
        }
        assert!(lost_lines() >= before + 9 && loses_lines());
    }
}
