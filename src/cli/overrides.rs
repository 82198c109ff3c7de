//! `get overrides`: every override, with its state.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::output::Format;
use super::{Arguments, Outcome, documents, objects, output};
use crate::document::{Document, DocumentError, Kind, OverrideSpec, to_yaml};
use crate::effective::leaves;
use crate::model::ObjectName;
use crate::store::Snapshot;

/// The columns of `-o wide`; without it the first six.
const HEADER: [&str; 7] = [
    "OVERRIDE", "STATE", "SETS", "PAUSED", "EXPIRES", "REASON", "VALUES",
];
const NARROW: usize = 6;

/// State of an override.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum State {
    /// It changes its object.
    InEffect,
    /// Its object does not exist.
    Waiting,
    /// Its `expiresAt` has passed.
    Expired,
    /// It cannot be read.
    Invalid,
}

/// One override, for a program.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// The object, as `sessions/wg_4242421080`.
    object: String,
    state: State,
    sets: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The document, unless it is invalid: then a value may be a key.
    #[serde(flatten)]
    document: Option<Document<OverrideSpec>>,
}

impl Row {
    fn invalid(object: String, error: &DocumentError) -> Self {
        Self {
            object,
            state: State::Invalid,
            sets: Vec::new(),
            paused: None,
            expires_at: None,
            reason: None,
            error: Some(error.to_string()),
            document: None,
        }
    }

    fn of((kind, name): (Kind, &ObjectName), spec: &OverrideSpec, is_there: bool) -> Self {
        let state = match (spec.in_effect(Timestamp::now()), is_there) {
            (false, _) => State::Expired,
            (true, false) => State::Waiting,
            (true, true) => State::InEffect,
        };
        let set = Value::Object(spec.set.clone());
        // Outside its folder the document says the kind itself.
        let target_kind = Some(kind);
        let document = OverrideSpec {
            target_kind,
            ..spec.clone()
        };
        Self {
            object: kind.path(name),
            state,
            sets: leaves(&set).into_keys().collect(),
            paused: Some(spec.paused),
            expires_at: spec.expires_at,
            reason: Some(spec.reason.clone()),
            error: None,
            document: Some(Document::new(name.clone(), None, 0, document)),
        }
    }

    fn path(&self) -> String {
        format!("{FOLDER}{}", self.object)
    }

    /// Returns the document in a form that `validate` and `apply` accept, or a comment that says why it has none.
    fn text(&self) -> anyhow::Result<String> {
        Ok(match &self.document {
            Some(document) => to_yaml(document)?,
            None => {
                let why = self.error.as_deref().unwrap_or_default();
                format!("# {}: {why}\n", self.path())
            }
        })
    }
}

/// Begins the paths of overrides.
const FOLDER: &str = "overrides/";

/// Returns whether a word is the path of an override.
pub(super) fn is_path(word: &str) -> bool {
    let kind = word.split_once('/').map(|(kind, _)| kind);
    kind.and_then(Kind::from_word) == Some(Kind::Override)
}

/// Returns the name of the object in the name or the path of an override.
fn named(word: &str) -> &str {
    match word.split_once('/') {
        Some((_, name)) if is_path(word) => name,
        _ => word,
    }
}

/// Prints all overrides, or those of these objects.
pub(super) fn run(arguments: &Arguments, snapshot: &Snapshot, names: &[String]) -> Outcome {
    let mut rows = Vec::new();
    let there = documents::all(snapshot);
    for ((kind, name), slot) in &snapshot.overrides {
        let meant = |meant: &String| objects::is_meant(*kind, name, named(meant));
        if !names.is_empty() && !names.iter().any(meant) {
            continue;
        }
        rows.push(match slot {
            Err(error) => Row::invalid(kind.path(name), error),
            Ok(stored) => {
                let is_there = there.contains_key(&(*kind, name.clone()));
                Row::of((*kind, name), &stored.document.spec, is_there)
            }
        });
    }
    for meant in names.iter().map(|meant| named(meant)) {
        let bare = |path: &str| path.rsplit('/').next() == Some(meant);
        if !rows
            .iter()
            .any(|row| row.object == meant || bare(&row.object))
        {
            anyhow::bail!(
                "there is no override of {meant}; `moenet-agent get overrides` lists all"
            );
        }
    }
    match arguments.output {
        Format::Name => rows.iter().for_each(|row| output::line(row.path())),
        Format::Yaml => {
            for row in &rows {
                output::document(&row.text()?);
            }
        }
        format if output::value(format, &rows)? => {}
        format => print(&rows, format),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(rows: &[Row], format: Format) {
    if rows.is_empty() {
        return output::line("There are no overrides.");
    }
    let columns = match format {
        Format::Wide => &HEADER[..],
        _ => &HEADER[..NARROW],
    };
    output::line(output::table(columns, rows.iter().map(cells)));
    for row in rows {
        if let Some(error) = &row.error {
            output::line(format_args!("{}: {error}", output::shade("Invalid")));
        }
    }
}

fn cells(row: &Row) -> Vec<String> {
    let none = || "-".to_owned();
    let sets = Some(row.sets.join(", ")).filter(|sets| !sets.is_empty());
    let document = row.document.as_ref();
    let set = document.map(|document| Value::Object(document.spec.set.clone()));
    let values = set.as_ref().map(|set| {
        let values = leaves(set).into_iter();
        let values = values.map(|(field, value)| format!("{field}={value}"));
        values.collect::<Vec<_>>().join(", ")
    });
    let values = values.filter(|values| !values.is_empty());
    let paused = row.paused.map(|paused| if paused { "yes" } else { "no" });
    vec![
        row.path(),
        format!("{:?}", row.state),
        sets.unwrap_or_else(none),
        paused.map_or_else(none, str::to_owned),
        row.expires_at.map_or_else(none, |end| end.to_string()),
        row.reason.clone().unwrap_or_else(none),
        values.unwrap_or_else(none),
    ]
}
