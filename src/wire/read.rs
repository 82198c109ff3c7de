//! Reads values of a body as types, leniently where the meaning is clear (docs/contract/control-plane.md#leniency).
//! Every error names the field as the wire does, and shows no text in place of another type: it may be a secret.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FieldError;
use crate::document::{self, Fault, Reason, Scalars, Wanted};
use crate::model::shown;

pub(super) type Read<T> = Result<T, FieldError>;

/// Reads a value as a type. The error has an empty field if it is about the value as a whole.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Read<T> {
    document::read(value, Scalars::Lenient).map_err(|fault| field_error(value, &fault))
}

/// Reads a value as a type without the fields that break a rule, and returns their errors. `None`: a field that is
/// required, or the value as a whole, breaks one.
pub(super) fn read_rest<T: DeserializeOwned>(value: &Value) -> (Option<T>, Vec<FieldError>) {
    let (read, faults) = document::read_rest(value, &Value::Null, Scalars::Lenient);
    let errors = faults.iter().map(|fault| field_error(value, fault));
    (read, errors.collect())
}

/// Reads a field of a value, if it has a valid one.
pub(super) fn field<T: DeserializeOwned>(value: &Value, key: &str) -> Option<T> {
    read(value.get(key)?).ok()
}

/// Returns the value of a field, else that of another field with the same meaning.
pub(super) fn or<T: DeserializeOwned>(
    first: Option<T>,
    key: &str,
    other: Option<&Value>,
) -> Read<Option<T>> {
    match (first, other) {
        (None, Some(value)) => read(value).map_err(|error| error.below(key)),
        (first, _) => Ok(first),
    }
}

pub(super) fn required<T>(key: &str, value: Option<T>) -> Read<T> {
    value.ok_or_else(|| FieldError::new(key, "is required, and missing or null"))
}

/// Returns a text that people write, or `None` when it is blank.
pub(super) fn prose(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Length limit of a text that people read, in characters.
pub(super) const PROSE_MAX: usize = 1000;

/// Returns the start of a text, which is the whole text if it is short enough.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(PROSE_MAX).collect()
}

fn field_error(value: &Value, fault: &Fault) -> FieldError {
    let path = fault.repaired_path();
    let found = path.iter().try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        value => value.get(key),
    });
    let message = match (&fault.reason, found) {
        (Reason::Type { .. }, None | Some(Value::Null)) | (Reason::Missing(_), _) => {
            "is required, and missing or null".to_owned()
        }
        (Reason::Type { wanted, .. }, Some(found)) => match (wanted, found) {
            (Wanted::Boolean, _) => "must be true or false".to_owned(),
            (Wanted::Whole, Value::String(text)) => {
                format!("must be a whole number, not {}", shown(text))
            }
            (Wanted::Whole, Value::Number(number)) => {
                format!("must be a whole number, not {number}")
            }
            (Wanted::Whole, other) => format!("must be a whole number, not {}", kind(other)),
            (Wanted::Mapping, other) => format!("must be an object, not {}", kind(other)),
            (Wanted::List, other) => format!("must be an array, not {}", kind(other)),
            (_, other) => format!("must be a text, not {}", kind(other)),
        },
        (reason, _) => reason.to_string(),
    };
    FieldError::new(path.join("."), message)
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
