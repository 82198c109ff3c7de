use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::read::kind;
use super::super::{WireError, body};

/// The last segment of the path that answers when one of a router's lists has changed.
pub const REVISION: &str = "revision";

/// The header with which a Control Plane offers [`REVISION`]: the longest wait in seconds.
pub const LONG_POLL: &str = "moenet-long-poll";

/// The header with which a Control Plane names the content of a list; heartbeats name it when it is taken over.
pub const LIST: &str = "moenet-list";

/// The revision of all lists of a router. Another text means that a list may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Revision {
    /// Sent back with the next request.
    pub revision: String,
}

/// Reads the answer.
///
/// # Errors
/// The body has no revision.
pub fn decode_revision(body: &[u8]) -> Result<String, WireError> {
    let found = match body::parse(body)? {
        Value::Object(mut map) => map.remove(REVISION),
        other => {
            return Err(WireError::NotAnObject {
                found: kind(&other),
                key: REVISION,
            });
        }
    };
    match found {
        Some(Value::String(revision)) => Ok(revision),
        Some(other) => Err(WireError::WrongType {
            key: REVISION,
            found: kind(&other),
            wanted: "a string",
        }),
        None => Err(WireError::Missing { key: REVISION }),
    }
}
