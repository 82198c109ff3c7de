//! Writes the documents of the sync. However many there are, they become durable together.

use std::path::{Path, PathBuf};

use crate::document::{Document, Kind, Spec};
use crate::model::Uid;
use crate::util::file::Staged;
use crate::util::fs;

use super::flush::sync_folders;
use super::snapshot::Caches;
use super::synced::next;
use super::{Place, Store, StoreError, Written, atomic, read};

/// A document that is to be written.
struct Draft<'a, S: Spec> {
    document: &'a Document<S>,
    place: Place,
    text: String,
    /// There is no file in its place.
    is_new: bool,
    state: State,
}

/// What is left to do for a document.
enum State {
    /// Both files are complete under temporary names.
    Staged(Files),
    /// The document is in its place; its copy is still called the next one.
    Put,
    /// The file has this text already.
    Same,
    /// Nothing.
    Done(Result<Written, StoreError>),
}

/// The document's file, and the copy that reveals manual edits of it.
struct Files {
    document: Staged,
    copy: Option<Staged>,
}

impl Store {
    /// Writes documents of the sync, or maintenance. Writes nothing for those whose content is the same. Returns one
    /// result a document, in their order.
    ///
    /// The copies are written first, as `.next`: after a crash at any point a document equals its copy or the next one,
    /// and no edit is detected.
    ///
    /// # Errors
    /// The tree cannot be written, or the files cannot be flushed; the next sync writes them again. The results hold
    /// [`StoreError::OperatorOwned`]: the file is an operator's own; [`StoreError::EditedInPlace`]: it was edited
    /// manually (see [`Store::import_edit`]); [`StoreError::Document`]: the existing file is invalid, so that its owner is
    /// unknown.
    pub fn write_documents<S: Spec>(
        &self,
        documents: &[&Document<S>],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        drop(self.writable()?);
        let mut drafts: Vec<_> = documents
            .iter()
            .map(|document| self.draft(document))
            .collect();
        if drafts
            .iter()
            .all(|draft| matches!(draft.state, State::Done(_)))
        {
            return Ok(drafts.into_iter().map(|draft| draft.end(self)).collect());
        }
        let mut caches = self.tree_turn()?;
        for draft in &mut drafts {
            draft.check(self);
            // A power failure before the flush ends may leave a damaged copy under the name of a next one, which the start
            // removes, since the document still equals its copy.
            self.owe(draft.put_copy());
        }
        self.flush(drafts.iter().filter_map(Draft::staged))?;
        // The flush of the first record makes the names durable, and no step precedes it.
        let (may_wait, mut written) = (!self.has_applied(), Vec::new());
        for draft in &mut drafts {
            let Some(path) = draft.put_document(self, &mut caches) else {
                continue;
            };
            match may_wait && draft.is_new && draft.document.metadata.uid.is_some() {
                true => self.owe(path.parent().map(Path::to_owned)),
                false => written.push(path),
            }
        }
        let flushed = sync_folders(&written);
        if flushed.is_err() {
            // The next attempt finds the documents as they are wanted.
            let folders = written.iter().filter_map(|path| path.parent());
            self.owe(folders.map(Path::to_owned));
        }
        // First, since a document that differs from its copy is taken for an operator's edit.
        let results = drafts.into_iter().map(|draft| draft.end(self)).collect();
        flushed.map(|()| results)
    }

