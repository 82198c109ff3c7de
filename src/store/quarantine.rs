//! Quarantine of invalid files in the place of a synced document: an operator's unfinished edit, or
//! a file that a full disk truncated. When the Control Plane removes the object, such a file is
//! renamed instead of deleted.

use std::path::Path;

use crate::document::{DocumentError, Kind, Spec, parse, parse_value, with_spec};

use super::synced::is_taken_over;
use super::{Place, Store, StoreError, read};
use crate::util::file::quarantine;
use crate::util::fs;

impl Store {
    /// Quarantines an invalid file in the place of a synced document. `false`: there is no such
    /// file, or it is unknown whether it belonged to the sync.
    pub(super) fn set_aside(&self, place: &Place) -> Result<bool, StoreError> {
        let copy = read::text(&self.synced_path(place)).ok().flatten();
        if copy.is_none_or(|copy| is_taken_over(&copy.text)) {
            return Ok(false);
        }
        let path = self.path(place);
        let mut moved = false;
        for path in ["yaml", "yml", "YAML", "YML", "json"].map(|end| path.with_extension(end)) {
            if fs::symlink_metadata(&path).is_err() {
                continue;
            }
            let text = read::text(&path)
                .ok()
                .flatten()
                .map(|read| read.text)
                .unwrap_or_default();
            let named_as_one = path.extension().is_some_and(|end| end == "yaml");
            if named_as_one && is_document(place, &text) || is_own(&text) {
                break;
            }
            self.move_aside(&path)?;
            moved = true;
        }
        Ok(moved)
    }

    fn move_aside(&self, path: &Path) -> Result<(), StoreError> {
        let why = "invalid file in place of a document that the Control Plane removed";
        let moved = self.as_own(path, None, || quarantine(path, why));
        moved.map_err(StoreError::io("quarantine", path))?;
        self.count(1);
        Ok(())
    }
}

/// Returns whether a text is the document of this place.
fn is_document(place: &Place, text: &str) -> bool {
    fn is<S: Spec>(place: &Place, text: &str) -> bool {
        parse::<S>(text)
            .is_ok_and(|found| place.kind.is_single() || found.metadata.name == place.name)
    }
    match place.kind {
        // The sync writes neither of these kinds.
        Kind::Maintenance | Kind::Override => true,
        kind => with_spec!(kind, S => is::<S>(place, text)),
    }
}

/// Returns whether a text, valid or not, is intended as an operator's own document.
pub(super) fn is_own(text: &str) -> bool {
    has_uid(text).is_ok_and(|has_uid| !has_uid)
}

/// Returns whether a document belongs to the sync.
pub(super) fn has_uid(text: &str) -> Result<bool, DocumentError> {
    #[derive(serde::Deserialize)]
    struct Head {
        metadata: Identity,
    }
    #[derive(serde::Deserialize)]
    struct Identity {
        uid: Option<String>,
    }
    parse_value::<Head>(text).map(|head| head.metadata.uid.is_some())
}
