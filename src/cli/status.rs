//! `status`: the running daemon's own account of itself.

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

fn print(status: &Value) {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let count = |name: &str| status["sessions"][name].as_u64().unwrap_or_default();
    let node = &status["node"];
    output::line(format_args!(
        "{} (id {}, {}): {}, up {}, version {} ({})",
        text(&node["name"]),
        text(&node["id"]),
        node["region"].as_str().unwrap_or("no region"),
        output::shade(&text(&status["status"])),
        super::get::span(status["uptime"].as_i64().unwrap_or_default()),
        text(&status["version"]),
        text(&status["commit"]),
    ));
    output::line(format_args!(
        "sessions: {} in all, {} active, {} in error, {} pending",
        count("total"),
        count("active"),
        count("error"),
        count("pending")
    ));
    output::line(format_args!(
        "circuit breaker: {}",
        output::shade(&text(&status["circuitBreaker"]))
    ));
    let items = |name: &str| status[name].as_array().into_iter().flatten();
    for one in items("overrides") {
        for field in one["fields"].as_array().into_iter().flatten() {
            output::line(format_args!(
                "overridden: {} {} is {}, its document says {}: {}",
                text(&one["object"]),
                text(&field["field"]),
                text(&field["value"]),
                text(&field["document"]),
                text(&one["reason"]),
            ));
        }
    }
    for one in items("overrides").filter(|one| one["paused"] == true) {
        output::line(format_args!(
            "paused: {}: {}",
            text(&one["object"]),
            text(&one["reason"])
        ));
    }
    for one in items("held") {
        output::line(format_args!(
            "held: {} {}: {}",
            text(&one["object"]),
            text(&one["change"]),
            text(&one["reason"])
        ));
    }
    items("notices").for_each(|notice| output::line(format_args!("notice: {}", text(notice))));
}
