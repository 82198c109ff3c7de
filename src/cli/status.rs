//! `status`: the daemon's health, and why it is not `ok`.

use std::process::ExitCode;

use serde_json::Value;

use super::api::Api;
use super::{Arguments, Outcome, block_on, output};

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let config = arguments.load()?;
    let status = block_on(async { Api::new(&config)?.get("/status").await })?;
    if !output::value(arguments.output, &status)? {
        print(&status);
    }
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn items<'a>(status: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    status[name].as_array().into_iter().flatten()
}

fn print(status: &Value) {
    head(status);
    items(status, "reasons")
        .for_each(|reason| output::line(format_args!("reason: {}", text(reason))));
    for wait in items(status, "waiting") {
        output::line(format_args!(
            "waiting: {}: {} → {}",
            text(&wait["object"]),
            text(&wait["waitsFor"]),
            text(&wait["action"])
        ));
    }
    overrides(status);
    for one in items(status, "held") {
        output::line(format_args!(
            "held: {} {}: {}",
            text(&one["object"]),
            text(&one["change"]),
            text(&one["reason"])
        ));
    }
    items(status, "notices")
        .for_each(|notice| output::line(format_args!("notice: {}", text(notice))));
}

fn head(status: &Value) {
    let count = |name: &str| status["sessions"][name].as_u64().unwrap_or_default();
    let node = &status["node"];
    output::line(format_args!(
        "{} (id {}, {}): {}, up {}, version {} ({})",
        text(&node["name"]),
        text(&node["id"]),
        node["region"].as_str().unwrap_or("no region"),
        output::shade(&text(&status["status"])),
        crate::util::text::span(status["uptime"].as_i64().unwrap_or_default()),
        text(&status["version"]),
        text(&status["commit"]),
    ));
    output::line(format_args!(
        "sessions: {} total, {} active, {} in error, {} pending",
        count("total"),
        count("active"),
        count("error"),
        count("pending")
    ));
    if let Some(states) = status["bgp"].as_object().filter(|bgp| !bgp.is_empty()) {
        let states = states
            .iter()
            .map(|(state, count)| format!("{count} {state}"));
        output::line(format_args!(
            "BGP: {}",
            states.collect::<Vec<_>>().join(", ")
        ));
    }
    if status["maintenance"]["enabled"] == true {
        output::line(format_args!(
            "maintenance: drained since {}; `moenet-agent maintenance stop` ends the drain",
            text(&status["maintenance"]["since"])
        ));
    }
    bird(&status["bird"]);
    output::line(format_args!(
        "circuit breaker: {}",
        output::shade(&text(&status["circuitBreaker"]))
    ));
    for (list, last) in status["lastSync"].as_object().into_iter().flatten() {
        let failures = last["consecutiveFailures"].as_u64().unwrap_or_default();
        let success = last["lastSuccess"].as_str().unwrap_or("never");
        match failures {
            0 => output::line(format_args!("last sync of {list}: {success}")),
            _ => output::line(format_args!(
                "last sync of {list}: {success}, {failures} failed since: {}",
                text(&last["lastError"])
            )),
        }
    }
}

fn bird(bird: &Value) {
    match (bird["running"].as_bool(), bird["version"].as_str()) {
        (Some(true), Some(version)) => {
            output::line(format_args!("BIRD: running, version {version}"));
        }
        (Some(false), _) => {
            let why = bird["error"].as_str().unwrap_or("not observed yet");
            output::line(format_args!("BIRD: {why}"));
        }
        _ => {}
    }
}

fn overrides(status: &Value) {
    for one in items(status, "overrides") {
        for field in one["fields"].as_array().into_iter().flatten() {
            output::line(format_args!(
                "overridden: {} {} is {}, document {}: {}",
                text(&one["object"]),
                text(&field["field"]),
                text(&field["value"]),
                text(&field["document"]),
                text(&one["reason"]),
            ));
        }
    }
    for one in items(status, "overrides").filter(|one| one["paused"] == true) {
        output::line(format_args!(
            "paused: {}: {}",
            text(&one["object"]),
            text(&one["reason"])
        ));
    }
    let shown = items(status, "overrides").count() as u64;
    let total = status["overridesTotal"].as_u64().unwrap_or_default();
    if total > shown {
        output::line(format_args!(
            "and {} more overrides; `moenet-agent get overrides` lists them",
            total - shown
        ));
    }
}
