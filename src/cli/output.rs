//! Printing: aligned tables and colour for people, JSON and YAML for programs.

use std::io::{self, Write as _};
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::{Value, json};

use super::printable;
use crate::config::ConfigError;
use crate::document::{DocumentError, Problems};
use crate::redact::{redact, redact_value};
use crate::util::progress::{self, Progress};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people, coloured on a terminal.
    #[default]
    Table,
    /// The table with more columns (`get`).
    Wide,
    /// Names only (`get`).
    Name,
    /// JSON for programs.
    Json,
    /// YAML for programs.
    Yaml,
}

impl Format {
    /// Returns whether people read it, and no program.
    pub(crate) fn is_for_people(self) -> bool {
        !matches!(self, Self::Json | Self::Yaml)
    }
}

/// The format that the arguments ask for.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Sets the format of errors and notes.
pub(crate) fn choose(format: Format) {
    let _ = FORMAT.set(format);
}

fn is_json() -> bool {
    FORMAT.get() == Some(&Format::Json)
}

/// The first error of writing to standard output.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Prints a line to standard output, without secrets. [`finish`] reports write errors.
pub(crate) fn line(text: impl std::fmt::Display) {
    unredacted(redact(&text.to_string()));
}

/// Prints a line with its secrets, if it has any: the operator asked for them. Control characters are escaped.
pub(crate) fn unredacted(text: impl std::fmt::Display) {
    let text = text.to_string();
    passed_on(&printable::styled(&text));
}

/// Prints a line in which control characters are escaped: it has passed here, or in the process that ran the verb.
pub(crate) fn passed_on(text: &str) {
    keep(progress::above(|| writeln!(anstream::stdout(), "{text}")));
}

/// Prints such a line to standard error.
pub(crate) fn passed_on_error(text: &str) {
    let _ = progress::above(|| writeln!(anstream::stderr(), "{text}"));
}

fn keep(written: io::Result<()>) {
    if let Err(error) = written {
        let _ = UNWRITTEN.set(error);
    }
}

/// Ends the output. A closed pipe is not a failure; a full disk is, or a script would continue with half a file.
///
/// # Errors
/// Some output could not be written.
pub(crate) fn finish() -> anyhow::Result<()> {
    keep(io::stdout().flush());
    match UNWRITTEN.get() {
        Some(error) => check(error).context("write the output"),
        None => Ok(()),
    }
}

/// Returns whether nothing reads the output any more.
pub(crate) fn is_closed() -> bool {
    UNWRITTEN.get().is_some()
}

/// Returns an error of standard output as a failure, except for a closed pipe.
pub(crate) fn check(error: &io::Error) -> anyhow::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => anyhow::bail!("{error}"),
    }
}

/// Prints an error to standard error: with `-o json` as JSON, and one with a place as `file:line:column: message`.
pub(crate) fn error(error: &anyhow::Error, hint: Option<&str>) {
    let text = crate::telemetry::chain(error.as_ref());
    let text = redact(&text);
    let problems = problems(error);
    if is_json() {
        let mut value = json!({"error": text, "problems": problems});
        redact_value(&mut value);
        if let Some(hint) = hint {
            value["note"] = hint.into();
        }
        return stderr_json(&value);
    }
    match problems {
        [only] if only.location.is_some() && text.starts_with(&only.to_string()) => bare(&text),
        [] | [_] => marked(&text),
        all => {
            all.iter().for_each(|it| bare(&redact(&it.to_string())));
            let outermost = (!is_about_all(error.as_ref())).then(|| format!("{error}: "));
            let outermost = outermost.unwrap_or_default();
            marked(&redact(&format!(
                "{outermost}{} problems, as above",
                all.len()
            )));
        }
    }
    hint.iter().for_each(|hint| note(hint));
}

fn bare(text: &str) {
    passed_on_error(&printable::styled(text));
}

fn marked(text: &str) {
    let red = AnsiColor::Red.on_default().bold();
    let text = printable::styled(text);
    passed_on_error(&format!("{red}error:{red:#} {text}"));
}

fn is_about_all(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.is::<Problems>() || cause.is::<ConfigError>()
}

fn stderr_json(value: &Value) {
    passed_on_error(&printable::json(&value.to_string()));
}

