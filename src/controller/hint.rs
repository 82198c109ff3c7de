use crate::model::{InterfaceName, ObjectKey};

/// A hint about a possible change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The changed object is unknown; reconcile everything.
    Everything,
    Key(ObjectKey),
    /// This link of an object changed, and nothing else is known to have changed.
    Link(ObjectKey, InterfaceName),
}
