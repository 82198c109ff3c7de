//! The configuration with every key and its description, as a package installs it and as `init` writes it.

use serde_json::{Map, Value};

use super::fields::{Field, Schema};
use crate::util::schemas;

const HEAD: &str = "\
# yaml-language-server: $schema=/usr/share/moenet-agent/schemas/Config.json
#
# The configuration of moenet-agent. Every key is here with its default, or with an example where it has none:
# take the # at the start of a line away to set a key. A router needs node.name, and either controlPlane.url with
# a token, or node.id with node.asn.
#
#   moenet-agent validate            checks this file
#   systemctl reload moenet-agent    applies it; the log names the keys that need a restart
#   man moenet-agent-config          describes every key
";

/// Returns the configuration with every key, commented out unless it has a value here: without the `#` at the start of each
/// line it is valid.
pub(super) fn configuration(values: &Map<String, Value>) -> String {
    let root = schemas::value("Config");
    let mut text = HEAD.to_owned();
    for section in Schema::of(&root).fields() {
        text.push('\n');
        text.push_str(&comment("", &section));
        let given = values.get(&section.name).and_then(Value::as_object);
        let mark = if given.is_some() { "" } else { "#" };
        text.push_str(&format!("{mark}{}:\n", section.name));
        for field in section.schema.fields() {
            text.push_str(&comment("  ", &field));
            let given = given.and_then(|given| given.get(&field.name));
            let mark = if given.is_some() { "" } else { "#" };
            let value = given.or(field.schema.default()).or(field.schema.example());
            let value = value.map_or("null".to_owned(), Value::to_string);
            text.push_str(&format!("{mark}  {}: {value}\n", field.name));
        }
    }
    text
}

/// Returns a file of a fleet with every field of its schema, commented out unless it has a value here.
pub(super) fn fields(head: &str, schema: &Value, values: &Map<String, Value>) -> String {
    let mut text = head.to_owned();
    for field in Schema::of(schema).fields() {
        text.push('\n');
        text.push_str(&comment("", &field).replace("##", "#"));
        let given = values.get(&field.name);
        let mark = if given.is_some() { "" } else { "#" };
        let value = given.or(field.schema.default()).or(field.schema.example());
        let value = value.map_or("null".to_owned(), Value::to_string);
        text.push_str(&format!("{mark}{}: {value}\n", field.name));
    }
    text
}

/// Returns the description of a field as comments, at most 100 columns wide.
fn comment(indent: &str, field: &Field<'_>) -> String {
    let mut text = field.schema.description();
    let words: Vec<_> = field
        .schema
        .values()
        .into_iter()
        .map(|(word, _)| word)
        .collect();
    if words.len() > 1 {
        text.push_str(&format!(" One of: {}.", words.join(", ")));
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let is_full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() > 96);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    let lines = lines.into_iter();
    lines.map(|line| format!("#{indent}#{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn uncommented(text: &str) -> String {
        let lines = text
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn configuration_with_every_key_set_is_valid() {
        let text = configuration(&Map::new());
        let keys = text.strip_prefix(HEAD).unwrap();
        let config = crate::config::parse(&uncommented(keys)).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:24368");
        assert_eq!(config.node.name, "jp1");
    }

    #[test]
    fn configuration_as_installed_sets_nothing() {
        let text = configuration(&Map::new());
        assert!(
            text.lines()
                .all(|line| line.is_empty() || line.starts_with('#'))
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 120),
            "{text}"
        );
    }

    #[test]
    fn given_values_are_set_and_others_stay_comments() {
        let values = json!({
            "node": {"name": "jp1: #x", "asn": 64512},
            "controlPlane": {"url": "https://cp", "token": "a \"quoted\" # token"},
        });
        let text = configuration(values.as_object().unwrap());
        let config = crate::config::parse(&text).unwrap();
        assert_eq!(config.node.name, "jp1: #x");
        assert_eq!(config.node.id, None);
        let control_plane = config.control_plane.unwrap();
        let token = control_plane.token.unwrap();
        assert_eq!(token.expose(), "a \"quoted\" # token");
        assert!(text.contains("\n#  id: 1\n") && text.contains("\n#server:\n"));
    }
}
