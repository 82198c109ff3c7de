//! `get`: documents joined with their status.

mod follow;
mod listing;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::diff::{shown, value_at};
use super::output::Format;
use super::{Arguments, Outcome, change, complete, documents, objects, offline, output, overrides};
use crate::desired::maintenance_in_effect;
use crate::document::{
    self, BgpStatus, ConditionStatus, ConditionType, Kind, Metadata, OverrideSpec, PackedSpec,
    Phase, StatusBody,
};
use crate::effective::{default_interface, leaves};
use crate::model::ObjectName;
use crate::status;
use crate::store::{Snapshot, Store};
use crate::util::sorted::Sorted as _;
use listing::Listing;

/// Documents joined with their status.
#[derive(Debug, Args)]
pub struct Get {
    /// A kind (sessions, mesh, ibgp, overrides, node, policy, maintenance), names, or both
    #[arg(value_name = "KIND|NAME", add = ArgValueCompleter::new(complete::kinds_and_names))]
    words: Vec<String>,
    #[command(flatten)]
    listing: Listing,
}

/// One document, for a program.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
    /// Whether it has a valid document, and is no applied object without one.
    #[serde(skip)]
    has_document: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    /// The specification of the documents, with the override applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    override_: Option<Value>,
    /// The fields that an override in effect sets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    overridden: BTreeMap<String, Both>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why its removal is held: it is applied, and no document wants it.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<StatusBody>,
}

/// A field that an override sets.
#[derive(Serialize)]
struct Both {
    here: Value,
    document: Value,
}

