use std::io;
use std::path::Path;

use super::write::Written;
use super::{Store, StoreError, atomic};
use crate::util::file;

/// Size limit of the agent's own files, in bytes: about 400 000 ROAs.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The agent's own files for its next start: not documents, and not in the history.
impl Store {
    /// Writes such a file atomically, unless its content is unchanged.
    ///
    /// # Errors
    /// The file cannot be written; the old one stays.
    pub fn keep(&self, file: &str, text: &str) -> Result<Written, StoreError> {
        self.keep_as(file, text, 0o644)
    }

    /// As [`Self::keep`], for a file that nothing depends on before the first step. As long as nothing was applied, it waits
    /// for the flush of the first record, and a power failure may empty it.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn keep_lightly(&self, file: &str, text: &str) -> Result<Written, StoreError> {
        if self.has_applied() {
            return self.keep(file, text);
        }
        let written = self.keep_with(file, text, |path, text| {
            atomic::write_lightly(path, text, 0o644)?;
            self.owe([self.dir.clone()]);
            Ok(())
        })?;
        // The first record may have been written meanwhile.
        if self.has_applied() {
            self.flush_owed()?;
        }
        Ok(written)
    }

    /// As [`Self::keep`], with a file that other users cannot read.
    ///
    /// # Errors
    /// As [`Self::keep`].
    pub fn keep_private(&self, file: &str, text: &str) -> Result<Written, StoreError> {
        self.keep_as(file, text, 0o600)
    }

    fn keep_as(&self, file: &str, text: &str, mode: u32) -> Result<Written, StoreError> {
        self.keep_with(file, text, |path, text| atomic::write(path, text, mode))
    }

    fn keep_with(
        &self,
        file: &str,
        text: &str,
        write: impl Fn(&Path, &[u8]) -> Result<(), StoreError>,
    ) -> Result<Written, StoreError> {
        let _one_at_a_time = self.caches.lock();
        let _held = self.writable()?;
        let path = self.dir.join(file);
        if self
            .kept(file)
            .is_ok_and(|there| there.as_deref() == Some(text))
        {
            return Ok(Written::Unchanged);
        }
        write(&path, text.as_bytes())?;
        self.writes
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Written::Changed)
    }

    /// Removes such a file, if it exists.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn forget(&self, file: &str) -> Result<(), StoreError> {
        let _one_at_a_time = self.caches.lock();
        let _held = self.writable()?;
        atomic::remove(&self.dir.join(file)).map(drop)
    }

    /// Reads such a file; `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read, is too large for one of the agent's files, or is not text.
    pub fn kept(&self, file: &str) -> io::Result<Option<String>> {
        match file::read_unlinked(&self.dir.join(file), MAX_BYTES).and_then(file::text) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
