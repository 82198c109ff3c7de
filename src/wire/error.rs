use crate::model::shown;

/// The reason why a body is no valid answer. The agent never reads it as an empty list
/// (docs/contract/control-plane.md#complete-lists).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the body is empty; check proxies between the agent and the Control Plane")]
    Empty,
    #[error("the body ends early, after {bytes} bytes; a proxy may have cut it")]
    Truncated {
        /// Number of bytes received.
        bytes: usize,
    },
    /// The body is an HTML page.
    #[error(
        "the body is HTML, not JSON: controlPlane.url may point at a web page, a login or a proxy's error"
    )]
    Html,
    #[error("the body is not JSON (line {line}, column {column}); check controlPlane.url")]
    NotJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// The body is JSON, but not an object.
    #[error("the body is {found}, not an object with `{key}`; nothing is changed")]
    NotAnObject {
        /// Its type: "null", "an array".
        found: &'static str,
        key: &'static str,
    },
    /// The Control Plane reports a failure.
    #[error("the Control Plane answered with an error: {}{}", shown(.error), .code.as_deref().map(|c| format!(" ({})", shown(c))).unwrap_or_default())]
    Envelope {
        error: String,
        /// Its code, such as `MAINTENANCE_MODE`.
        code: Option<String>,
    },
    /// The expected key is missing.
    #[error("the body has no `{key}`: another envelope, or another dialect; nothing is changed")]
    Missing { key: &'static str },
    /// The expected key has a value of another type.
    #[error("`{key}` is {found}, not {wanted}; nothing is changed")]
    WrongType {
        key: &'static str,
        /// The type of its value.
        found: &'static str,
        /// The expected type.
        wanted: &'static str,
    },
    /// The body has more entries than any router needs.
    #[error("the body holds more than {most} {what}, which no router has; nothing is changed")]
    TooMany {
        /// The type of the entries: "values", "sessions".
        what: &'static str,
        most: usize,
    },
    /// A field breaks a rule.
    #[error("{field}: {message}")]
    Field {
        /// The field, as the wire names it: `policy.dn42Ipv4Prefix`.
        field: String,
        message: String,
    },
}

impl WireError {
    /// Identifies the error without the words and numbers of the body, which may change with every answer.
    pub fn cause(&self) -> String {
        match self {
            Self::Truncated { .. } => "truncated".to_owned(),
            Self::NotJson { .. } => "not JSON".to_owned(),
            Self::Envelope { code, .. } => format!("error {}", code.as_deref().unwrap_or_default()),
            Self::Field { field, .. } => field.clone(),
            other => other.to_string(),
        }
    }

    /// Returns the field of the error; an empty one when the error is about the body as a whole.
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

/// An invalid field, and its error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field, as the wire names it: `credential.publicKey`.
    pub field: String,
    /// The rule that it breaks.
    pub message: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }

    /// Returns the error with the path of the object that has the field.
    pub(super) fn below(self, place: &str) -> Self {
        let parts = [place, &self.field].into_iter();
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        Self::new(parts.join("."), self.message)
    }
}

impl From<FieldError> for WireError {
    fn from(error: FieldError) -> Self {
        Self::Field {
            field: error.field,
            message: error.message,
        }
    }
}
