use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::util::shared::shared;

/// A specification of any kind, kept as the text of its JSON: as a tree it takes ten times as much memory. Equal ones
/// share their text.
#[derive(Debug, Clone)]
pub struct PackedSpec(Arc<str>);

impl PackedSpec {
    /// Packs a specification.
    ///
    /// # Errors
    /// It has no form in JSON.
    pub fn of(spec: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self(shared(&serde_json::to_string(spec)?)))
    }

    /// Returns the specification as a tree.
    pub fn value(&self) -> Value {
        // The text was made from a value.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// Returns the specification as its type.
    ///
    /// # Errors
    /// It is of another kind, or of an earlier version.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.0)
    }

    /// Returns a field, by its JSON pointer. Makes no tree of the others.
    pub fn at(&self, pointer: &str) -> Option<Value> {
        // Mostly the field is not set, and a search costs much less than parsing.
        let name = pointer.rsplit('/').next()?;
        if !self.0.contains(name) {
            return None;
        }
        let mut names = pointer.split('/').skip(1);
        let found = names.try_fold(&*self.0, |text, name| {
            let mut fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text).ok()?;
            fields.remove(name).map(RawValue::get)
        });
        serde_json::from_str(found?).ok()
    }

    /// Returns a field with a text, by its JSON pointer.
    pub fn text_at(&self, pointer: &str) -> Option<String> {
        match self.at(pointer)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl From<&Value> for PackedSpec {
    fn from(value: &Value) -> Self {
        Self(shared(&value.to_string()))
    }
}

impl PartialEq for PackedSpec {
    fn eq(&self, other: &Self) -> bool {
        // Another build may have written the fields in another order.
        self.0 == other.0 || self.value() == other.value()
    }
}

impl Eq for PackedSpec {}

impl Serialize for PackedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PackedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_is_found_by_its_pointer_alone() {
        let spec = json!({"asn": 65001, "mtu": 1, "tunnel": {"mtu": 1420, "peer": {"ip": "::1"}}});
        let packed = PackedSpec::from(&spec);
        for pointer in [
            "/asn",
            "/mtu",
            "/tunnel",
            "/tunnel/mtu",
            "/tunnel/peer/ip",
            "/tunnel/asn",
            "/ip",
            "/asn/mtu",
        ] {
            assert_eq!(
                packed.at(pointer).as_ref(),
                spec.pointer(pointer),
                "{pointer}"
            );
        }
    }
}
