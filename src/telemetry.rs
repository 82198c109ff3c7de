//! Log lines, and errors as one line.

use std::error::Error;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The watch of files warns of each watch that went with its folder, in words that no operator can act on; the
/// agent says itself what is wrong with the state directory.
const QUIET: &str = "notify=error";

/// Starts logging to standard error: text for people, JSON for programs. `RUST_LOG` wins over the level.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(format!("{},{QUIET}", log.level)))
        .unwrap_or_else(|_| EnvFilter::new(format!("info,{QUIET}")));
    // Colour is for people: not for a file, a pipe or the journal.
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let builder = builder.with_target(false).with_ansi(colour);
    // A second start, as tests make one, changes nothing.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// An error and its causes, on one line. A cause that its error already quotes is not said twice.
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
