//! `get overrides`: every override, with its state.

use std::process::ExitCode;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Arguments, Outcome, documents, objects, output};
use crate::document::{DocumentError, OverrideSpec};
use crate::effective::leaves;
use crate::store::Snapshot;

const HEADER: [&str; 6] = ["OVERRIDE", "STATE", "SETS", "PAUSED", "EXPIRES", "REASON"];

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

/// One override, for a program. It names the fields and shows no values: one of them may be a key.
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
        }
    }

    fn of(object: String, spec: &OverrideSpec, is_there: bool) -> Self {
        let state = match (spec.in_effect(Timestamp::now()), is_there) {
            (false, _) => State::Expired,
            (true, false) => State::Waiting,
            (true, true) => State::InEffect,
        };
        let set = Value::Object(spec.set.clone());
        Self {
            object,
            state,
            sets: leaves(&set).into_keys().collect(),
            paused: Some(spec.paused),
            expires_at: spec.expires_at,
            reason: Some(spec.reason.clone()),
            error: None,
        }
    }
}

/// Prints all overrides, or those of these objects.
pub(super) fn run(arguments: &Arguments, snapshot: &Snapshot, names: &[String]) -> Outcome {
    let mut rows = Vec::new();
    let there = documents::all(snapshot);
    for ((kind, name), slot) in &snapshot.overrides {
        let meant = |meant: &String| objects::is_meant(*kind, name, meant);
        if !names.is_empty() && !names.iter().any(meant) {
            continue;
        }
        let object = kind.path(name);
        rows.push(match slot {
            Err(error) => Row::invalid(object, error),
            Ok(stored) => {
                let is_there = there.contains_key(&(*kind, name.clone()));
                Row::of(object, &stored.document.spec, is_there)
            }
        });
    }
    for meant in names {
        let bare = |path: &str| path.rsplit('/').next() == Some(meant.as_str());
        if !rows
            .iter()
            .any(|row| row.object == *meant || bare(&row.object))
        {
            anyhow::bail!(
                "there is no override of {meant}; `moenet-agent get overrides` lists all"
            );
        }
    }
    if !output::value(arguments.output, &rows)? {
        print(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(rows: &[Row]) {
    if rows.is_empty() {
        return output::line("There are no overrides.");
    }
    output::line(output::table(&HEADER, rows.iter().map(cells)));
    for row in rows {
        if let Some(error) = &row.error {
            output::line(format_args!("{}: {error}", output::shade("Invalid")));
        }
    }
}

fn cells(row: &Row) -> Vec<String> {
    let none = || "-".to_owned();
    let sets = Some(row.sets.join(", ")).filter(|sets| !sets.is_empty());
    let paused = row.paused.map(|paused| if paused { "yes" } else { "no" });
    vec![
        format!("overrides/{}", row.object),
        format!("{:?}", row.state),
        sets.unwrap_or_else(none),
        paused.map_or_else(none, str::to_owned),
        row.expires_at.map_or_else(none, |end| end.to_string()),
        row.reason.clone().unwrap_or_else(none),
    ]
}
