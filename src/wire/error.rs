use super::FieldError;
use crate::model::shown;

/// Why a body is no answer. Never read as an empty list (docs/contract/control-plane.md#complete-lists).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Nothing at all.
    #[error("the body is empty; check what stands between here and the Control Plane")]
    Empty,
    /// The text ends in the middle.
    #[error("the body ends early, after {bytes} bytes; a proxy may have cut it")]
    Truncated {
        /// How much there was.
        bytes: usize,
    },
    /// A page for people.
    #[error(
        "the body is HTML, not JSON: controlPlane.url may point at a web page, a login or a proxy's error"
    )]
    Html,
    /// Not JSON.
    #[error("the body is not JSON (line {line}, column {column}); check controlPlane.url")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("the body is {found}, not an object with `{key}`; nothing is changed")]
    NotAnObject {
        /// What it is: "null", "an array".
        found: &'static str,
        /// The key that was wanted.
        key: &'static str,
    },
    /// The Control Plane says that it failed.
    #[error("the Control Plane answered with an error: {}{}", shown(.error), .code.as_deref().map(|c| format!(" ({})", shown(c))).unwrap_or_default())]
    Envelope {
        /// Its words.
        error: String,
        /// Its code, as `MAINTENANCE_MODE`.
        code: Option<String>,
    },
    /// The expected key is not there.
    #[error("the body has no `{key}`: another envelope, or another dialect; nothing is changed")]
    Missing {
        /// The key that was wanted.
        key: &'static str,
    },
    /// The expected key holds something else.
    #[error("`{key}` is {found}, not {wanted}; nothing is changed")]
    WrongType {
        /// The key.
        key: &'static str,
        /// What it holds.
        found: &'static str,
        /// What it should hold.
        wanted: &'static str,
    },
    /// More than any router has.
    #[error("the body holds more than {most} {what}, which no router has; nothing is changed")]
    TooMany {
        /// Of what: "values", "sessions".
        what: &'static str,
        /// How many are read.
        most: usize,
    },
    /// A field breaks a rule.
    #[error("{field}: {message}")]
    Field {
        /// The field as the wire names it: `policy.dn42Ipv4Prefix`.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl WireError {
    /// The field of the error; an empty one when it is about the body as a whole.
    pub fn into_field(self) -> FieldError {
        match self {
            Self::Field { field, message } => FieldError { field, message },
            other => FieldError {
                field: String::new(),
                message: other.to_string(),
            },
        }
    }
}
