//! Edits by hand of the sync's documents: each becomes an override, and the document what it was.

use jiff::Timestamp;

use crate::document::{
    BgpSessionSpec, Document, IbgpPeerSpec, MaintenanceSpec, MeshPeerSpec, NodeSpec, OverrideSpec,
    RoutingPolicySpec, Spec, parse,
};

use super::inplace::{Change, Edit, edited_in_place};
use super::synced::without_mark;
use super::{Area, Place, Store, StoreError, read};

/// What became of an edit by hand.
#[derive(Debug, Clone, PartialEq)]
pub enum Absorbed {
    /// The edit is an override now, and the document is as the sync left it.
    Overridden(Box<OverrideSpec>),
    /// The document is as the sync left it; there was nothing to keep.
    Restored,
    /// The document is the operator's own from now on.
    TakenOver,
    /// The document is the sync's again.
    GivenBack,
}

impl Store {
    /// Turns an edit by hand into an override and puts the document back as the sync left it. The
    /// override is written first, so that a crash in between loses nothing.
    ///
    /// # Errors
    /// When the override that is there is invalid, or a file cannot be written; the edit stays.
    pub fn absorb(&self, edit: &Edit, now: Timestamp) -> Result<Absorbed, StoreError> {
        let _one_at_a_time = self.caches();
        drop(self.writable_tree()?);
        match edit.change {
            Change::TakenOver => {
                return self
                    .mark_copy(&edit.place, true)
                    .map(|()| Absorbed::TakenOver);
            }
            Change::GivenBack => {
                return self
                    .mark_copy(&edit.place, false)
                    .map(|()| Absorbed::GivenBack);
            }
            Change::Deleted | Change::Edited { .. } => {}
        }
        let mut absorbed = Absorbed::Restored;
        if let Change::Edited {
            last, now: edited, ..
        } = &edit.change
        {
            let place = edit.place.within(Area::Overrides);
            let existing = self.override_in_force(&place, now)?;
            if let Some(spec) = edited_in_place(last, edited, existing.as_ref()) {
                let document = Document::new(place.name.clone(), None, 0, spec);
                self.write_override_locked(&place, &document)?;
                absorbed = Absorbed::Overridden(Box::new(document.spec));
            }
        }
        self.restore(edit)?;
        Ok(absorbed)
    }

    /// Puts a document back as the sync left it, without keeping its present content: Git restored an older version.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_back(&self, edit: &Edit) -> Result<Absorbed, StoreError> {
        let _one_at_a_time = self.caches();
        drop(self.writable_tree()?);
        self.restore(edit).map(|()| Absorbed::Restored)
    }

    fn override_in_force(
        &self,
        place: &Place,
        now: Timestamp,
    ) -> Result<Option<OverrideSpec>, StoreError> {
        let path = self.path(place);
        let Some(text) = read::text(&path)? else {
            return Ok(None);
        };
        let document = parse::<OverrideSpec>(&text.text).map_err(|error| error.in_file(&path))?;
        Ok(Some(document.spec).filter(|spec| spec.in_force(now)))
    }

    /// Puts a document back, unless it changed again since the edit was found.
    fn restore(&self, edit: &Edit) -> Result<(), StoreError> {
        let path = self.path(&edit.place);
        let Some(synced) = read::text(&self.synced_path(&edit.place))? else {
            return Ok(());
        };
        match (&edit.change, read::text(&path)?) {
            // An editor that renames the old file away is about to write a new one, and goes first.
            (Change::Deleted, None) => return self.create(&path, without_mark(&synced.text)),
            (Change::Edited { now, .. }, Some(current)) if same_spec(&current.text, now) => {}
            _ => return Ok(()),
        }
        self.put(&path, without_mark(&synced.text))
    }
}

/// Whether a document's specification is this one. Compared as parsed: defaults may be written or not.
fn same_spec(text: &str, spec: &serde_json::Value) -> bool {
    fn of<S: Spec>(text: &str) -> Option<serde_json::Value> {
        serde_json::to_value(parse::<S>(text).ok()?.spec).ok()
    }
    let readings = [
        of::<BgpSessionSpec>,
        of::<MeshPeerSpec>,
        of::<IbgpPeerSpec>,
        of::<NodeSpec>,
        of::<RoutingPolicySpec>,
        of::<MaintenanceSpec>,
    ];
    readings
        .into_iter()
        .find_map(|read| read(text))
        .is_some_and(|found| found == *spec)
}
