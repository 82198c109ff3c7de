//! Reads fields of an object leniently where the meaning is clear (docs/contract/control-plane.md#leniency): a
//! number given as a text, `null` for an optional field. Every error names the field as the wire does.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::FieldError;
use crate::model::{Invalid, shown};

pub(super) type Read<T> = Result<T, FieldError>;

/// An object, and its path in the body.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    prefix: String,
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>) -> Self {
        Self {
            map,
            prefix: String::new(),
        }
    }

    /// Returns the object of this key; its field names are prefixed with the key.
    pub(super) fn object(&self, key: &str) -> Read<Option<Fields<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self {
                map,
                prefix: format!("{}.", self.path(key)),
            })),
            Some(other) => Err(self.wrong(key, format!("must be an object, not {}", kind(other)))),
        }
    }

    pub(super) fn array(&self, key: &str) -> Read<Option<&'a Vec<Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(key, format!("must be an array, not {}", kind(other)))),
        }
    }

    /// Returns the value of a key; `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn wrong(&self, key: &str, message: impl Into<String>) -> FieldError {
        FieldError {
            field: self.path(key),
            message: message.into(),
        }
    }

    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Read<T> {
        value.ok_or_else(|| self.wrong(key, "is required, and missing or null"))
    }

    /// Returns a text. A number is refused: `asn`, `dn42As`, `status` and `port` are read by [`Self::integer`], and
    /// in any other field a number may mean something else than its digits.
    pub(super) fn text(&self, key: &str) -> Read<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, format!("must be a text, not {}", kind(other)))),
        }
    }

    /// Returns a text, or `None` when it is blank: for texts that people write.
    pub(super) fn prose(&self, key: &str) -> Read<Option<String>> {
        Ok(self
            .text(key)?
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty()))
    }

    pub(super) fn parsed<T: FromStr<Err = Invalid>>(&self, key: &str) -> Read<Option<T>> {
        let parse = |text: String| {
            text.trim()
                .parse()
                .map_err(|Invalid(why)| self.wrong(key, why))
        };
        self.text(key)?.map(parse).transpose()
    }

    /// Returns a whole number, also from a text of digits.
    pub(super) fn integer(&self, key: &str) -> Read<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => whole(value).map(Some).ok_or_else(|| {
                let found = match value {
                    Value::String(text) => shown(text),
                    Value::Number(number) => number.to_string(),
                    other => kind(other).to_owned(),
                };
                self.wrong(key, format!("must be a whole number, not {found}"))
            }),
        }
    }

    pub(super) fn number<T: TryFrom<u64, Error = Invalid>>(&self, key: &str) -> Read<Option<T>> {
        let convert = |number| T::try_from(number).map_err(|Invalid(why)| self.wrong(key, why));
        self.integer(key)?.map(convert).transpose()
    }

    /// Returns a whole number from `min` to `max`.
    pub(super) fn within<T: TryFrom<u64>>(&self, key: &str, min: u64, max: u64) -> Read<Option<T>> {
        let check = |number: u64| {
            let inside = (min..=max)
                .contains(&number)
                .then_some(number)
                .and_then(|n| T::try_from(n).ok());
            inside.ok_or_else(|| self.wrong(key, format!("must be {min}..{max}, not {number}")))
        };
        self.integer(key)?.map(check).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Read<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" || text == "1" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" || text == "0" => Ok(Some(false)),
            Some(value) => match whole(value) {
                Some(number @ 0..=1) => Ok(Some(number == 1)),
                _ => Err(self.wrong(key, "must be true or false")),
            },
        }
    }

    /// Returns the IPv4 address of a host; a `/32` is dropped.
    pub(super) fn ipv4(&self, key: &str) -> Read<Option<Ipv4Addr>> {
        let parse = |text: String| {
            let bare = text.trim();
            let address = bare.strip_suffix("/32").unwrap_or(bare).parse::<Ipv4Addr>();
            address
                .ok()
                .filter(|a| {
                    !a.is_unspecified()
                        && !a.is_loopback()
                        && !a.is_multicast()
                        && !a.is_broadcast()
                })
                .ok_or_else(|| {
                    self.wrong(
                        key,
                        format!("must be the IPv4 address of a host, not {}", shown(&text)),
                    )
                })
        };
        self.text(key)?.map(parse).transpose()
    }

    /// Returns the IPv6 address of a host; a `/128` is dropped.
    pub(super) fn ipv6(&self, key: &str) -> Read<Option<Ipv6Addr>> {
        let parse = |text: String| {
            let bare = text.trim();
            let address = bare
                .strip_suffix("/128")
                .unwrap_or(bare)
                .parse::<Ipv6Addr>();
            address
                .ok()
                .filter(|a| !a.is_unspecified() && !a.is_loopback() && !a.is_multicast())
                .ok_or_else(|| {
                    self.wrong(
                        key,
                        format!("must be the IPv6 address of a host, not {}", shown(&text)),
                    )
                })
        };
        self.text(key)?.map(parse).transpose()
    }
}

/// Returns a whole number from any clear form: `7`, `"7"`, `7.0`, `1e3`.
pub(super) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            // Beyond 2^53 a float no longer represents each whole number exactly.
            let float = number
                .as_f64()
                .filter(|f| f.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(f));
            float.map(|f| f as u64)
        }),
        Value::String(text) => {
            let digits = text.trim();
            let only = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            only.then(|| digits.parse().ok()).flatten()
        }
        _ => None,
    }
}

/// Returns the type of a value, for an error.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_number_is_taken_in_every_clear_form() {
        for value in [
            json!(1420),
            json!("1420"),
            json!(" 1420 "),
            json!(1420.0),
            json!(1.42e3),
        ] {
            assert_eq!(whole(&value), Some(1420), "{value}");
        }
        let unclear = [
            json!(1420.5),
            json!(-1),
            json!(1e30),
            json!("1e3"),
            json!("+5"),
            json!("0x10"),
            json!(""),
            json!(true),
            json!([1]),
            json!("99999999999999999999"),
        ];
        for value in unclear {
            assert_eq!(whole(&value), None, "{value}");
        }
    }

    #[test]
    fn an_error_names_the_field_with_its_place() {
        let body = json!({"a": {"b": "x", "n": null}});
        let map = body.as_object().unwrap();
        let inner = Fields::new(map).object("a").unwrap().unwrap();
        assert_eq!(inner.integer("b").unwrap_err().field, "a.b");
        assert_eq!(inner.integer("n").unwrap(), None);
        assert_eq!(inner.ipv4("b").unwrap_err().field, "a.b");
    }

    #[test]
    fn number_is_no_text() {
        let body = json!({"interface": 7});
        let fields = Fields::new(body.as_object().unwrap());
        let error = fields.text("interface").unwrap_err();
        assert_eq!(error.field, "interface");
        assert!(error.message.contains("a text"), "{}", error.message);
    }
}
