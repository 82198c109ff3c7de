//! Parses bytes into the object that the caller expects, or returns the reason why it cannot.

use serde_json::{Map, Value};

use super::WireError;
use super::read::kind;

/// Largest number of items of a list that are read: ten times a large router.
const ITEMS_MAX: usize = 10_000;

/// Largest number of values of a body that are read. A value takes up to 50 times its text in memory, so a body
/// within the byte limit could otherwise take more memory than a router has.
const VALUES_MAX: usize = 500_000;

/// An error in the API's form: `{"error": "...", "code": "..."}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// The message for people.
    pub error: String,
    /// The code for programs, such as `SESSION_NOT_FOUND`.
    pub code: Option<String>,
}

/// Reads the error envelope of a failed call, if the body is one.
pub fn error_body(body: &[u8]) -> Option<ErrorBody> {
    match serde_json::from_slice(body).ok()? {
        Value::Object(map) => envelope(&map).or_else(|| {
            let code = map.get("code").and_then(Value::as_str)?.to_owned();
            Some(ErrorBody {
                error: String::new(),
                code: Some(code),
            })
        }),
        _ => None,
    }
}

/// Returns the error of an object with the key `error`, whatever its other keys.
fn envelope(map: &Map<String, Value>) -> Option<ErrorBody> {
    let error = match map.get("error")? {
        Value::Null | Value::Bool(false) => return None,
        Value::String(text) if text.is_empty() => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let code = map.get("code").and_then(Value::as_str).map(str::to_owned);
    Some(ErrorBody { error, code })
}

/// Returns the object of a successful answer, checked to contain `key` as an object or an array.
pub(super) fn open(
    body: &[u8],
    key: &'static str,
    array: bool,
) -> Result<Map<String, Value>, WireError> {
    let map = match parse(body)? {
        Value::Object(map) => map,
        other => {
            return Err(WireError::NotAnObject {
                found: kind(&other),
                key,
            });
        }
    };
    if let Some(ErrorBody { error, code }) = envelope(&map) {
        return Err(WireError::Envelope { error, code });
    }
    let wanted = if array { "an array" } else { "an object" };
    match map.get(key) {
        None => Err(WireError::Missing { key }),
        Some(Value::Array(items)) if array && items.len() > ITEMS_MAX => Err(WireError::TooMany {
            what: key,
            most: ITEMS_MAX,
        }),
        Some(value) if kind(value) == wanted => Ok(map),
        Some(other) => Err(WireError::WrongType {
            key,
            found: kind(other),
            wanted,
        }),
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Value, WireError> {
    let body = body
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii();
    match body.first() {
        None => return Err(WireError::Empty),
        Some(b'<') => return Err(WireError::Html),
        Some(_) => {}
    }
    // The count happens before parsing; commas in texts count too, which does no harm.
    if body
        .iter()
        .filter(|byte| matches!(byte, b',' | b'[' | b'{'))
        .count()
        > VALUES_MAX
    {
        return Err(WireError::TooMany {
            what: "values",
            most: VALUES_MAX,
        });
    }
    serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            WireError::Truncated { bytes: body.len() }
        } else {
            WireError::NotJson {
                line: error.line(),
                column: error.column(),
            }
        }
    })
}