impl Get {
    pub(super) fn run(&self, arguments: &Arguments) -> Outcome {
        let config = arguments.load()?;
        let store = offline::open(&config.state.directory)?;
        let snapshot = store.load()?;
        if let (Some(Kind::Override), names) = self.meaning() {
            self.listing.refuse_for_overrides()?;
            return overrides::run(arguments, &snapshot, names);
        }
        let format = arguments.output;
        // A name that is found once may be deleted while its changes are followed.
        self.known(&store, &snapshot)?;
        // A store keeps documents in effect that may be lost; each listing here is a new one.
        let read = || {
            let store = offline::open(&config.state.directory)?;
            let snapshot = store.load()?;
            Ok(self.rows(&store, &snapshot))
        };
        self.listing.print((&config, format), read, |rows| {
            match rows.is_empty() {
                true => output::line(self.listing.nothing()),
                false => print(rows, format),
            }
            drained(&snapshot);
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Rejects a name that no object has.
    fn known(&self, store: &Store, snapshot: &Snapshot) -> anyhow::Result<()> {
        let (kind, names) = self.meaning();
        let all = all(store, snapshot);
        for meant in names {
            let known = |(of, name): &(Kind, ObjectName)| {
                kind.is_none_or(|kind| kind == *of) && objects::is_meant(*of, name, meant)
            };
            if !all.keys().any(known) {
                let known = all.keys().map(|(kind, name)| kind.path(name));
                let kinds = Kind::ALL.map(|kind| kind.folder().to_owned());
                let known = known.chain(kinds);
                return Err(objects::unknown(meant, known));
            }
        }
        Ok(())
    }

    fn rows(&self, store: &Store, snapshot: &Snapshot) -> Vec<Row> {
        let (kind, names) = self.meaning();
        let is_wanted = |(of, name): &(Kind, ObjectName)| {
            kind.is_none_or(|kind| kind == *of)
                && (names.is_empty()
                    || names
                        .iter()
                        .any(|meant| objects::is_meant(*of, name, meant)))
        };
        let all = all(store, snapshot).into_iter();
        let wanted = all.filter(|(key, _)| is_wanted(key));
        wanted
            .map(|((kind, name), loaded)| row(store, snapshot, kind, name, loaded))
            .collect()
    }

    /// Returns the kind and the names. The first word is a kind if it names one with many objects; `overrides/NAME` is an
    /// override, as `get overrides -o name` prints it.
    fn meaning(&self) -> (Option<Kind>, &[String]) {
        if !self.words.is_empty() && self.words.iter().all(|word| overrides::is_path(word)) {
            return (Some(Kind::Override), &self.words);
        }
        let kind = self
            .words
            .first()
            .and_then(|word| Kind::from_word(word))
            .filter(|kind| !kind.is_single());
        match (kind, self.words.get(1..)) {
            (Some(kind), Some(names)) => (Some(kind), names),
            _ => (None, &self.words),
        }
    }
}

/// Returns every object with its document, if it has one.
fn all(
    store: &Store,
    snapshot: &Snapshot,
) -> BTreeMap<(Kind, ObjectName), Option<documents::Loaded>> {
    let documents = documents::all(snapshot).into_iter();
    let documents = documents.chain(undocumented(snapshot));
    let mut all: BTreeMap<_, _> = documents
        .map(|(key, loaded)| (key, Some(loaded)))
        .sorted_map();
    // An override that waits for its object; its name may be mistyped.
    for key in objects::waiting(snapshot) {
        all.entry(key).or_insert(None);
    }
    // Objects that the Control Plane lists but that do not decode have only a status.
    for key in store.statuses() {
        all.entry(key).or_insert(None);
    }
    all
}

/// Returns applied objects without a document: their removal is held, or is about to happen.
fn undocumented(snapshot: &Snapshot) -> Vec<((Kind, ObjectName), documents::Loaded)> {
    let all = documents::all(snapshot);
    let applied = snapshot
        .applied
        .iter()
        .filter(|(key, _)| !key.0.is_single() && !all.contains_key(key));
    let loaded = applied.map(|(key, stored)| {
        let spec = stored.document.applied.spec.as_ref();
        let spec = spec.map(PackedSpec::value).unwrap_or_default();
        (key.clone(), Ok((stored.document.metadata.clone(), spec)))
    });
    loaded.collect()
}

/// Prints that the router is drained, and so all its sessions.
fn drained(snapshot: &Snapshot) {
    let state = maintenance_in_effect(snapshot);
    if state.enabled {
        let since = state.since.map(|since| format!(" since {since}"));
        output::line(format_args!(
            "The router is drained{}; `moenet-agent maintenance stop` ends the drain",
            since.unwrap_or_default()
        ));
    }
}

fn held(status: &StatusBody) -> Option<String> {
    let condition = status.conditions.iter().find(|c| {
        matches!(
            c.condition_type,
            ConditionType::RemovalHeld | ConditionType::ChangeHeld
        )
    })?;
    (condition.status == ConditionStatus::True).then(|| condition.message.clone())
}

fn row(
    store: &Store,
    snapshot: &Snapshot,
    kind: Kind,
    name: ObjectName,
    loaded: Option<documents::Loaded>,
) -> Row {
    let status = store
        .read_status(kind, &name)
        .map(|document| document.status);
    let override_ = snapshot
        .overrides
        .get(&(kind, name.clone()))
        .and_then(|slot| slot.as_ref().ok());
    let override_ = override_.map(|stored| &stored.document.spec);
    let held = status.as_ref().and_then(held);
    let has_document = snapshot.has(kind, &name);
    let mut row = Row {
        kind,
        name,
        has_document,
        metadata: None,
        spec: None,
        override_: override_.and_then(|override_| serde_json::to_value(override_).ok()),
        overridden: BTreeMap::new(),
        error: None,
        held,
        status,
    };
    match loaded {
        Some(Ok((metadata, spec))) => {
            row.metadata = Some(metadata);
            row.with_spec(
                spec,
                override_.filter(|override_| override_.in_effect(Timestamp::now())),
            );
        }
        Some(Err(error)) => row.error = Some(error.to_string()),
        None => {}
    }
    row
}

impl Row {
    /// Returns whether there is only an override, for an object that does not exist.
    fn is_waiting_override(&self) -> bool {
        self.metadata.is_none() && self.error.is_none() && self.status.is_none()
    }

    /// Returns the document with its override, in a form that `validate` and `apply` accept, or a comment that says why
    /// it has no document.
    pub(super) fn document(&self) -> anyhow::Result<String> {
        let path = self.kind.path(&self.name);
        match (&self.error, &self.metadata, &self.spec) {
            (None, Some(metadata), Some(spec)) if self.has_document => {
                change::document::text(self.kind, metadata, spec)
            }
            (Some(error), ..) => Ok(format!("# {path}: {error}\n")),
            _ => Ok(format!("# {path} has no document\n")),
        }
    }

    /// Returns the phase; an error found here counts even before the daemon has seen it. The document that says whether the
    /// router is drained has no status, so no phase.
    pub(super) fn phase(&self) -> Option<Phase> {
        match (&self.error, &self.status) {
            (Some(_), _) => Some(Phase::Error),
            (None, Some(status)) => Some(status.phase),
            (None, None) if self.is_waiting_override() || self.kind == Kind::Maintenance => None,
            (None, None) => Some(Phase::Pending),
        }
    }

    pub(super) fn bgp(&self) -> Option<&BgpStatus> {
        self.status.as_ref()?.bgp.as_ref()
    }

    pub(super) fn asn(&self) -> Option<u64> {
        self.spec.as_ref()?.get("asn")?.as_u64()
    }

    /// Returns the cells without ages, which change all the time.
    pub(super) fn facts(&self) -> Vec<String> {
        let mut facts = cells(self, Format::Table);
        facts.pop();
        facts.extend(
            self.bgp()
                .and_then(|bgp| bgp.since)
                .map(|since| since.to_string()),
        );
        facts
    }

    /// Returns the row of a table without its header.
    fn line(&self, format: Format) -> String {
        let table = output::table(header(format), [cells(self, format)]);
        table.lines().skip(1).collect::<Vec<_>>().join("\n")
    }

    /// Sets the specification. An override that makes a document invalid is rejected, and reported here too.
    fn with_spec(&mut self, document: Value, override_: Option<&OverrideSpec>) {
        let Some(override_) = override_ else {
            self.spec = Some(document);
            return;
        };
        let patch = Value::Object(override_.set.clone());
        let mut merged = document.clone();
        json_patch::merge(&mut merged, &patch);
        if let Err(error) = document::check_spec(self.kind, &merged) {
            self.error = Some(format!(
                "overrides/{}/{}.yaml: {error}",
                self.kind.folder(),
                self.name
            ));
            self.spec = Some(document);
            return;
        }
        let both = |field: &str| Both {
            here: value_at(Some(&merged), field),
            document: value_at(Some(&document), field),
        };
        self.overridden = leaves(&patch)
            .into_keys()
            .map(|field| (field.clone(), both(&field)))
            .sorted_map();
        self.spec = Some(merged);
    }
}

/// Returns the rows of a table without its header. Their columns are below each other unless a cell wraps.
fn lines(rows: &[Row], format: Format) -> Vec<String> {
    let cells = rows.iter().map(|row| cells(row, format));
    let table = output::table(header(format), cells);
    let lines: Vec<_> = table.lines().skip(1).map(str::to_owned).collect();
    match lines.len() == rows.len() {
        true => lines,
        false => rows.iter().map(|row| row.line(format)).collect(),
    }
}

/// The columns of `-o wide`; without it the first nine.
const COLUMNS: [&str; 14] = [
    "NAME",
    "KIND",
    "PHASE",
    "ASN",
    "ENDPOINT",
    "INTERFACE",
    "BGP",
    "OVERRIDDEN",
    "SINCE",
    "HANDSHAKE",
    "RTT",
    "LOSS",
    "IMPORTED",
    "EXPORTED",
];
const NARROW: usize = 9;

fn header(format: Format) -> &'static [&'static str] {
    match format {
        Format::Wide => &COLUMNS,
        _ => &COLUMNS[..NARROW],
    }
}

fn print(rows: &[Row], format: Format) {
    output::line(output::table(
        header(format),
        rows.iter().map(|row| cells(row, format)),
    ));
    for row in rows {
        if row.is_waiting_override() {
            output::line(objects::waits(row.kind, &row.name));
        }
        if let Some(held) = &row.held {
            let object = row.kind.path(&row.name);
            output::line(format_args!(
                "{object}: change held: {held} → {}",
                status::approve(&object)
            ));
        }
        let rejected = row.status.as_ref().and_then(|status| {
            status
                .last_error
                .as_ref()
                .filter(|_| row.metadata.is_none() && row.held.is_none())
        });
        if let Some(error) = row.error.as_ref().or(rejected) {
            output::line(format_args!("{}: {error}", output::shade("Error")));
        }
    }
}

fn cells(row: &Row, format: Format) -> Vec<String> {
    let bgp = row.bgp();
    let phase = row.phase();
    let mut cells = vec![
        row.name.to_string(),
        row.kind.to_string(),
        match row.is_waiting_override() {
            true => "Waiting".to_owned(),
            false => or_dash(phase.map(|phase| phase.to_string())),
        },
        field(row, &["/asn"]),
        field(row, &["/tunnel/endpoint", "/endpoint", "/address"]),
        interface(row),
        or_dash(bgp.map(|bgp| bgp.state.clone())),
        overridden(row),
        or_dash(bgp.and_then(|bgp| bgp.since).map(ago)),
    ];
    if format == Format::Wide {
        let status = row.status.as_ref();
        let tunnel = status.and_then(|status| status.tunnel.as_ref());
        let rtt = status.and_then(|status| status.rtt_ms);
        let loss = status.and_then(|status| status.loss);
        cells.extend([
            or_dash(tunnel.and_then(|tunnel| tunnel.last_handshake).map(ago)),
            or_dash(rtt.map(|rtt| format!("{rtt:.1}ms"))),
            or_dash(loss.map(|loss| format!("{:.0}%", loss * 100.0))),
            or_dash(bgp.map(|bgp| bgp.routes_imported.to_string())),
            or_dash(bgp.map(|bgp| bgp.routes_exported.to_string())),
        ]);
    }
    cells
}

pub(crate) fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Returns the first of these fields that exists.
fn field(row: &Row, pointers: &[&str]) -> String {
    let spec = row.spec.as_ref();
    let found = pointers.iter().find_map(|pointer| spec?.pointer(pointer));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => "-".to_owned(),
    }
}

/// Returns the interface, by default that of a session; the default of another kind needs more than its document.
fn interface(row: &Row) -> String {
    let named = field(row, &["/tunnel/interface", "/interface"]);
    match (row.kind, field(row, &["/asn"]).as_str()) {
        (Kind::BgpSession, asn) if named == "-" && asn != "-" => default_interface(asn),
        _ => named,
    }
}

/// Formats `tunnel.mtu=1380 (1420)`: the value here, and that of the document.
fn overridden(row: &Row) -> String {
    if row.overridden.is_empty() {
        return "-".to_owned();
    }
    let each = row
        .overridden
        .iter()
        .map(|(field, both)| format!("{field}={} ({})", shown(&both.here), shown(&both.document)));
    each.collect::<Vec<_>>().join(", ")
}

/// Returns the time since then, in one unit.
pub(crate) fn ago(at: Timestamp) -> String {
    crate::util::text::span(Timestamp::now().as_second() - at.as_second())
}
