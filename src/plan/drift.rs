use std::fmt;

use serde::Serialize;

/// The reason of a step: the field, its wanted and its observed value. Secrets show as "changed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The field that differs, as `tunnel.mtu`.
    pub field: &'static str,
    pub want: String,
    /// The observed value.
    pub have: String,
    /// The drifts of a step that corrects several.
    pub(super) parts: Vec<Drift>,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// It does not exist yet.
    Add,
    Change,
    /// It must not exist.
    Remove,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Change => "~",
            Self::Remove => "-",
        })
    }
}

/// The text of a value that is absent.
const NONE: &str = "(none)";

impl Drift {
    /// Returns the kind of the change that corrects the drift.
    pub(crate) fn mark(&self) -> Mark {
        match (self.want.as_str(), self.have.as_str()) {
            (NONE, _) => Mark::Remove,
            (_, NONE) => Mark::Add,
            _ => Mark::Change,
        }
    }

    /// Creates a drift between two values that can be shown.
    pub fn new(field: &'static str, want: impl fmt::Display, have: impl fmt::Display) -> Self {
        Self {
            field,
            want: want.to_string(),
            have: have.to_string(),
            parts: Vec::new(),
        }
    }

    /// Creates the reason of a step that corrects several drifts; `None` without one.
    pub(crate) fn joined(field: &'static str, mut parts: Vec<Self>) -> Option<Self> {
        if parts.len() <= 1 {
            return parts.pop();
        }
        let inside = |drift: &Self| drift.field.rsplit('.').next().unwrap_or_default();
        let list = |value: fn(&Self) -> &str| {
            let each = parts.iter();
            let each: Vec<_> = each
                .map(|drift| format!("{} {}", inside(drift), value(drift)))
                .collect();
            each.join(", ")
        };
        let (want, have) = (list(|drift| &drift.want), list(|drift| &drift.have));
        Some(Self {
            parts,
            ..Self::new(field, want, have)
        })
    }

    /// Returns the drift of each field.
    pub fn each(&self) -> &[Self] {
        match self.parts.is_empty() {
            true => std::slice::from_ref(self),
            false => &self.parts,
        }
    }

    /// Creates a drift of a missing object.
    pub fn missing(field: &'static str, want: impl fmt::Display) -> Self {
        Self::new(field, want, NONE)
    }

    /// Creates a drift of an object that must not exist.
    pub fn surplus(field: &'static str, have: impl fmt::Display) -> Self {
        Self::new(field, NONE, have)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: want {}, have {}", self.field, self.want, self.have)
    }
}
