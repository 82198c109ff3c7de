use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use crate::model::{AdminState, ObjectName, Uid};
use crate::status::Acceptance;
use crate::store::AppliedOverride;

/// One object: what is wanted of it, and how far its documents were accepted.
#[derive(Debug, Clone)]
pub struct Entry<T> {
    /// What marks what it owns.
    pub uid: Uid,
    /// What marked it as it is applied, where the Control Plane has given it another uuid since.
    pub formerly: Option<Uid>,
    /// The generation of its document.
    pub generation: u64,
    /// What is to be done about it.
    pub intent: Intent<T>,
    /// What the administrator wants of it.
    pub admin_state: AdminState,
    /// Whether its documents were accepted.
    pub acceptance: Acceptance,
    /// Everything else that is wrong with documents that were not accepted.
    pub further: Vec<String>,
    /// An address clash of which the applied address is the older side: it stays.
    pub remark: Option<String>,
    /// The whole specification, defaults filled in; what `applied/` will hold.
    pub spec: Option<serde_json::Value>,
    /// What an override changes, each with what the document says.
    pub overridden: BTreeMap<String, serde_json::Value>,
    /// The override's reason.
    pub reason: Option<String>,
    /// When the override ends.
    pub expires_at: Option<Timestamp>,
    /// Observe and plan, and write nothing: why.
    pub paused: Option<String>,
    /// The removal waits: why.
    pub held: Option<String>,
    /// Whether there is an override that cannot be read: what was paused stays so.
    pub exception_unreadable: bool,
    /// Whether there is a document.
    pub documented: bool,
    /// Whether the document is the operator's own.
    pub operator_owned: bool,
}

/// What is to be done about an object.
#[derive(Clone)]
pub enum Intent<T> {
    /// It is to be there.
    Present(
        Box<T>,
        /** The text for BIRD; `None` for an object without one of its own, and while it cannot be rendered: then
        BIRD's file stays as it is. */
        Option<String>,
    ),
    /// It is to be gone.
    Absent,
    /// Nothing: what is in force stays.
    Stay,
}

/// Without the text, which may hold a password.
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
    /// The override that shapes the object, for the record of what is in force.
    pub(crate) fn exception(&self) -> Option<AppliedOverride> {
        let fields = self.overridden.keys().cloned().collect();
        self.reason.clone().map(|reason| AppliedOverride {
            reason,
            expires_at: self.expires_at,
            fields,
        })
    }

    /// Why nothing is written. An override that cannot be read may be the one that says so, so what was
    /// `paused` stays so until it is known to be no longer.
    pub(crate) fn hands_off(&self, paused: bool) -> Option<String> {
        let doubtful = paused && self.exception_unreadable;
        self.paused
            .clone()
            .or_else(|| doubtful.then(|| "its override cannot be read".to_owned()))
    }
}

/// The objects that are to be there.
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
