//! A preview of the state directory after the import of manual edits as overrides; writes nothing.

use std::sync::Arc;

use jiff::Timestamp;

use super::cache::Stored;
use super::inplace::{Change, Edit, edited_in_place};
use super::synced::SYNCED;
use super::{Area, Place, Slot, Snapshot, Store, StoreError, read};
use crate::document::{Document, Kind, OverrideSpec, Spec, parse};

impl Snapshot {
    /// Adds an override, as if its file existed.
    pub fn set_override(&mut self, kind: Kind, document: Document<OverrideSpec>) {
        let key = (kind, document.metadata.name.clone());
        let path = Place::new(Area::Overrides, kind, &key.1).relative();
        let stored = Stored {
            document,
            hash: read::hash(""),
            path,
            owner: 0,
            text: "".into(),
        };
        self.overrides.insert(key, Ok(Arc::new(stored)));
    }
}

impl Store {
    /// Returns the result of [`Store::load`] after [`Store::absorb`] of every edit that can be imported.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_settled(&self, now: Timestamp) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.load()?;
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
                Some(Ok(stored)) => Some(&stored.document.spec).filter(|spec| spec.in_force(now)),
                Some(Err(_)) => return None,
            };
            if let Some(spec) = edited_in_place(last, edited, existing) {
                snapshot.set_override(place.kind, Document::new(place.name.clone(), None, 0, spec));
            }
        }
        let name = place.name.clone();
        match place.kind {
            Kind::BgpSession => drop(snapshot.sessions.insert(name, self.synced(place)?)),
            Kind::MeshPeer => drop(snapshot.mesh.insert(name, self.synced(place)?)),
            Kind::IbgpPeer => drop(snapshot.ibgp.insert(name, self.synced(place)?)),
            Kind::Node => snapshot.node = Some(self.synced(place)?),
            Kind::RoutingPolicy => snapshot.policy = Some(self.synced(place)?),
            Kind::Maintenance | Kind::Override => return None,
        }
        Some(())
    }

    /// Returns the last version of the document that the sync wrote.
    fn synced<S: Spec>(&self, place: &Place) -> Option<Slot<S>> {
        let text = read::text(&self.dir.join(SYNCED).join(place.relative())).ok()??;
        let document = parse::<S>(&text.text).ok()?;
        let (hash, owner, path) = (text.hash, text.owner, self.path(place));
        let stored = Stored {
            document,
            hash,
            path,
            owner,
            text: text.text.into(),
        };
        Some(Ok(Arc::new(stored)))
    }
}
