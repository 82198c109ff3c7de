//! Log lines and one-line errors, both without secrets.
//!
//! Logging has the lowest priority: a sink that is full, slow or gone loses lines, but blocks no task.

mod event;
mod form;
mod sink;

use std::error::Error;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::fstat;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use crate::config::{Log, LogFormat};
use crate::model::ErrorClass;
pub(crate) use event::set_asns;
use form::Form;
use sink::Sink;
pub use sink::{loses_lines, lost_lines};

/// The log of this process.
struct Running {
    sink: Sink,
    handle: reload::Handle<Targets, Registry>,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// Returns the form of lines: text is for people on a terminal, the journal's own form under systemd, else logfmt.
fn form(format: LogFormat) -> Form {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match format {
        LogFormat::Json => Form::Json,
        LogFormat::Text if std::io::stderr().is_terminal() => Form::People { colour: !no_colour },
        LogFormat::Text if is_journal() => Form::Journal,
        LogFormat::Text => Form::Logfmt,
    }
}

/// Returns whether standard error is the stream that systemd has connected to the journal (systemd.exec(5)).
fn is_journal() -> bool {
    let (Some(stream), Ok(stderr)) = (std::env::var_os("JOURNAL_STREAM"), fstat(std::io::stderr()))
    else {
        return false;
    };
    stream == *format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// Starts logging to standard error, or to the journal: text for people, JSON for programs. `RUST_LOG` overrides the level. Panics
/// become log lines too.
pub fn start(log: &Log) {
    let sink = Sink::start(form(log.format));
    let filter = of_environment()
        .and_then(|filter| parsed(&filter))
        .or_else(|| parsed(&log.level))
        .unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO));
    let (filter, handle) = reload::Layer::new(filter);
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(sink.clone())
        .try_init();
    // A second start, as in tests, changes nothing.
    if started.is_ok() && RUNNING.set(Running { sink, handle }).is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Sets the log level. `RUST_LOG` overrides it.
pub fn set_level(level: &str) {
    if of_environment().is_some() {
        return;
    }
    if let (Some(running), Some(filter)) = (RUNNING.get(), parsed(level)) {
        let _ = running.handle.reload(filter);
    }
}

/// Returns the filter of `RUST_LOG`: levels, each for all or for one module.
fn of_environment() -> Option<String> {
    let filter = std::env::var("RUST_LOG").ok();
    filter.filter(|filter| !filter.trim().is_empty())
}

/// Parses levels, each for all or for one module, divided by commas. Empty parts and blanks do not count: the library
/// takes them for a level and for a part of a name.
fn parsed(filter: &str) -> Option<Targets> {
    let parts = filter.split(',').map(str::trim);
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(",").parse().ok()
}

/// Waits a moment until the lines so far are written, before the process ends.
pub fn flush() {
    if let Some(running) = RUNNING.get() {
        running.sink.flush();
    }
}

/// Logs a panic as one line. The hook of the standard library would wait for a reader of standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let at = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = matches!(
        backtrace.status(),
        std::backtrace::BacktraceStatus::Captured
    )
    .then(|| backtrace.to_string());
    tracing::error!(
        panic = message,
        at,
        thread = thread.name(),
        backtrace,
        "panic, please report this"
    );
}

/// Returns the level of a failure. `is_in_status`: a condition has the error too, and is logged once by its edge.
fn level(class: ErrorClass, is_in_status: bool) -> tracing::Level {
    match class {
        ErrorClass::Bug => tracing::Level::ERROR,
        ErrorClass::Invalid | ErrorClass::Conflict if !is_in_status => tracing::Level::WARN,
        ErrorClass::Invalid | ErrorClass::Conflict | ErrorClass::Transient => tracing::Level::DEBUG,
    }
}

/// Logs an event at a level that is known only at run time.
macro_rules! at_level {
    ($level:expr, $($fields:tt)+) => {
        match $level {
            tracing::Level::ERROR => tracing::error!($($fields)+),
            tracing::Level::WARN => tracing::warn!($($fields)+),
            _ => tracing::debug!($($fields)+),
        }
    };
}

/// Failures since the start, by class in the order of [`ErrorClass`].
static FAILURES: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn count(class: ErrorClass) {
    FAILURES[class as usize].fetch_add(1, Ordering::Relaxed);
}

/// Returns the failures of work on objects since the start, by class.
pub(crate) fn failures() -> impl Iterator<Item = (ErrorClass, u64)> {
    use ErrorClass::{Bug, Conflict, Invalid, Transient};
    let classes = [Invalid, Transient, Conflict, Bug].into_iter();
    classes.map(|class| (class, FAILURES[class as usize].load(Ordering::Relaxed)))
}

/// Logs the failure of work on an object. The class decides the level: a transient failure has an edge of its own, which
/// is logged once.
pub fn failed(class: ErrorClass, object: &dyn std::fmt::Display, error: &dyn Error, what: &str) {
    count(class);
    let error = chain(error);
    at_level!(level(class, false), %object, error, "{what}");
}

/// Logs a failed step of an object, whose condition has the error too: each attempt would repeat it.
pub fn step_failed(
    class: ErrorClass,
    object: &dyn std::fmt::Display,
    step: &dyn std::fmt::Display,
    error: &dyn Error,
) {
    count(class);
    let error = chain(error);
    at_level!(level(class, true), %object, %step, error, "step failed");
}

/// Returns an error and its causes on one line. A cause that its error already quotes is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            let _ = write!(line, ": {text}");
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::{level, parsed};
    use crate::model::ErrorClass::{Bug, Conflict, Invalid, Transient};

    #[test]
    fn empty_parts_of_a_filter_do_not_count() {
        for (filter, wanted) in [
            ("info,", "info"),
            ("info,, moenet_agent::bird=debug", "info"),
            (" debug ", "debug"),
        ] {
            let read = parsed(filter).unwrap();
            assert_eq!(read.default_level(), wanted.parse().ok(), "{filter}");
        }
        assert!(parsed("info, debug,").is_some());
    }

    #[test]
    fn class_of_an_error_decides_its_level() {
        let levels = |class| [false, true].map(|is_in_status| level(class, is_in_status));
        assert_eq!(levels(Bug), [Level::ERROR; 2]);
        for class in [Invalid, Conflict] {
            assert_eq!(levels(class), [Level::WARN, Level::DEBUG]);
        }
        assert_eq!(levels(Transient), [Level::DEBUG; 2]);
    }
}
