//! The page of conditions: their types from the schema, their next actions and log events from `status`.

use serde_json::Value;

use crate::document::{ConditionStatus, ConditionType};
use crate::status::{Severity, condition_events, next_action, other_events, stops_work};
use crate::util::schemas;

const HEAD: &str = "# Condition reference

Generated from the code. Each object's status has conditions: `describe`, `get -o json`, `/status/OBJECT`,
`moenet_agent_condition`. A condition is bad while it is `False`; `RemovalHeld` and `ChangeHeld` are bad while they are
`True`; `InService` is never bad. By symptom: [troubleshooting](../troubleshooting.md).

In `doctor` these fail while they are bad for `node` or `policy`, and the others are warnings:
DOCTOR.

The next action is that of most reasons; `describe` prints the one of the reason at hand. Both edges are log lines, with
`object`, `cause` and `action`.

| condition | means | next action while it is bad | log |
|---|---|---|---|
";

const OTHERS: &str = "
## Edges without a condition

| begin | end |
|---|---|
";

/// Returns the page.
pub(super) fn page() -> String {
    let schema = schemas::value("Status");
    let types = schema["$defs"]["ConditionType"]["oneOf"].as_array();
    let types = || types.into_iter().flatten();
    let rows = types().filter_map(row);
    let stopping = types().filter(|it| about(it).is_some_and(stops_work));
    let stopping = stopping.filter_map(|it| Some(format!("`{}`", it["const"].as_str()?)));
    let head = HEAD.replace("DOCTOR", &stopping.collect::<Vec<_>>().join(", "));
    let others = other_events().into_iter().map(|events| {
        let [begin, end] = events.map(|(severity, text)| format!("{}: `{text}`", level(severity)));
        super::cells(&[begin, end])
    });
    format!(
        "{head}{}{OTHERS}{}",
        rows.collect::<String>(),
        others.collect::<String>()
    )
}

fn about(variant: &Value) -> Option<ConditionType> {
    serde_json::from_value(variant["const"].clone()).ok()
}

fn row(variant: &Value) -> Option<String> {
    let about = about(variant)?;
    let bad = [ConditionStatus::False, ConditionStatus::True];
    let action = bad
        .into_iter()
        .find_map(|status| next_action(about, status, ""));
    let log = condition_events(about).map(|events| {
        let events = events.map(|(severity, text)| format!("{}: `{text}`", level(severity)));
        events.join("; ")
    });
    let cells = [
        format!("`{}`", variant["const"].as_str()?),
        variant["description"].as_str()?.to_owned(),
        action.unwrap_or("–").to_owned(),
        log.unwrap_or_else(|| "–".to_owned()),
    ];
    Some(super::cells(&cells))
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Warn => "WARN",
        Severity::Error => "ERROR",
    }
}
