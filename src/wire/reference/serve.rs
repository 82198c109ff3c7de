//! Implements the server side of the dialect for the embedded Control Plane.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::FieldError;
use super::super::read::{cut, field, kind};
use super::{DrainWish, Heartbeat, Report, SessionReport, WireStatus};
use crate::model::{Asn, Uid};
use crate::wire::body::parse;
use crate::wire::{Call, Modify, WireError};

/// Reads a `POST modify`, with the start of a long error.
///
/// # Errors
/// Not a JSON object, or a field is missing or breaks a rule.
pub fn decode_modify(body: &[u8]) -> Result<Modify, WireError> {
    let modify: Modify = post(&Value::Object(object(body, "uuid")?))?;
    let error = modify.error.map(|text| cut(text.trim()));
    Ok(Modify {
        error: error.filter(|text| !text.is_empty()),
        ..modify
    })
}

/// Reads a `POST drain`.
///
/// # Errors
/// As [`decode_modify`].
pub fn decode_drain(body: &[u8]) -> Result<DrainWish, WireError> {
    Ok(post(&Value::Object(object(body, "force")?))?)
}

/// Checks a `POST heartbeat` and returns it unchanged but for the cut of a long version, unknown fields included.
///
/// # Errors
/// As [`decode_modify`].
pub fn check_heartbeat(body: &[u8]) -> Result<Value, WireError> {
    let mut heartbeat = object(body, "version")?;
    if let Some(Value::String(version)) = heartbeat.get_mut("version") {
        *version = cut(version);
    }
    let value = Value::Object(heartbeat);
    post::<Heartbeat>(&value)?;
    Ok(value)
}

/// Checks a `POST report`, and returns it with the problems of items that break a rule. These items are left out; everything else
/// is unchanged, unknown fields included.
///
/// # Errors
/// Not a JSON object, or `sessions` is no list.
pub fn check_report(body: &[u8]) -> Result<(Value, Vec<FieldError>), WireError> {
    let mut report = object(body, "sessions")?;
    let mut rejected = Vec::new();
    if let Some(Value::Array(items)) = report.get_mut("sessions") {
        let mut place = 0..;
        items.retain(|item| {
            let of = format!("sessions[{}]", place.next().unwrap_or_default());
            let read = read::<SessionReport>(item);
            let error = read.map_err(|(path, message)| FieldError {
                field: [of].into_iter().chain(path).collect::<Vec<_>>().join("."),
                message,
            });
            error.map_err(|error| rejected.push(error)).is_ok()
        });
    }
    let value = Value::Object(report);
    post::<Report>(&value)?;
    Ok((value, rejected))
}

/// Reads a post with the type that agents write.
fn post<T: DeserializeOwned>(body: &Value) -> Result<T, FieldError> {
    read(body).map_err(|(path, message)| FieldError {
        field: path.unwrap_or_else(|| "body".to_owned()),
        message,
    })
}

/// Reads a value; its error has the path of the field, if it is about one.
fn read<T: DeserializeOwned>(value: &Value) -> Result<T, (Option<String>, String)> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        (
            (path != ".").then_some(path),
            error.into_inner().to_string(),
        )
    })
}

fn object(body: &[u8], key: &'static str) -> Result<Map<String, Value>, WireError> {
    match parse(body)? {
        Value::Object(map) => Ok(map),
        other => Err(WireError::NotAnObject {
            found: kind(&other),
            key,
        }),
    }
}

/// Returns the main key of an answer, and whether its value is an array.
pub fn answer_key(call: Call) -> Option<(&'static str, bool)> {
    match call {
        Call::Sessions => Some(("sessions", true)),
        Call::Mesh => Some(("peers", true)),
        Call::Config => Some(("node", false)),
        Call::BirdConfig => Some(("policy", false)),
        Call::Heartbeat | Call::Report | Call::Modify | Call::Drain => None,
    }
}

/// The key of the hash in `GET bird-config`.
pub const CONFIG_HASH: &str = "configHash";

/// Returns the identity of a session in a list.
pub fn identity(item: &Value) -> Option<Uid> {
    field(item, "uuid")
}

/// Returns the status of a session in a list.
pub fn written_status(item: &Value) -> Option<WireStatus> {
    field(item, "status")
}

/// Returns the AS number of a session in a list.
pub fn written_asn(item: &Value) -> Option<Asn> {
    field(item, "asn")
}

/// Writes a status, and its error, into a session of a list.
pub fn write_status(item: &mut Value, status: WireStatus, error: Option<&str>) {
    if let Value::Object(map) = item {
        map.insert("status".into(), status.number().into());
        map.insert("error".into(), error.map_or(Value::Null, Value::from));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::read::PROSE_MAX;
    use super::*;

    #[test]
    fn lists_of_another_type_cost_no_heartbeat() {
        for lists in ["5", "null", "[]", r#"{"sessions": 1}"#] {
            let body = format!(r#"{{"version": "1", "uptime": 1, "lists": {lists}}}"#);
            assert!(check_heartbeat(body.as_bytes()).is_ok(), "{lists}");
        }
    }

    #[test]
    fn long_texts_of_a_post_are_cut_and_not_refused() {
        let long = "ž".repeat(PROSE_MAX + 1);
        let body = json!({"uuid": "uid-1", "status": 2, "error": format!(" {long}")});
        let error = decode_modify(body.to_string().as_bytes()).unwrap().error;
        assert_eq!(error.unwrap().chars().count(), PROSE_MAX);
        let body = json!({"version": long, "uptime": 1, "other": long});
        let heartbeat = check_heartbeat(body.to_string().as_bytes()).unwrap();
        let version = heartbeat["version"].as_str().unwrap();
        assert_eq!(version.chars().count(), PROSE_MAX);
        assert_eq!(heartbeat["other"], body["other"]);
    }

    #[test]
    fn post_of_too_many_values_is_refused_before_reading() {
        let body = format!("{{\"version\": [{}1]}}", "1,".repeat(600_000));
        for error in [
            check_heartbeat(body.as_bytes()).unwrap_err(),
            check_report(body.as_bytes()).unwrap_err(),
        ] {
            assert!(matches!(error, WireError::TooMany { .. }), "{error}");
        }
    }
}
