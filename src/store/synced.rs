//! Copies of the sync's documents, used to distinguish a manual edit from a write of the sync.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::document::{Document, Spec};
use crate::model::Uid;
use crate::util::fs;

use super::{Place, SYNCED, Store, StoreError, atomic, layout, read};

/// First line of a copy whose document an operator has taken over. Without it, an invalid document
/// could not be distinguished from one of the sync, which the Control Plane may remove.
const TAKEN_OVER: &str = "# The document of this copy is an operator's own now.\n";

/// Returns whether this copy marks its document as the operator's own.
pub(super) fn is_taken_over(copy: &str) -> bool {
    copy.starts_with(TAKEN_OVER)
}

/// Returns the document as the sync wrote it.
pub(super) fn without_mark(copy: &str) -> &str {
    copy.strip_prefix(TAKEN_OVER).unwrap_or(copy)
}

/// The last version of the sync of a document whose file is invalid now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenDocument {
    /// The identity of the object.
    pub uid: Uid,
    pub spec: Value,
}

impl BrokenDocument {
    pub(super) fn of<S: Spec>(synced: &Document<S>) -> Option<Self> {
        let spec = serde_json::to_value(&synced.spec).ok()?;
        Some(Self {
            uid: synced.metadata.uid.clone()?,
            spec,
        })
    }
}

impl Store {
    /// Records the owner of a document in its copy.
    pub(super) fn mark_copy(&self, place: &Place, taken_over: bool) -> Result<(), StoreError> {
        let path = self.synced_path(place);
        let Some(copy) = read::text(&path)? else {
            return Ok(());
        };
        let text = without_mark(&copy.text);
        let mark = if taken_over { TAKEN_OVER } else { "" };
        self.put(&path, &format!("{mark}{text}"))
    }

    /// Updates a missing or old copy of a document that already has the content of the sync.
    pub(super) fn keep_synced<S: Spec>(
        &self,
        place: &Place,
        document: &Document<S>,
        text: &str,
    ) -> Result<(), StoreError> {
        let path = self.synced_path(place);
        if document.metadata.uid.is_none() || read::has(&path, text) {
            return Ok(());
        }
        self.put(&path, text)
    }

    /// Restores copies that another tool removed, so that an edit can still be distinguished from a write of the sync.
    pub(super) fn put_back_copies(&self, lost: Vec<(PathBuf, Arc<str>)>) {
        if !self.is_writable() {
            return;
        }
        for (path, text) in lost {
            // The next listing retries.
            let _ = self.put(&path, &text);
        }
    }

    /// Completes the writes of documents that a crash interrupted.
    pub(super) fn finish_writes(&self) -> Result<(), StoreError> {
        for folder in layout::folders()
            .into_iter()
            .filter(|folder| folder.starts_with(SYNCED))
        {
            let entries = fs::read_dir(self.dir.join(&folder))
                .into_iter()
                .flatten()
                .flatten();
            let paths = entries.map(|entry| entry.path());
            for aside in paths.filter(|path| path.extension().is_some_and(|end| end == "next")) {
                self.finish_write(&folder, &aside)?;
            }
        }
        Ok(())
    }

    fn finish_write(&self, folder: &Path, aside: &Path) -> Result<(), StoreError> {
        let copy = aside.with_extension("");
        let (Ok(inside), Some(file)) = (folder.strip_prefix(SYNCED), copy.file_name()) else {
            return Ok(());
        };
        let document = read::text(&self.dir.join(inside).join(file)).ok().flatten();
        let written = read::text(aside).ok().flatten();
        if written
            .is_some_and(|written| document.is_some_and(|document| document.hash == written.hash))
        {
            return fs::rename(aside, &copy).map_err(StoreError::io("rename", aside));
        }
        atomic::remove(aside).map(drop)
    }

    /// Path of the copy of a synced document.
    pub(super) fn synced_path(&self, place: &Place) -> PathBuf {
        self.dir.join(SYNCED).join(place.relative())
    }
}

/// Returns the name of a copy that is written before its document.
pub(super) fn next(copy: &Path) -> PathBuf {
    let mut name = copy.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}