/// Checks the answer to a post, whose status was 2xx. Its content does not matter, and it may be empty; but an HTML
/// page, or an error, acknowledges nothing.
pub(super) fn acknowledgement(body: &[u8]) -> Result<(), WireError> {
    match parse(body) {
        Ok(Value::Object(map)) => match envelope(&map) {
            Some(ErrorBody { error, code }) => Err(WireError::Envelope { error, code }),
            None => Ok(()),
        },
        Err(WireError::Html) => Err(WireError::Html),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> WireError {
        open(body, "sessions", true).unwrap_err()
    }

    #[test]
    fn body_without_list_is_an_error() {
        assert_eq!(refused(b""), WireError::Empty);
        assert_eq!(refused(b" \n"), WireError::Empty);
        assert_eq!(refused(b"{}"), WireError::Missing { key: "sessions" });
        assert_eq!(
            refused(b"null"),
            WireError::NotAnObject {
                found: "null",
                key: "sessions"
            }
        );
        assert_eq!(
            refused(b"[]"),
            WireError::NotAnObject {
                found: "an array",
                key: "sessions"
            }
        );
        assert_eq!(refused(b"<!DOCTYPE html><html>"), WireError::Html);
        assert_eq!(refused(b"\n <html>"), WireError::Html);
        assert_eq!(
            refused(br#"{"sessions": [{"uuid": "a"#),
            WireError::Truncated { bytes: 25 }
        );
        assert!(matches!(refused(b"OK"), WireError::NotJson { .. }));
        assert!(matches!(
            refused(br#"{"sessions":[]} trailing"#),
            WireError::NotJson { .. }
        ));
        assert!(matches!(
            refused(br#"{"sessions":null}"#),
            WireError::WrongType { found: "null", .. }
        ));
        assert!(matches!(
            refused(br#"{"sessions":{}}"#),
            WireError::WrongType {
                found: "an object",
                ..
            }
        ));
        assert_eq!(
            refused(br#"{"data":{"sessions":[]}}"#),
            WireError::Missing { key: "sessions" }
        );
    }

    #[test]
    fn oversized_body_is_rejected_before_reading() {
        let list =
            |item: &str, count| format!("{{\"sessions\":[{}]}}", vec![item; count].join(","));
        for item in ["1", "[]", "{}", "{\"a\":[[[]]]}"] {
            assert_eq!(
                refused(list(item, 600_000).as_bytes()),
                WireError::TooMany {
                    what: "values",
                    most: VALUES_MAX
                },
                "{item}"
            );
        }
        let items = refused(list("1", ITEMS_MAX + 1).as_bytes());
        assert_eq!(
            items,
            WireError::TooMany {
                what: "sessions",
                most: ITEMS_MAX
            }
        );
        assert!(open(list("1", ITEMS_MAX).as_bytes(), "sessions", true).is_ok());
    }

    #[test]
    fn deeply_nested_body_is_rejected_without_overflow() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = format!(
                "{{\"sessions\":{}1{}}}",
                open.repeat(100_000),
                close.repeat(100_000)
            );
            assert!(matches!(
                refused(nested.as_bytes()),
                WireError::NotJson { .. }
            ));
        }
    }

    #[test]
    fn error_envelope_with_status_200_is_an_error() {
        for body in [
            r#"{"error":"down for repair","code":"MAINTENANCE_MODE"}"#,
            r#"{"error":"down for repair","code":"MAINTENANCE_MODE","sessions":[]}"#,
        ] {
            let error = refused(body.as_bytes());
            assert!(matches!(error, WireError::Envelope { .. }), "{error}");
            assert!(error.to_string().contains("MAINTENANCE_MODE"));
        }
        assert!(open(br#"{"error":null,"sessions":[]}"#, "sessions", true).is_ok());
    }

    #[test]
    fn an_error_or_a_page_acknowledges_nothing() {
        for body in [
            "",
            "ok",
            "null",
            "{}",
            r#"{"status":"ok"}"#,
            r#"{"error":null}"#,
        ] {
            assert_eq!(acknowledgement(body.as_bytes()), Ok(()), "{body}");
        }
        for body in ["<html>", r#"{"error":"no","code":"X"}"#] {
            assert!(acknowledgement(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn an_error_body_is_read_with_and_without_its_text() {
        let body = error_body(br#"{"error":"no","code":"SESSION_NOT_FOUND"}"#).unwrap();
        assert_eq!(body.code.as_deref(), Some("SESSION_NOT_FOUND"));
        assert_eq!(error_body(br#"{"code":"X"}"#).unwrap().error, "");
        assert_eq!(error_body(b"<html>"), None);
        assert_eq!(error_body(b"[]"), None);
    }
}
