//! Printing: aligned tables and colour for people, JSON and YAML for programs.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table, coloured on a terminal.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Prints a line to standard output; a closed pipe ends the output and nothing else.
pub(crate) fn line(text: impl std::fmt::Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Prints an error as one line to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let red = AnsiColor::Red.on_default().bold();
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {}", crate::telemetry::chain(error.as_ref()));
}

/// Prints a remark to standard error, where it spoils no output.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "note: {text}");
}

/// Prints a value for a program, as asked. `false`: a person asked, so the caller prints for one.
pub(crate) fn value(format: Format, value: &impl Serialize) -> anyhow::Result<bool> {
    match format {
        Format::Table => return Ok(false),
        Format::Json => line(serde_json::to_string_pretty(value)?),
        Format::Yaml => line(crate::document::to_yaml(value)?.trim_end()),
    }
    Ok(true)
}

/// A table without lines, as `kubectl` prints.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Good, doubtful and bad, in the colours that everybody knows.
pub(crate) fn shade(word: &str) -> String {
    let style = match word {
        "Established" | "True" | "ok" | "closed" => AnsiColor::Green.on_default(),
        "Error" | "False" | "open" => AnsiColor::Red.on_default(),
        "Configured" | "Configuring" | "Degraded" | "Pending" | "Paused" | "Deleting" | "Unknown" => {
            AnsiColor::Yellow.on_default()
        }
        _ => Style::new(),
    };
    format!("{style}{word}{style:#}")
}
