use crate::model::ObjectKey;

/// A hint about a possible change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The changed object is unknown; reconcile everything.
    Everything,
    Key(ObjectKey),
}
