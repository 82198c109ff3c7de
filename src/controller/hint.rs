use std::collections::BTreeSet;

use crate::model::{InterfaceName, ObjectKey};

/// A hint about a possible change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The changed object is unknown; reconcile everything.
    Everything,
    /// These may have changed together, and share a pass.
    Keys(BTreeSet<ObjectKey>),
    /// This link of an object changed, and nothing else is known to have changed.
    Link(ObjectKey, InterfaceName),
}

impl Hint {
    /// Returns the hint that this object may have changed.
    pub fn key(key: ObjectKey) -> Self {
        Self::Keys([key].into())
    }
}
