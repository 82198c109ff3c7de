use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::model::{AdminState, ObjectName, Uid};
use crate::status::{Acceptance, Hold};
use crate::store::AppliedOverride;

/// One object: its wanted state, and whether its documents were accepted.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// The uid that marks the object's resources.
    pub uid: Uid,
    /// The uid in the applied marks, if the Control Plane has given the object another uuid since.
    pub formerly: Option<Uid>,
    /// The generation of its document.
    pub generation: u64,
    /// The intent for the object.
    pub intent: Intent<T>,
    /// The administrative state.
    pub admin_state: AdminState,
    /// Whether its documents were accepted.
    pub acceptance: Acceptance,
    /// The further errors of documents that were not accepted.
    pub further: Vec<String>,
    /// An address clash in which the applied address is older: it stays.
    pub remark: Option<String>,
    /// The whole specification, defaults filled in; the content of `applied/` after the apply.
    pub spec: Option<serde_json::Value>,
    /// Fields that an override changes, each with the document's value.
    pub overridden: BTreeMap<String, serde_json::Value>,
    /// The override's reason.
    pub reason: Option<String>,
    /// Time at which the override ends.
    pub expires_at: Option<Timestamp>,
    /// The reason why the object is paused: the agent observes and plans, and writes nothing.
    pub paused: Option<String>,
    /// Why its removal does not happen now, if no document wants it.
    pub held: Option<Hold>,
    /// Whether an override exists that cannot be read: a paused object stays paused.
    pub exception_unreadable: bool,
    /// Whether a document exists.
    pub documented: bool,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
}

/// The intent for an object.
#[derive(Clone)]
pub enum Intent<T> {
    /// The object is wanted.
    Present(
        Box<T>,
        /** The text for BIRD; `None` for an object without one of its own, and while it cannot be rendered: then
        BIRD's file stays as it is. */
        Option<String>,
    ),
    /// The object must be removed.
    Absent,
    /// The applied state stays.
    Stay,
}

/// Omits the text, which may contain a password.
impl<T: fmt::Debug> fmt::Debug for Intent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(object, _) => f
                .debug_tuple("Present")
                .field(object)
                .finish_non_exhaustive(),
            Self::Absent => f.write_str("Absent"),
            Self::Stay => f.write_str("Stay"),
        }
    }
}

impl<T> Entry<T> {
    /// Returns the override that applies to the object, for the applied record.
    pub(crate) fn exception(&self) -> Option<AppliedOverride> {
        let fields = self.overridden.keys().cloned().collect();
        self.reason.clone().map(|reason| AppliedOverride {
            reason,
            expires_at: self.expires_at,
            fields,
        })
    }

    /// Returns the reason why nothing is written. An unreadable override may be the one that pauses the object, so
    /// a paused object stays paused until a readable override ends the pause.
    pub(crate) fn hands_off(&self, paused: bool) -> Option<String> {
        let doubtful = paused && self.exception_unreadable;
        self.paused
            .clone()
            .or_else(|| doubtful.then(|| "its override cannot be read".to_owned()))
    }
}

/// Returns the wanted objects.
pub(crate) fn present<T>(entries: &BTreeMap<ObjectName, Entry<T>>) -> impl Iterator<Item = &T> {
    entries.values().filter_map(|entry| match &entry.intent {
        Intent::Present(object, _) => Some(object.as_ref()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_shows_no_text_for_bird() {
        let shown = format!(
            "{:?}",
            Intent::Present(Box::new(1), Some("password \"hunter2\";".to_owned()))
        );
        assert!(
            shown.contains("Present(1") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
