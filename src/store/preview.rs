//! A preview of the state directory after the import of manual edits as overrides; writes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::cache::Stored;
use super::manual_edit::{Change, Edit, edited_in_place};
use super::{Area, Place, SYNCED, Snapshot, Store, StoreError, read};
use crate::document::{Document, Kind, OverrideSpec, to_yaml};
use crate::util::file::Stamp;

impl Snapshot {
    /// Adds an override, as if its file existed.
    pub fn set_override(&mut self, kind: Kind, document: Document<OverrideSpec>) {
        let key = (kind, document.metadata.name.clone());
        let path = Place::new(Area::Overrides, kind, &key.1).relative();
        // The lines of errors are those of the file that would be written.
        let text = to_yaml(&document).unwrap_or_default();
        let stored = Stored {
            document: document.into(),
            hash: read::hash(&text),
            path,
            owner: 0,
            text: text.into(),
        };
        self.overrides.insert(key, Ok(Arc::new(stored)));
    }

    /// Adds or replaces a document, as if its file had this text; `None` when the text is invalid.
    pub(crate) fn set_document(&mut self, place: &Place, path: PathBuf, text: &str) -> Option<()> {
        let text = read::Text {
            text: text.to_owned(),
            hash: read::hash(text),
            stamp: Stamp::default(),
            owner: 0,
        };
        self.put(place, path, text)
    }
}

impl Store {
    /// Returns the result of [`Store::load`] after [`Store::import_edit`] of every edit that can be imported.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_settled(&self, now: Timestamp) -> Result<Snapshot, StoreError> {
        let mut snapshot = Arc::unwrap_or_clone(self.load()?);
        for edit in std::mem::take(&mut snapshot.edits) {
            if self.settle_edit(&mut snapshot, &edit, now).is_none() {
                snapshot.edits.push(edit);
            }
        }
        Ok(snapshot)
    }

    /// `None`: the edit cannot be imported, and stays.
    fn settle_edit(&self, snapshot: &mut Snapshot, edit: &Edit, now: Timestamp) -> Option<()> {
        let place = &edit.place;
        if matches!(edit.change, Change::TakenOver | Change::GivenBack) {
            return Some(());
        }
        if let Change::Edited {
            last, now: edited, ..
        } = &edit.change
        {
            let key = (place.kind, place.name.clone());
            let existing = match snapshot.overrides.get(&key) {
                None => None,
                Some(Ok(stored)) => Some(&stored.document.spec).filter(|spec| spec.in_effect(now)),
                Some(Err(_)) => return None,
            };
            if let Some(spec) = edited_in_place(last, edited, existing) {
                snapshot.set_override(place.kind, Document::new(place.name.clone(), None, 0, spec));
            }
        }
        if place.kind == Kind::Maintenance {
            return None;
        }
        let copy = self.dir.join(SYNCED).join(place.relative());
        snapshot.put(place, self.path(place), read::text(&copy).ok()??)
    }
}
