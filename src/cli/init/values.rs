//! The values of a configuration that is to be written, by section and key.

use serde_json::{Map, Value};

use crate::agent::start_problems;
use crate::cli::commented;
use crate::config::{self, Environment};

/// Values by section and key: `node.name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Values(Map<String, Value>);

impl Values {
    /// Sets a key, `section.key`, unless the value is null.
    pub(super) fn set(&mut self, path: &str, value: impl Into<Value>) {
        let (value, Some((section, key))) = (value.into(), path.split_once('.')) else {
            return;
        };
        if value.is_null() {
            return;
        }
        let section = self.0.entry(section).or_insert_with(|| Map::new().into());
        if let Some(section) = section.as_object_mut() {
            section.insert(key.to_owned(), value);
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        let found = path
            .split_once('.')
            .and_then(|(section, key)| self.0.get(section)?.get(key));
        found.is_some()
    }

    /// Returns why the value of a key is refused, by the rules of the configuration that has it.
    pub(super) fn refusal(&self, path: &str) -> Option<String> {
        let text = commented::configuration(&self.0);
        let checked = config::check(&text, Environment::default()).err();
        let rules = checked.into_iter().flat_map(|problems| problems.0);
        let start = config::parse(&text).map(|config| start_problems(&config));
        let all = rules.chain(start.into_iter().flatten());
        all.filter(|problem| problem.field == path)
            .map(|problem| problem.message)
            .next()
    }

    /// Returns why one of the values is refused.
    pub(super) fn refused(&self) -> Option<String> {
        let keys = self.0.iter().flat_map(|(section, keys)| {
            let keys = keys.as_object().into_iter().flatten();
            keys.map(move |(key, _)| format!("{section}.{key}"))
        });
        keys.into_iter().find_map(|path| self.refusal(&path))
    }

    pub(super) fn sections(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the keys that a router cannot do without and that have no value, each with its flag.
    pub(super) fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let all = match self.has("controlPlane.url") {
            true => &[("node.name", "--name")][..],
            false => &[
                ("node.name", "--name"),
                ("node.id", "--id"),
                ("node.asn", "--asn"),
            ],
        };
        let missing = all.iter().filter(|(path, _)| !self.has(path));
        missing.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn router_needs_a_control_plane_or_its_own_numbers() {
        let mut values = Values::default();
        assert_eq!(values.missing().len(), 3);
        values.set("node.name", "jp1");
        values.set("node.asn", Value::Null);
        assert_eq!(
            values.missing(),
            [("node.id", "--id"), ("node.asn", "--asn")]
        );
        values.set("controlPlane.url", "https://cp");
        assert_eq!(values.missing(), []);
    }

    #[test]
    fn value_is_refused_by_the_rules_of_its_key_alone() {
        for (path, wrong, right) in [
            ("node.name", json!("j p 1"), json!("jp1")),
            ("node.id", json!(70000), json!(1)),
            ("node.id", json!(0), json!(1)),
            ("node.asn", json!(0), json!(4_242_420_998_u32)),
            (
                "node.loopbackIpv4",
                json!("172.23.105"),
                json!("172.23.105.177"),
            ),
            (
                "node.loopbackIpv6",
                json!("fd48::g"),
                json!("fd48:4242:420::1"),
            ),
            ("controlPlane.url", json!("ftp://cp"), json!("https://cp")),
            (
                "controlPlane.url",
                json!("cp.example"),
                json!("http://cp.example"),
            ),
            ("controlPlane.token", json!("a\nb"), json!("token")),
        ] {
            let mut values = Values::default();
            values.set("node.name", "jp1");
            if path == "controlPlane.token" {
                values.set("controlPlane.url", "https://cp");
            }
            values.set(path, wrong);
            assert!(values.refusal(path).is_some(), "{path}");
            assert_eq!(values.refused(), values.refusal(path));
            values.set(path, right);
            assert_eq!(values.refused(), None, "{path}");
        }
    }
}
