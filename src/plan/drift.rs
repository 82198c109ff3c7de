use std::fmt;

/// The reason of a step: the field, its wanted and its observed value. Secrets show as "changed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The field that differs, as `tunnel.mtu`.
    pub field: &'static str,
    pub want: String,
    /// The observed value.
    pub have: String,
}

impl Drift {
    /// Creates a drift between two values that can be shown.
    pub fn new(field: &'static str, want: impl fmt::Display, have: impl fmt::Display) -> Self {
        Self {
            field,
            want: want.to_string(),
            have: have.to_string(),
        }
    }

    /// Creates a drift of a missing object.
    pub fn missing(field: &'static str, want: impl fmt::Display) -> Self {
        Self::new(field, want, "(none)")
    }

    /// Creates a drift of an object that must not exist.
    pub fn surplus(field: &'static str, have: impl fmt::Display) -> Self {
        Self::new(field, "(none)", have)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: want {}, have {}", self.field, self.want, self.have)
    }
}
