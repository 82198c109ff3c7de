//! The values of a configuration that is to be written, by section and key.

use serde_json::{Map, Value};

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
}
