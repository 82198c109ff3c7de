//! Writes applied records. However many there are, they become durable together.

use crate::util::file::{Staged, Stamp};

use super::flush::sync_folders;
use super::snapshot::Caches;
use super::{AppliedDocument, Area, Place, Store, StoreError, Written, atomic, read};

/// What is left to do for a record.
enum State {
    /// It is complete on disk under a temporary name.
    Staged(Staged),
    /// The file has this text already; whether its name survives a power failure is not known.
    Same,
    /// Nothing.
    Done(Result<Written, StoreError>),
}

impl Store {
    /// Writes applied records: before the first step of a plan, and after each step that claims something. Returns one
    /// result a record, in their order.
    ///
    /// # Errors
    /// The records cannot be flushed, or one cannot be written; then no step of it may be made.
    pub fn write_all_applied(
        &self,
        records: &[AppliedDocument],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let mut drafts = Vec::new();
        drop(self.writable()?);
        let is_moved = self.moved_at_rest(super::HEAD_FOLLOWS).is_some();
        for record in records {
            let place = Place::new(Area::Applied, record.kind, &record.metadata.name);
            let text = self.own_text(Area::Applied, record)?;
            let state = self.stage_applied(&place, &text, is_moved);
            drafts.push((
                place,
                text,
                state.unwrap_or_else(|error| State::Done(Err(error))),
            ));
        }
        let staged = drafts.iter().filter_map(|(_, _, state)| match state {
            State::Staged(staged) => Some(staged),
            State::Same | State::Done(_) => None,
        });
        self.flush(staged)?;
        // Git may have moved the tree meanwhile.
        let is_moved = self.moved_at_rest(super::HEAD_FOLLOWS).is_some();
        // A listing parallel to the renames would restore the records, as if another program had removed them.
        let mut no_listing = (!is_moved).then(|| self.caches.lock());
        let mut paths = Vec::new();
        let mut results = Vec::new();
        for (record, (place, text, state)) in records.iter().zip(drafts) {
            results.push(match (state, &mut no_listing) {
                (State::Done(result), _) => result,
                (State::Same, _) => {
                    paths.push(self.path(&place));
                    Ok(Written::Unchanged)
                }
                (State::Staged(_), None) => self.write_applied(record),
                (State::Staged(staged), Some(caches)) => {
                    paths.push(staged.path().to_owned());
                    self.put_applied(caches, &place, staged, (record, &text))
                }
            });
        }
        drop(no_listing);
        sync_folders(&paths)?;
        let stamped = paths
            .into_iter()
            .filter_map(|path| Some((path.clone(), Stamp::at(&path)?)));
        self.durable.lock().extend(stamped);
        Ok(results)
    }

    fn stage_applied(
        &self,
        place: &Place,
        text: &str,
        is_moved: bool,
    ) -> Result<State, StoreError> {
        self.note_applied(place);
        if (is_moved || self.waits(place))
            && let Some(changed) = self.wait_for_tree(place, Some(text))?
        {
            return Ok(State::Done(Ok(match changed {
                true => Written::Changed,
                false => Written::Unchanged,
            })));
        }
        let path = self.path(place);
        // From here on the agent's own file has its content again.
        if read::has(&path, text) {
            // Another program may have put it back after the last listing.
            if self.applied_text(place).as_deref() != Some(text) {
                self.changes.note(&path);
            }
            let known = self.durable.lock().get(&path).copied();
            return Ok(match known.is_some() && known == Stamp::at(&path) {
                true => State::Done(Ok(Written::Unchanged)),
                false => State::Same,
            });
        }
        let staged = atomic::stage(&self.dir, &path, text.as_bytes(), 0o644);
        self.attempts.write(&staged);
        staged.map(State::Staged)
    }

    fn put_applied(
        &self,
        caches: &mut Caches,
        place: &Place,
        staged: Staged,
        (record, text): (&AppliedDocument, &str),
    ) -> Result<Written, StoreError> {
        let path = staged.path().to_owned();
        let replaced = staged.replace().map_err(StoreError::io("write", &path));
        self.attempts.write(&replaced);
        replaced?;
        self.count(1);
        let stored = caches.wrote_applied(&path, place, record.clone(), text);
        match stored {
            Some(_) => self.keep_applied(place, stored),
            None => self.changes.note(&path),
        }
        Ok(Written::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Kind, Metadata};
    use crate::store::AppliedBody;

    #[test]
    fn history_gets_the_text_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let store = store.with_schemas("/schemas".into());
        store.load().unwrap();
        let metadata = Metadata {
            name: "a".parse().unwrap(),
            uid: None,
            generation: 1,
        };
        let place = Place::new(Area::Applied, Kind::MeshPeer, &metadata.name);
        let record = AppliedDocument::new(Kind::MeshPeer, metadata, AppliedBody::default());
        store.write_applied(&record).unwrap();
        let text = std::fs::read_to_string(store.path(&place)).unwrap();
        assert!(text.starts_with("# yaml-language-server"), "{text}");
        assert_eq!(store.applied_text(&place).as_deref(), Some(text.as_str()));
    }
}
