//! The page of alerts, from the rules that the packages install.

use serde::Deserialize;

use crate::document::parse_value;

/// The alert rules.
const RULES: &str = include_str!("../../../packaging/alerts.yaml");

const HEAD: &str = "# Alert reference

Generated from `packaging/alerts.yaml`, which the packages install as `/usr/share/moenet-agent/alerts.yaml`. The
description of an alert says what to do. Metrics: [metric reference](metrics.md). The rules expect the label
`job=\"moenet-agent\"`: name the scrape job of the agents so ([example](../observe.md)).

| alert | severity | after | means | what to do |
|---|---|---|---|---|
";

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    r#for: String,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
    description: String,
}

/// Returns the page.
pub(super) fn page() -> anyhow::Result<String> {
    let rules: Rules = parse_value(RULES)?;
    let rules = rules.groups.into_iter().flat_map(|group| group.rules);
    let rows = rules.map(|rule| {
        let Annotations {
            summary,
            description,
        } = rule.annotations;
        let cells = [
            format!("`{}`", rule.alert),
            rule.labels.severity,
            rule.r#for,
            plain(&summary),
            plain(&description),
        ];
        super::cells(&cells)
    });
    Ok(format!("{HEAD}{}", rows.collect::<String>()))
}

/// Writes Prometheus' placeholders as words: `{{ $labels.instance }}` is INSTANCE.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{{") {
        let (word, after) = inside.split_once("}}").unwrap_or((inside, ""));
        plain.push_str(before);
        let value = word.split('|').next().unwrap_or_default().trim();
        let name = value.rsplit(['.', '$', ' ']).next().unwrap_or_default();
        let is_control = ["if", "with"]
            .iter()
            .any(|begin| word.trim().starts_with(begin));
        if !matches!(name, "end" | "else") && !is_control {
            plain.push_str(&name.to_uppercase());
        }
        rest = after;
    }
    plain + rest
}
