//! Turns manual edits of the sync's documents into overrides, and restores the documents.

use jiff::Timestamp;

use crate::document::{Document, Kind, OverrideSpec, Spec, parse, with_spec};

use super::manual_edit::{Change, Edit, edited_in_place};
use super::synced::without_mark;
use super::{Area, Place, Store, StoreError, read};

/// Result of the import of a manual edit.
#[derive(Debug, Clone, PartialEq)]
pub enum ImportedEdit {
    /// The edit became an override, and the document is restored to the version of the sync.
    Overridden(Box<OverrideSpec>),
    /// The document is restored to the version of the sync; the edit had no difference to keep.
    Restored,
    /// The document now belongs to the operator.
    TakenOver,
    /// The document belongs to the sync again.
    GivenBack,
}

impl Store {
    /// Turns a manual edit into an override and restores the document to the version of the sync.
    /// Writes the override first, so that a crash in between loses nothing.
    ///
    /// # Errors
    /// The existing override is invalid, or a file cannot be written; the edit stays.
    pub fn import_edit(&self, edit: &Edit, now: Timestamp) -> Result<ImportedEdit, StoreError> {
        let _one_at_a_time = self.tree_turn()?;
        match edit.change {
            Change::TakenOver => {
                return self
                    .mark_copy(&edit.place, true)
                    .map(|()| ImportedEdit::TakenOver);
            }
            Change::GivenBack => {
                return self
                    .mark_copy(&edit.place, false)
                    .map(|()| ImportedEdit::GivenBack);
            }
            Change::Deleted | Change::Edited { .. } => {}
        }
        let mut imported = ImportedEdit::Restored;
        if let Change::Edited {
            last, now: edited, ..
        } = &edit.change
        {
            let place = edit.place.within(Area::Overrides);
            let existing = self.override_in_effect(&place, now)?;
            if let Some(spec) = edited_in_place(last, edited, existing.as_ref()) {
                let document = Document::new(place.name.clone(), None, 0, spec);
                self.write_override_locked(&place, &document)?;
                imported = ImportedEdit::Overridden(Box::new(document.spec));
            }
        }
        self.restore(edit)?;
        Ok(imported)
    }

    /// Restores a document to the version of the sync and drops its current content: Git restored an older version.
    ///
    /// # Errors
    /// The document cannot be written.
    pub fn put_back(&self, edit: &Edit) -> Result<ImportedEdit, StoreError> {
        let _one_at_a_time = self.tree_turn()?;
        self.restore(edit).map(|()| ImportedEdit::Restored)
    }

    fn override_in_effect(
        &self,
        place: &Place,
        now: Timestamp,
    ) -> Result<Option<OverrideSpec>, StoreError> {
        let path = self.path(place);
        let Some(text) = read::text(&path)? else {
            return Ok(None);
        };
        let document = parse::<OverrideSpec>(&text.text).map_err(|error| error.in_file(&path))?;
        Ok(Some(document.spec).filter(|spec| spec.in_effect(now)))
    }

    /// Restores a document, unless it changed again since the edit was found.
    fn restore(&self, edit: &Edit) -> Result<(), StoreError> {
        let path = self.path(&edit.place);
        let Some(synced) = read::text(&self.synced_path(&edit.place))? else {
            return Ok(());
        };
        match (&edit.change, read::text(&path)?) {
            // An editor that renames the old file writes a new one next, which has priority.
            (Change::Deleted, None) => return self.create(&path, without_mark(&synced.text)),
            (Change::Edited { now, .. }, Some(current))
                if same_spec(edit.place.kind, &current.text, now) => {}
            _ => return Ok(()),
        }
        self.put(&path, without_mark(&synced.text))
    }
}

/// Returns whether a document of this kind has this specification. Compares parsed values: defaults may be written or not.
fn same_spec(kind: Kind, text: &str, spec: &serde_json::Value) -> bool {
    fn of<S: Spec>(text: &str) -> Option<serde_json::Value> {
        serde_json::to_value(parse::<S>(text).ok()?.spec).ok()
    }
    with_spec!(kind, S => of::<S>(text)).is_some_and(|found| found == *spec)
}