    fn draft<'a, S: Spec>(&self, document: &'a Document<S>) -> Draft<'a, S> {
        let place = Place::document(S::KIND, &document.metadata.name);
        let (text, state) = match self.text_of(document) {
            Ok(text) => {
                let state = self.stage(&place, document.metadata.uid.as_ref(), &text);
                (text, state.unwrap_or_else(|error| State::Done(Err(error))))
            }
            Err(error) => (String::new(), State::Done(Err(error))),
        };
        Draft {
            document,
            place,
            text,
            is_new: false,
            state,
        }
    }

    fn stage(&self, place: &Place, uid: Option<&Uid>, text: &str) -> Result<State, StoreError> {
        if place.kind == Kind::Override {
            return Err(StoreError::Bug(
                "an override is written with write_override".into(),
            ));
        }
        // Maintenance takes effect at once, and is written to the tree when the tree is back.
        if self.wait_for_tree(place, Some(text))?.is_some() {
            return Ok(State::Done(Ok(Written::Changed)));
        }
        let path = self.path(place);
        if read::has(&path, text) {
            return Ok(State::Same);
        }
        let stage = |path: &Path| {
            let staged = atomic::stage(&self.dir, path, text.as_bytes(), 0o644);
            self.attempts.write(&staged);
            staged
        };
        let copy = uid.map(|_| stage(&next(&self.synced_path(place))));
        Ok(State::Staged(Files {
            copy: copy.transpose()?,
            document: stage(&path)?,
        }))
    }
}

impl<S: Spec> Draft<'_, S> {
    /// Returns the document that is to get its final name.
    fn staged(&self) -> Option<&Staged> {
        match &self.state {
            State::Staged(files) => Some(&files.document),
            _ => None,
        }
    }

    /// Refuses to overwrite an operator's content.
    fn check(&mut self, store: &Store) {
        if let State::Done(_) = self.state {
            return;
        }
        if let Some(uid) = &self.document.metadata.uid {
            store.note_wanted(&self.place, uid);
        }
        if let Err(error) = self.may_write(store) {
            self.state = State::Done(Err(error));
        }
    }

    fn may_write(&mut self, store: &Store) -> Result<(), StoreError> {
        let current = read::text(&store.path(&self.place))?;
        self.is_new = current.is_none();
        match current {
            Some(current) if current.text != self.text => {
                store.check_owner::<S>(&self.place, &current.text)
            }
            _ => Ok(()),
        }
    }

    /// Puts the next copy beside the copy. Returns its folder.
    fn put_copy(&mut self) -> Option<PathBuf> {
        let State::Staged(files) = &mut self.state else {
            return None;
        };
        let copy = files.copy.take()?;
        let (path, folder) = (copy.path().to_owned(), copy.folder().to_owned());
        if let Err(error) = copy.replace().map_err(StoreError::io("write", &path)) {
            self.state = State::Done(Err(error));
        }
        Some(folder)
    }

    /// Puts the document in its place. Returns its path.
    fn put_document(&mut self, store: &Store, caches: &mut Caches) -> Option<PathBuf> {
        let files = match std::mem::replace(&mut self.state, State::Put) {
            State::Staged(files) => files,
            other => {
                self.state = other;
                return None;
            }
        };
        let path = store.path(&self.place);
        let replaced = store.as_own(&path, Some(&self.text), || files.document.replace());
        let replaced = replaced.map_err(StoreError::io("write", &path));
        store.attempts.write(&replaced);
        match replaced {
            Ok(()) => {
                store.count(1);
                caches.wrote(&path, &self.place, self.document, &self.text);
            }
            Err(error) => {
                let _ = fs::remove_file(next(&store.synced_path(&self.place)));
                self.state = State::Done(Err(error));
            }
        }
        Some(path)
    }

    /// Makes the next copy the copy, and returns the result.
    fn end(self, store: &Store) -> Result<Written, StoreError> {
        match self.state {
            State::Done(result) => result,
            State::Put if self.document.metadata.uid.is_none() => Ok(Written::Changed),
            State::Put => {
                let copy = store.synced_path(&self.place);
                let next = next(&copy);
                fs::rename(&next, &copy).map_err(StoreError::io("rename", &next))?;
                store.changes.note(&copy);
                store.count(1);
                Ok(Written::Changed)
            }
            State::Same | State::Staged(_) => {
                store.keep_synced(&self.place, self.document, &self.text)?;
                Ok(Written::Unchanged)
            }
        }
    }
}
