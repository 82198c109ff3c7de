//! A field that a type does not accept: the error of reading a value.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::reason::{Reason, Wanted};
use crate::model::without_keys;

/// A field that a type does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The keys and indices that lead to the field.
    pub(crate) path: Vec<String>,
    /// The same path as text, such as `tunnel.mtu` or `peers[2].asn`; empty for the value as a whole.
    name: String,
    pub(crate) reason: Reason,
}

impl Fault {
    /// Returns the field below `root`, such as `spec.tunnel.mtu`.
    pub(crate) fn field(&self, root: &str) -> String {
        below(root, &self.name)
    }

    /// Returns the path of the value whose replacement removes the fault.
    pub(crate) fn repaired_path(&self) -> Vec<String> {
        let missing = match self.reason {
            Reason::Missing(field) => Some(field.to_owned()),
            _ => None,
        };
        // An empty `reason:` counts as missing, and its path has it already.
        let missing = missing.filter(|field| self.path.last() != Some(field));
        self.path.iter().cloned().chain(missing).collect()
    }

    /// Returns the same fault seen from the mapping that has the value at this key.
    pub(super) fn at_key(mut self, key: &str) -> Self {
        self.name = below(key, &self.name);
        self.path.insert(0, key.to_owned());
        self
    }

    /// Returns the same fault seen from the list that has the value at this index.
    pub(super) fn at_index(mut self, index: usize) -> Self {
        self.name = below(&format!("[{index}]"), &self.name);
        self.path.insert(0, index.to_string());
        self
    }
}

fn below(root: &str, name: &str) -> String {
    match (root, name) {
        (root, "") => root.to_owned(),
        ("", name) => name.to_owned(),
        (root, name) if name.starts_with('[') => format!("{root}{name}"),
        (root, name) => format!("{root}.{name}"),
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self {
            path: Vec::new(),
            name: String::new(),
            reason,
        }
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            self.field("spec"),
            without_keys(&self.reason.to_string())
        )
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Reason::Rule(text.to_string()).into()
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let wanted = Wanted::Other(wanted.to_string());
        let found = found.into();
        Reason::Type { wanted, found }.into()
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_type(found, wanted)
    }

    fn unknown_variant(word: &str, known: &'static [&'static str]) -> Self {
        let word = word.to_owned();
        Reason::UnknownWord { word, known }.into()
    }

    fn missing_field(field: &'static str) -> Self {
        Reason::Missing(field).into()
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let field = field.to_owned();
        Reason::UnknownField { field, known }.into()
    }
}
