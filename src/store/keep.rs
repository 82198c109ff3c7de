use std::io;

use super::write::Written;
use super::{Store, StoreError, atomic};
use crate::disk;

/// The largest file of the agent's own that is read, in bytes: some 400 000 ROAs.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What the agent keeps for its own next start, in files of its own: no documents, and in no history.
impl Store {
    /// Writes such a file, whole or not at all, unless its text is there already.
    ///
    /// # Errors
    /// When it cannot be written; the old one stays.
    pub fn keep(&self, file: &str, text: &str) -> Result<Written, StoreError> {
        self.keep_as(file, text, 0o644)
    }

    /// As [`Self::keep`], where others may not read it.
    ///
    /// # Errors
    /// As of [`Self::keep`].
    pub fn keep_private(&self, file: &str, text: &str) -> Result<Written, StoreError> {
        self.keep_as(file, text, 0o600)
    }

    fn keep_as(&self, file: &str, text: &str, mode: u32) -> Result<Written, StoreError> {
        let _one_at_a_time = self.caches();
        let _held = self.writable()?;
        let path = self.dir.join(file);
        if self
            .kept(file)
            .is_ok_and(|there| there.as_deref() == Some(text))
        {
            return Ok(Written::Unchanged);
        }
        atomic::write(&path, text.as_bytes(), mode)?;
        self.writes
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Written::Changed)
    }

    /// Removes such a file, where there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, file: &str) -> Result<(), StoreError> {
        let _one_at_a_time = self.caches();
        let _held = self.writable()?;
        atomic::remove(&self.dir.join(file)).map(drop)
    }

    /// Reads such a file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, is too large to be ours, or is no text.
    pub fn kept(&self, file: &str) -> io::Result<Option<String>> {
        match disk::read_unlinked(&self.dir.join(file), MAX_BYTES).and_then(disk::text) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