/// Returns the problems that an error is about.
fn problems(error: &anyhow::Error) -> &[DocumentError] {
    let found = error.chain().find_map(|cause| {
        let all = cause.downcast_ref::<Problems>();
        let all = all.or_else(|| cause.downcast_ref::<ConfigError>()?.problems());
        let one = || cause.downcast_ref::<DocumentError>();
        let all = all.map(|all| all.0.as_slice());
        all.or_else(|| one().map(std::slice::from_ref))
    });
    found.unwrap_or_default()
}

/// Prints a note to standard error, so that it does not mix with the output.
pub(crate) fn note(text: &str) {
    let text = redact(text);
    if is_json() {
        return stderr_json(&json!({"note": text}));
    }
    passed_on_error(&format!("note: {}", printable::styled(&text)));
}

/// Shows what a verb does while it takes long, until the result is dropped; nothing in a format for programs.
pub(crate) fn progress(format: Format, what: &str) -> Option<Progress> {
    format.is_for_people().then(|| Progress::begin(what))
}

/// Prints a value in a format for programs. `false`: the format is for people, so the caller prints it.
pub(crate) fn value(format: Format, value: &impl Serialize) -> anyhow::Result<bool> {
    if format.is_for_people() {
        return Ok(false);
    }
    let mut value = serde_json::to_value(value)?;
    redact_value(&mut value);
    unredacted_value(format, &value)?;
    Ok(true)
}

/// Prints a value for a program unchanged, because it cannot hold a secret.
pub(crate) fn unredacted_value(format: Format, value: &impl Serialize) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Wide | Format::Name => {}
        Format::Json => unredacted(printable::json(&serde_json::to_string_pretty(value)?)),
        Format::Yaml => unredacted(crate::document::to_yaml(value)?.trim_end()),
    }
    Ok(())
}

/// Prints a document, after a line that separates it from others.
pub(crate) fn document(text: &str) {
    line("---");
    line(text.trim_end());
}

/// Columns with coloured words.
const SHADED: [&str; 4] = ["PHASE", "STATUS", "BGP", "STATE"];
/// Columns that wrap if a terminal is too narrow; keys and names do not.
const WRAPPED: [&str; 5] = ["MESSAGE", "OVERRIDDEN", "VALUE", "REASON", "SETS"];

/// The narrowest terminal for which columns wrap. A serial console has the width 0.
const NARROWEST: u16 = 60;

/// Returns a table without lines, as `kubectl` prints, without trailing blanks.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header.to_vec());
    // Whether the output supports colour is known only when it is printed.
    table.enforce_styling();
    for row in rows {
        let cells = header.iter().zip(row).map(|(column, text)| {
            let text = printable::escaped(&text).into_owned();
            let colour = colour(&text).filter(|_| SHADED.contains(column));
            // A wrapped key could not be found by a search for the whole line.
            let cell = match *column {
                "REASON" | "MESSAGE" => Cell::new(redact(&text)),
                _ => Cell::new(text),
            };
            colour.map_or(cell.clone(), |colour| cell.fg(colour))
        });
        table.add_row(cells);
    }
    let is_wide = table.width().is_some_and(|width| width >= NARROWEST);
    let wraps = is_wide && header.iter().any(|column| WRAPPED.contains(column));
    table.set_content_arrangement(match wraps {
        true => ContentArrangement::Dynamic,
        false => ContentArrangement::Disabled,
    });
    for (name, column) in header.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2));
        if wraps && !WRAPPED.contains(name) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    printable::marked(&lines.collect::<Vec<_>>().join("\n"))
}

/// Returns the colour of a word: good, doubtful or bad.
fn colour(word: &str) -> Option<Color> {
    match word {
        "Established" | "established" | "True" | "ok" | "closed" => Some(Color::Green),
        "Error" | "Invalid" | "False" | "open" | "failed" => Some(Color::Red),
        "warning" | "unknown" | "Configuring" | "Degraded" | "degraded" | "Pending"
        | "Disabled" | "Paused" | "Deleting" | "Unknown" | "Waiting" | "Expired" | "active"
        | "connect" | "idle" | "opensent" | "openconfirm" | "down" => Some(Color::Yellow),
        _ => None,
    }
}

/// Returns a word in its colour.
pub(crate) fn shade(word: &str) -> String {
    let style = match colour(word) {
        Some(Color::Green) => AnsiColor::Green.on_default(),
        Some(Color::Red) => AnsiColor::Red.on_default(),
        Some(_) => AnsiColor::Yellow.on_default(),
        None => Style::new(),
    };
    let word = printable::escaped(word);
    printable::marked(&format!("{style}{word}{style:#}"))
}
