//! How `get` lists its rows: chosen by phase, sorted, and followed.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::super::output::{self, Format};
use super::Row;
use super::follow::Hints;
use crate::cli::api::Agent;
use crate::cli::block_on;
use crate::config::Config;
use crate::document::{Kind, Phase};
use crate::model::ObjectName;
use crate::util::sorted::Sorted as _;

/// How rows are listed.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// List only objects in this phase; may be repeated
    #[arg(long, value_name = "PHASE", value_parser = phase)]
    phase: Vec<Phase>,
    /// Sort by this column
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t = Column::Kind)]
    sort_by: Column,
    /// Go on and print each row that changes, until interrupted
    #[arg(long, short)]
    watch: bool,
}

/// A column to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Column {
    /// Kind, then name
    Kind,
    /// Name
    Name,
    /// Phase
    Phase,
    /// AS number
    Asn,
    /// Time since the BGP session is in its state, the longest first
    Since,
    /// Imported routes, the most first
    Routes,
    /// Round-trip time, the shortest first
    Rtt,
}

impl Column {
    /// Compares two rows by this column.
    fn order(self, one: &Row, other: &Row) -> Ordering {
        let phase = |row: &Row| row.phase().map(|phase| phase.to_string());
        let asn = |row: &Row| last_if_none(row.asn());
        let since = |row: &Row| last_if_none(row.bgp().and_then(|bgp| bgp.since));
        let routes = |row: &Row| last_if_none(row.bgp().map(|bgp| Reverse(bgp.routes_imported)));
        let rtt = |row: &Row| row.status.as_ref().and_then(|status| status.rtt_ms);
        let rtt = |row: &Row| rtt(row).unwrap_or(f64::MAX);
        match self {
            Self::Kind => Ordering::Equal,
            Self::Name => one.name.as_str().cmp(other.name.as_str()),
            Self::Phase => phase(one).cmp(&phase(other)),
            Self::Asn => asn(one).cmp(&asn(other)),
            Self::Since => since(one).cmp(&since(other)),
            Self::Routes => routes(one).cmp(&routes(other)),
            Self::Rtt => rtt(one).total_cmp(&rtt(other)),
        }
    }
}

/// Parses a phase.
fn phase(text: &str) -> Result<Phase, serde_json::Error> {
    // Its error lists every phase.
    serde_json::from_value(Value::String(text.to_owned()))
}

impl Listing {
    /// Returns the rows that are asked for, sorted.
    fn arranged(&self, mut rows: Vec<Row>) -> Vec<Row> {
        rows.retain(|row| {
            self.phase.is_empty() || row.phase().is_some_and(|it| self.phase.contains(&it))
        });
        // One sort for all columns: each of its own would be another copy of the code that sorts.
        rows.sort_by(|one, other| self.sort_by.order(one, other));
        rows
    }

    /// Returns what is said in place of a table without rows.
    pub(super) fn nothing(&self) -> &'static str {
        match self.phase.is_empty() {
            true => "No documents.",
            false => "No object is in such a phase.",
        }
    }

    /// Refuses what a list of overrides does not have.
    pub(super) fn refuse_for_overrides(&self) -> anyhow::Result<()> {
        let is_plain = self.phase.is_empty() && self.sort_by == Column::Kind && !self.watch;
        anyhow::ensure!(
            is_plain,
            "overrides have no phase and no columns of objects: list them without --phase, --sort-by and --watch"
        );
        Ok(())
    }

    /// Prints the rows, and with `--watch` each change of one.
    pub(super) fn print(
        &self,
        (config, format): (&Config, Format),
        read: impl Fn() -> anyhow::Result<Vec<Row>>,
        table: impl Fn(&[Row]),
    ) -> anyhow::Result<()> {
        let mut rows = self.arranged(read()?);
        match format {
            Format::Name => names(&rows),
            Format::Yaml => documents(&rows)?,
            _ if output::value(format, &rows)? => {}
            _ => table(&rows),
        }
        let mut is_noted = note_without_agent(config, format, &rows);
        if !self.watch {
            return Ok(());
        }
        let mut hints = Hints::begin(config);
        while !output::is_closed() {
            hints.wait();
            match hints.is_told() {
                true => is_noted = false,
                false => is_noted = is_noted || note_without_agent(config, format, &rows),
            }
            let new = self.arranged(read()?);
            changes(format, &rows, &new)?;
            rows = new;
        }
        Ok(())
    }
}

/// Says that statuses are old, if they are shown and no agent answers. Returns whether it did.
fn note_without_agent(config: &Config, format: Format, rows: &[Row]) -> bool {
    let has_status = rows.iter().any(|row| row.status.is_some());
    if matches!(format, Format::Name | Format::Yaml) || !has_status {
        return false;
    }
    let is_running = block_on(async { Ok(Agent::find(config).await.is_running()) });
    let is_old = is_running.is_ok_and(|is_running| !is_running);
    if is_old {
        output::note("no agent answers; phases and BGP states are as it last wrote them");
    }
    is_old
}

/// Sorts a missing value last.
fn last_if_none<T: Ord>(value: Option<T>) -> (bool, Option<T>) {
    (value.is_none(), value)
}

fn names(rows: &[Row]) {
    for row in rows {
        output::line(row.kind.path(&row.name));
    }
}

/// Prints the documents, each after a line that separates it from others.
fn documents(rows: &[Row]) -> anyhow::Result<()> {
    for row in rows {
        output::document(&row.document()?);
    }
    Ok(())
}

/// Prints the rows that are new or differ, and names those that are gone.
fn changes(format: Format, before: &[Row], now: &[Row]) -> anyhow::Result<()> {
    let facts = |rows: &[Row]| -> BTreeMap<(Kind, ObjectName), Vec<String>> {
        let each = rows.iter();
        each.map(|row| ((row.kind, row.name.clone()), row.facts()))
            .sorted_map()
    };
    let (old, new) = (facts(before), facts(now));
    let mut lines = match format.is_for_people() {
        true => super::lines(now, format).into_iter(),
        false => Vec::new().into_iter(),
    };
    for row in now {
        let line = lines.next().unwrap_or_default();
        let key = (row.kind, row.name.clone());
        if old.get(&key) == new.get(&key) {
            continue;
        }
        match format {
            Format::Name => output::line(row.kind.path(&row.name)),
            Format::Yaml => documents(std::slice::from_ref(row))?,
            _ if output::value(format, row)? => {}
            _ => output::line(line),
        }
    }
    for (kind, name) in old.keys().filter(|key| !new.contains_key(key)) {
        let gone = json!({"kind": kind, "name": name, "deleted": true});
        match format {
            Format::Json => drop(output::value(format, &gone)?),
            Format::Yaml => output::line(format_args!("---\n# {} deleted", kind.path(name))),
            _ => output::line(format_args!("{} deleted", kind.path(name))),
        }
    }
    Ok(())
}
