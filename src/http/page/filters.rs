//! Values as texts for people.

use jiff::Timestamp;
use minijinja::Environment;
use minijinja::value::Serde;

use crate::util::text::span;
use crate::wire::WireStatus;

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_filter("ago", ago);
    environment.add_filter("duration", span);
    environment.add_filter("bytes", bytes);
    environment.add_filter("percent", percent);
    environment.add_filter("plain", plain);
    environment.add_filter("words", words);
    environment.add_filter("status", status);
}

/// The time from `at` until `now` in one unit, as `5m`.
fn ago(at: &str, now: &str) -> String {
    let second = |text: &str| text.parse::<Timestamp>().map(Timestamp::as_second);
    match (second(at), second(now)) {
        (Ok(at), Ok(now)) => span(now - at),
        _ => at.to_owned(),
    }
}

/// A number of bytes with a decimal unit, as `1.2 GB`.
fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut amount = count as f64;
    let mut unit = "B";
    for next in units {
        if amount < 1000.0 {
            break;
        }
        amount /= 1000.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count} B"),
        _ => format!("{amount:.1} {unit}"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// A value of a document: texts without quotes, all others as JSON.
fn plain(Serde(value): Serde<serde_json::Value>) -> String {
    match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => "–".to_owned(),
        other => other.to_string(),
    }
}

/// The name of the number of a session's status.
fn status(number: usize) -> String {
    let status = WireStatus::ALL.get(number);
    status.map_or_else(|| number.to_string(), |status| status.word().to_owned())
}

/// A name of the API as words: `controlPlane` as `control plane`.
fn words(name: &str) -> String {
    let spaced = |mut text: String, c: char| {
        if c.is_uppercase() {
            text.push(' ');
        }
        text.extend(c.to_lowercase());
        text
    };
    name.chars().fold(String::new(), spaced)
}
