//! Writes documents, without ever losing an operator's content.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::Value;

use crate::document::{
    Document, Kind, OverrideSpec, Spec, StatusDocument, check_document, parse, parse_value,
    to_yaml, value,
};
use crate::model::{ObjectName, Uid};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

use super::moved::is_maintenance;
use super::quarantine::has_uid;
use super::read::Text;
use super::snapshot::Caches;
use super::{AppliedDocument, Area, Place, Snapshot, Store, StoreError, atomic, read};

/// Result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The file is new, or its content changed.
    Changed,
    /// The file had this content already and was not touched.
    Unchanged,
}

impl Store {
    /// Writes one document of the sync, or maintenance; see [`Store::write_documents`].
    ///
    /// # Errors
    /// As [`Store::write_documents`] and its results.
    pub fn write_document<S: Spec>(&self, document: &Document<S>) -> Result<Written, StoreError> {
        let mut results = self.write_documents(&[document])?;
        results
            .pop()
            .unwrap_or_else(|| Err(StoreError::Bug("a document without a result".into())))
    }

    /// Writes a document of the sync in the place of an invalid file, which is quarantined.
    ///
    /// # Errors
    /// As [`Store::write_document`], and if the existing file cannot be quarantined.
    pub fn displace_document<S: Spec>(
        &self,
        document: &Document<S>,
    ) -> Result<Written, StoreError> {
        let place = Place::document(S::KIND, &document.metadata.name);
        let one_at_a_time = self.tree_turn()?;
        self.set_aside(&place)?;
        drop(one_at_a_time);
        self.write_document(document)
    }

    /// Removes a document of the sync. An invalid file in its place may be an operator's unfinished
    /// edit, so it is quarantined. `false`: there was no file.
    ///
    /// # Errors
    /// The document is an operator's own, or cannot be removed.
    pub fn remove_document(&self, kind: Kind, name: &ObjectName) -> Result<bool, StoreError> {
        let mut caches = self.tree_turn()?;
        self.remove_in_turn(&mut caches, kind, name)
    }

    /// Removes the document and the secrets of a session that the Control Plane has removed. `false`: there was none, or
    /// it wants the session again, since the sync wrote it after the listing that the caller knows.
    ///
    /// # Errors
    /// As [`Store::remove_document`].
    pub fn remove_departed(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let mut caches = self.tree_turn()?;
        if self.is_wanted_again(name)? {
            return Ok(false);
        }
        for ending in ["psk", "bgp"] {
            self.remove_secret(&format!("secrets/{name}.{ending}"))?;
        }
        self.remove_in_turn(&mut caches, Kind::BgpSession, name)
    }

