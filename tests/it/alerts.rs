//! The alert rules of the package, as Prometheus reads them.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::modules::{root, sources};

const RULES: &str = include_str!("../../packaging/alerts.yaml");
const CASES: &str = include_str!("../../packaging/alerts.test.yaml");

#[track_caller]
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(root().join("packaging"))
        .output()
        .expect("promtool is missing; tests/deps.sh tests installs it");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
}

/// The names of the agent's metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let prefixes = ["moenet_agent_", "process_"];
    words
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "alerts.yaml"]);
}

#[test]
fn every_rule_fires_when_it_should() {
    promtool(&["test", "rules", "alerts.test.yaml"]);
    for line in RULES.lines() {
        if let Some(alert) = line.trim().strip_prefix("- alert: ") {
            let fires = format!(r#"alertname="{alert}""#);
            assert!(CASES.contains(&fires), "no case for {alert}");
        }
    }
}

#[test]
fn every_rule_says_what_to_do() {
    let rules = RULES.split("- alert: ").skip(1);
    for rule in rules {
        for field in ["for: ", "labels: {severity: ", "summary: ", "description: "] {
            assert!(rule.contains(field), "no {field:?} in {rule}");
        }
    }
}

#[test]
fn rules_use_metrics_that_the_agent_has() {
    let files = sources(&root().join("src/http/answers/metrics"));
    let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
    let code: String = texts.collect();
    for name in metrics(RULES) {
        // The names of a session's series are composed of this prefix and a word.
        let word = name.strip_prefix("moenet_agent_session_").unwrap_or(name);
        let is_there = [name, word].map(|name| code.contains(&format!("\"{name}\"")));
        assert!(is_there.contains(&true), "the agent has no {name}");
    }
}