    /// Returns whether the document of a session exists now and does not say that the session must go.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_wanted_again(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let text = read::text(&self.path(&Place::document(Kind::BgpSession, name)))?;
        let document = text.and_then(|text| parse_value::<Value>(&text.text).ok());
        let state = |document: Value| document.pointer("/spec/adminState").cloned();
        Ok(document.is_some_and(|document| state(document).is_none_or(|it| it != "Absent")))
    }

    fn remove_in_turn(
        &self,
        caches: &mut Caches,
        kind: Kind,
        name: &ObjectName,
    ) -> Result<bool, StoreError> {
        let place = Place::document(kind, name);
        let path = self.path(&place);
        let synced = self.synced_path(&place);
        let uid = self.uid_of(&place);
        let aside = self.set_aside(&place)?;
        match read::text(&path)? {
            Some(current) if !has_uid(&current.text)? => {
                return Err(StoreError::OperatorOwned { path });
            }
            _ => {}
        }
        // Recorded first, so that a document left by a crash is recognized as removed, like one that Git restored.
        if let Some(uid) = &uid {
            self.note_removed(&place, uid);
        }
        let removed = self.remove_file(&path)? || aside;
        caches.forget_copy(kind, &synced);
        let forgotten = self.remove_file(&synced)?;
        self.count(u64::from(removed) + u64::from(forgotten));
        Ok(removed)
    }

    /// Writes an override; `target` is the kind of its target.
    ///
    /// # Errors
    /// The override cannot be written.
    pub fn write_override(
        &self,
        target: Kind,
        document: &Document<OverrideSpec>,
    ) -> Result<Written, StoreError> {
        let place = Place::new(Area::Overrides, target, &document.metadata.name);
        let _one_at_a_time = self.tree_turn()?;
        self.write_override_locked(&place, document)
    }

    /// Removes an override. `false`: there was none.
    ///
    /// # Errors
    /// The override cannot be removed.
    pub fn remove_override(&self, target: Kind, name: &ObjectName) -> Result<bool, StoreError> {
        self.remove(&Place::new(Area::Overrides, target, name))
    }

    /// Writes a status.
    ///
    /// # Errors
    /// The status cannot be written.
    pub fn write_status(&self, status: &StatusDocument) -> Result<Written, StoreError> {
        drop(self.writable()?);
        self.put_status(status)
    }

    /// As [`Store::write_status`], for many. Returns one result a status, in their order.
    pub fn write_statuses(&self, statuses: &[&StatusDocument]) -> Vec<Result<Written, StoreError>> {
        let write = match self.writable() {
            Ok(_) => Self::put_status,
            // Each needs an error of its own.
            Err(_) => Self::write_status,
        };
        statuses.iter().map(|status| write(self, status)).collect()
    }

    fn put_status(&self, status: &StatusDocument) -> Result<Written, StoreError> {
        let place = Place::new(Area::Status, status.kind, &status.metadata.name);
        let (text, path) = (self.own_text(place.area, status)?, self.path(&place));
        if read::has(&path, &text) {
            return Ok(Written::Unchanged);
        }
        // A thousand statuses change in a minute; they are written without fsync.
        self.put_with(&path, &text, atomic::write_lightly)?;
        Ok(Written::Changed)
    }

    /// Returns whether a status file is missing, as after `git clean -xfd`.
    pub(crate) fn lacks_status(&self, kind: Kind, name: &ObjectName) -> bool {
        let path = self.path(&Place::new(Area::Status, kind, name));
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Removes a status. `false`: there was none.
    ///
    /// # Errors
    /// The status cannot be removed.
    pub fn remove_status(&self, kind: Kind, name: &ObjectName) -> Result<bool, StoreError> {
        self.remove(&Place::new(Area::Status, kind, name))
    }

    /// Returns the last written status; `None` if it is missing or unreadable.
    pub fn read_status(&self, kind: Kind, name: &ObjectName) -> Option<StatusDocument> {
        let text = read::text(&self.path(&Place::new(Area::Status, kind, name))).ok()??;
        parse_value(&text.text).ok()
    }

    /// Returns the specification in an object's own document, as it is written there; `None` without a document.
    ///
    /// # Errors
    /// The document cannot be read, or is invalid.
    pub(crate) fn read_spec(
        &self,
        kind: Kind,
        name: &ObjectName,
    ) -> Result<Option<Value>, StoreError> {
        let Some(text) = read::text(&self.path(&Place::new(Area::Documents, kind, name)))? else {
            return Ok(None);
        };
        check_document(kind, &text.text)?;
        Ok(value(&text.text)?.get("spec").cloned())
    }

    /// Returns the objects with a status, of the kinds with many objects.
    pub fn statuses(&self) -> Vec<(Kind, ObjectName)> {
        let of = |kind: Kind| {
            let folder = self.dir().join(Area::Status.folder()).join(kind.folder());
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let file = entry.file_name().into_string().ok()?;
                let name = file.strip_suffix(".yaml")?.parse().ok()?;
                Some((kind, name))
            })
        };
        Kind::many().flat_map(of).collect()
    }

    /// Writes one applied record; see [`Store::write_all_applied`].
    ///
    /// # Errors
    /// The record cannot be written; then no step may be made.
    pub fn write_applied(&self, applied: &AppliedDocument) -> Result<Written, StoreError> {
        let mut results = self.write_all_applied(std::slice::from_ref(applied))?;
        results
            .pop()
            .unwrap_or_else(|| Err(StoreError::Bug("a record without a result".into())))
    }

    /// Removes the finalizer, after the last step of a removal. `false`: there was none.
    ///
    /// # Errors
    /// The record cannot be removed.
    pub fn remove_applied(&self, kind: Kind, name: &ObjectName) -> Result<bool, StoreError> {
        self.remove(&Place::new(Area::Applied, kind, name))
    }

    /// Returns the applied record of one object. A missing or unreadable record, such as one that a
    /// power failure truncated, is `None`: existing objects carry the agent's mark in the kernel,
    /// and the record is written again once they match the desired state. Until then the listing
    /// reports the problem.
    pub fn read_applied(&self, kind: Kind, name: &ObjectName) -> Option<AppliedDocument> {
        self.read_applied_at(kind, name, self.moved().is_some())
    }

    /// As [`Self::read_applied`], for many objects.
    pub fn read_all_applied<K: Ord + Clone>(
        &self,
        objects: Vec<(K, Kind, ObjectName)>,
    ) -> BTreeMap<K, AppliedDocument> {
        let read_at = |is_moved| {
            let read = |(key, kind, name): &(K, Kind, ObjectName)| {
                Some((key.clone(), self.read_applied_at(*kind, name, is_moved)?))
            };
            objects.iter().filter_map(read).sorted_map()
        };
        let is_moved = self.moved().is_some();
        let records = read_at(is_moved);
        // Git may have moved the tree meanwhile.
        match !is_moved && self.moved().is_some() {
            true => read_at(true),
            false => records,
        }
    }

    fn read_applied_at(
        &self,
        kind: Kind,
        name: &ObjectName,
        is_moved: bool,
    ) -> Option<AppliedDocument> {
        let place = Place::new(Area::Applied, kind, name);
        if is_moved || self.waits(&place) {
            let kept = self.applied_kept(&place);
            return kept.map(|stored| AppliedDocument::clone(&stored.document));
        }
        // Parsed only after a change: a thousand objects at rest are read every few seconds.
        let found = self.caches.lock().in_effect(&self.path(&place), &place);
        if found.is_none() && self.applied_kept(&place).is_some() {
            // Another program removed it: the next listing puts it back.
            self.changes.note(&self.path(&place));
        }
        found?
            .ok()
            .map(|stored| AppliedDocument::clone(&stored.document))
    }

    pub(super) fn write_override_locked(
        &self,
        place: &Place,
        document: &Document<OverrideSpec>,
    ) -> Result<Written, StoreError> {
        let path = self.path(place);
        let current = read::text(&path)?
            .map(|current| current.text)
            .unwrap_or_default();
        if parse::<OverrideSpec>(&current).is_ok_and(|current| current == *document) {
            return Ok(Written::Unchanged);
        }
        // The operator's comments at the top say more than the reason does; they may name a schema.
        let remarks: String = current
            .split_inclusive('\n')
            .take_while(|line| line.starts_with('#'))
            .collect();
        let named = remarks.contains("yaml-language-server");
        let line = if named {
            String::new()
        } else {
            self.schema_line(override_schema_name(place.kind))
        };
        self.put(&path, &format!("{line}{remarks}{}", to_yaml(document)?))?;
        Ok(Written::Changed)
    }

    /// Returns the text of a document's file; its first line names the schema, if the directory of schemas is known.
    pub(super) fn text_of<S: Spec>(&self, document: &Document<S>) -> Result<String, StoreError> {
        Ok(self.schema_line(S::KIND) + &to_yaml(document)?)
    }

    /// Returns the line that names the schema to editors, in the format of the YAML language server.
    fn schema_line(&self, name: impl std::fmt::Display) -> String {
        let path = self
            .schemas
            .as_ref()
            .map(|dir| dir.join(format!("{name}.json")));
        let line = path.map(|path| format!("# yaml-language-server: $schema={}\n", path.display()));
        line.unwrap_or_default()
    }

    /// Refuses to overwrite an operator's content.
    pub(super) fn check_owner<S: Spec>(
        &self,
        place: &Place,
        current: &str,
    ) -> Result<(), StoreError> {
        let path = self.path(place);
        let current: Document<S> = parse(current).map_err(|error| error.in_file(&path))?;
        if S::KIND == Kind::Maintenance {
            return Ok(());
        }
        if current.metadata.uid.is_none() {
            return Err(StoreError::OperatorOwned { path });
        }
        let synced = read::text(&self.synced_path(place)).ok().flatten();
        let synced = synced.and_then(|synced| parse::<S>(&synced.text).ok());
        if synced.is_some_and(|synced| synced != current) {
            return Err(StoreError::EditedInPlace { path });
        }
        Ok(())
    }

    /// Returns the text of a file that only the agent writes.
    pub(super) fn own_text<T: Serialize>(
        &self,
        area: Area,
        document: &T,
    ) -> Result<String, StoreError> {
        let schema = match area {
            Area::Status => "Status",
            _ => "Applied",
        };
        Ok(self.schema_line(schema) + &to_yaml(document)?)
    }

    /// Returns the uid of a document of the sync, from its copy or its file.
    fn uid_of(&self, place: &Place) -> Option<Uid> {
        let files = [self.synced_path(place), self.path(place)];
        files.iter().find_map(|file| {
            let text = read::text(file).ok()??;
            let document: Value = parse_value(&text.text).ok()?;
            document.pointer("/metadata/uid")?.as_str()?.parse().ok()
        })
    }

    /// Makes an applied record, or maintenance, wait if it cannot be written to the tree, and
    /// returns whether it changed. Replaces a waiting one first, so that no crash restores the
    /// older one.
    pub(super) fn wait_for_tree(
        &self,
        place: &Place,
        text: Option<&str>,
    ) -> Result<Option<bool>, StoreError> {
        let may_wait = place.area == Area::Applied || is_maintenance(place);
        if !may_wait {
            return Ok(None);
        }
        let moved = self.moved_at_rest(super::HEAD_FOLLOWS).is_some();
        if !moved && !self.waits(place) {
            return Ok(None);
        }
        let _no_listing = self.caches.lock();
        drop(self.writable()?);
        let changed = match place.area {
            Area::Applied => self.put_applied_pending(place, text)?,
            _ => self.put_pending(place, text)?,
        };
        if !moved {
            self.write_pending(place, text)?;
        }
        Ok(Some(changed))
    }

    fn remove(&self, place: &Place) -> Result<bool, StoreError> {
        if let Some(changed) = self.wait_for_tree(place, None)? {
            return Ok(changed);
        }
        // A listing parallel to the removal would restore the record, as if another program had removed it.
        let _no_listing = match place.area {
            Area::Status => None,
            Area::Applied => Some(self.caches.lock()),
            Area::Documents | Area::Overrides => Some(self.tree_turn()?),
        };
        drop(self.writable()?);
        if place.area == Area::Applied {
            super::at_branch(&self.dir)?;
        }
        let removed = self.remove_file(&self.path(place))?;
        if place.area == Area::Applied {
            self.durable.lock().remove(&self.path(place));
            self.keep_applied(place, None);
            self.note_gone(place);
        }
        self.count(u64::from(removed));
        Ok(removed)
    }

    /// Makes a write or a removal by the agent, which is no change of an operator. Its own records, of which there are many,
    /// are not debounced.
    pub(super) fn as_own<T>(
        &self,
        path: &Path,
        text: Option<&str>,
        write: impl FnOnce() -> T,
    ) -> T {
        let relative = path.strip_prefix(&self.dir).unwrap_or(path);
        if !super::is_bookkeeping(relative) {
            self.patience.wrote(path, text.map(read::hash));
        }
        let done = write();
        // A listing has no statuses.
        if !relative.starts_with(Area::Status.folder()) {
            self.changes.note(path);
        }
        done
    }

    /// Returns whether the last write of this process to a file had this content.
    pub(crate) fn wrote(&self, place: &Place, content: &[u8]) -> bool {
        let hash = str::from_utf8(content).map(read::hash);
        hash.is_ok_and(|hash| self.patience.is_own(&self.path(place), Some(&hash)))
    }

    /// Returns whether a change in this place that the watch announces now is a write or a removal by this process.
    pub(crate) fn is_own(&self, place: &Place) -> bool {
        let hash = self.text(place).map(|text| read::hash(&text));
        self.patience.is_announced(&self.path(place), hash.as_ref())
    }

    /// Returns whether a change in this place that the watch announces now is the sync's, and a listing has it.
    pub(crate) fn is_listed(&self, place: &Place, listing: &Snapshot) -> bool {
        let (path, of_the_sync) = (self.path(place), listing.is_synced(place));
        let is_listed = |now: Text| {
            self.patience.is_announced(&path, Some(&now.hash)) && listing.had(place, Some(&now))
        };
        of_the_sync && read::text(&path).ok().flatten().is_some_and(is_listed)
    }

    pub(super) fn put(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        self.put_with(path, text, atomic::write)
    }

    fn put_with(
        &self,
        path: &Path,
        text: &str,
        write: fn(&Path, &[u8], u32) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let written = self.as_own(path, Some(text), || {
            atomic::in_folder(&self.dir, path, |path| write(path, text.as_bytes(), 0o644))
        });
        self.attempts.write(&written);
        written?;
        self.count(1);
        Ok(())
    }

    pub(super) fn create(&self, path: &Path, text: &str) -> Result<(), StoreError> {
        let create = || atomic::create(path, text.as_bytes(), 0o644);
        let created = self.as_own(path, Some(text), create);
        self.attempts.write(&created);
        self.count(u64::from(created?));
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> Result<bool, StoreError> {
        // A listing looks again at a file that changed.
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(false);
        }
        let removed = self.as_own(path, None, || atomic::remove(path));
        // A missing file says nothing about the free space.
        if removed.is_err() {
            self.attempts.write(&removed);
        }
        removed
    }

    pub(super) fn count(&self, files: u64) {
        self.writes.fetch_add(files, Ordering::Relaxed);
    }
}

/// Returns the name of the schema of an override of this kind of object.
fn override_schema_name(target: Kind) -> String {
    let own = format!("{target}Override");
    match crate::util::schemas::is_known(&own) {
        true => own,
        false => Kind::Override.to_string(),
    }
}
