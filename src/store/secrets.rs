//! Files in `secrets/`: mode 0600 from the first byte, never a link, never outside of the folder.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::model::{ObjectName, Secret};
use crate::redact::{forget, remember};
use crate::util::file::{self, Staged, Stamp};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

use super::flush::sync_folders;
use super::{SECRETS, Store, StoreError, Written, atomic};

/// The files in `secrets/` by their names in documents, as they were last registered.
pub(super) type Secrets = BTreeMap<String, Option<Stamp>>;

/// Size limit of a secret, in bytes.
const MAX_BYTES: u64 = file::TOKEN;

impl Store {
    /// Reads a secret by its name in a document: `secrets/<name>`. Trims blanks and line ends.
    /// `None`: the file does not exist.
    ///
    /// # Errors
    /// The name points elsewhere, or the file is not a small regular text file. The error never shows the content.
    pub fn read_secret(&self, name: &str) -> Result<Option<Secret<String>>, StoreError> {
        let path = self.secret_path(name)?;
        let in_memory = self.in_memory.as_ref();
        if let Some(secret) = in_memory.and_then(|it| it.lock().get(name).cloned()) {
            return Ok(Some(secret));
        }
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                forget(&path.to_string_lossy());
                return Ok(None);
            }
            Err(error) => return Err(StoreError::io("read", &path)(error)),
        };
        let refuse = |reason: &str| {
            Err(StoreError::Secret {
                path: path.clone(),
                reason: reason.to_owned(),
            })
        };
        if !metadata.is_file() {
            return refuse("is no regular file; a link or a directory is never followed");
        }
        if metadata.len() > MAX_BYTES {
            return refuse("is longer than 4096 bytes, which no key or password is");
        }
        let bytes = file::read_unlinked(&path, MAX_BYTES).map_err(StoreError::io("read", &path))?;
        match String::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => refuse("is empty"),
            Ok(text) => {
                remember(&path.to_string_lossy(), &text);
                Ok(Some(Secret::new(text.trim().to_owned())))
            }
            Err(_) => refuse("is not text"),
        }
    }

    /// Writes one secret; see [`Self::write_secrets`].
    ///
    /// # Errors
    /// As [`Self::write_secrets`] and its results.
    pub fn write_secret(&self, name: &str, secret: &Secret<String>) -> Result<Written, StoreError> {
        let mut results = self.write_secrets(&[(name, secret)])?;
        results
            .pop()
            .unwrap_or_else(|| Err(StoreError::Bug("a secret without a result".into())))
    }

    /// Writes secrets, readable only by the agent's user. However many there are, they become durable together. Writes
    /// nothing for those that are unchanged. Returns one result a secret, in their order: its name may point elsewhere, or
    /// its file cannot be written.
    ///
    /// # Errors
    /// The files cannot be flushed.
    pub fn write_secrets(
        &self,
        secrets: &[(&str, &Secret<String>)],
    ) -> Result<Vec<Result<Written, StoreError>>, StoreError> {
        let drafts: Vec<_> = secrets
            .iter()
            .map(|(name, secret)| self.stage_secret(name, secret))
            .collect();
        self.flush(drafts.iter().flatten().flatten())?;
        let mut written = Vec::new();
        let mut put = |staged: Staged| {
            let path = staged.path().to_owned();
            let replaced = staged.replace().map_err(StoreError::io("write", &path));
            self.attempts.write(&replaced);
            replaced?;
            self.count(1);
            written.push(path);
            Ok(Written::Changed)
        };
        let results = drafts
            .into_iter()
            .map(|draft| draft?.map_or(Ok(Written::Unchanged), &mut put))
            .collect();
        sync_folders(&written)?;
        Ok(results)
    }

    /// Writes a secret under a temporary name. `None`: it is unchanged.
    fn stage_secret(
        &self,
        name: &str,
        secret: &Secret<String>,
    ) -> Result<Option<Staged>, StoreError> {
        let path = self.secret_path(name)?;
        remember(&path.to_string_lossy(), secret.expose());
        drop(self.writable()?);
        if let Some(in_memory) = &self.in_memory {
            let secret = Secret::new(secret.expose().trim().to_owned());
            in_memory.lock().insert(name.to_owned(), secret);
            return Ok(None);
        }
        atomic::create_below(&self.dir, &self.dir.join(SECRETS), 0o700)?;
        let there = self.read_secret(name).ok().flatten();
        if there.is_some_and(|there| there.expose() == secret.expose().trim()) {
            restrict(&path)?;
            return Ok(None);
        }
        let text = format!("{}\n", secret.expose().trim());
        let staged = atomic::stage(&self.dir, &path, text.as_bytes(), 0o600);
        self.attempts.write(&staged);
        staged.map(Some)
    }

    /// Removes a secret. `false`: it did not exist.
    ///
    /// # Errors
    /// The name points elsewhere, or the file cannot be removed.
    pub fn remove_secret(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.secret_path(name)?;
        drop(self.writable()?);
        let in_memory = self.in_memory.as_ref();
        let forgotten = in_memory.and_then(|it| it.lock().remove(name));
        let removed = atomic::remove(&path)? || forgotten.is_some();
        forget(&path.to_string_lossy());
        self.count(u64::from(removed));
        Ok(removed)
    }

    /// Registers every secret for redaction, so that no output shows one that an operator pasted elsewhere, and forgets
    /// those whose files were removed. Reads only files that changed since the last call.
    pub(crate) fn remember_secrets(&self) {
        let entries = match fs::read_dir(self.dir.join(SECRETS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return,
            entries => entries.into_iter().flatten().flatten(),
        };
        let found: Secrets = entries
            .map(|entry| {
                let stamp = entry.metadata().ok().as_ref().map(Stamp::of);
                (format!("{SECRETS}/{}", entry.file_name().display()), stamp)
            })
            .sorted_map();
        let mut known = self.secrets.lock();
        for (name, stamp) in &found {
            if stamp.is_none() || known.get(name) != Some(stamp) {
                // An unreadable secret is reported by the document that names it.
                let _ = self.read_secret(name);
            }
        }
        for name in known.keys().filter(|name| !found.contains_key(*name)) {
            forget(&self.dir.join(name).to_string_lossy());
        }
        *known = found;
    }

    /// Accepts only `secrets/<name>`: no `..`, no subfolder, no absolute path.
    fn secret_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let refused = || StoreError::SecretName;
        let file = name.strip_prefix("secrets/").ok_or_else(refused)?;
        // The longest name is an object's name with an ending such as `.psk`.
        let (stem, end) = file.rsplit_once('.').unwrap_or((file, "x"));
        let ok = [stem, end]
            .iter()
            .all(|part| part.parse::<ObjectName>().is_ok());
        let folder = self.dir.join(SECRETS);
        if !ok || fs::symlink_metadata(&folder).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(refused());
        }
        Ok(folder.join(file))
    }
}

/// Restricts the mode: a secret that another program wrote may be readable by all users.
fn restrict(path: &std::path::Path) -> Result<(), StoreError> {
    let mode = fs::metadata(path)
        .map_err(StoreError::io("read", path))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(StoreError::io("restrict", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::redact;
    use std::fs;

    #[test]
    fn secret_files_changed_by_hand_are_registered_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join("secrets/by-hand.bgp");
        let is_hidden = |text: &str| {
            store.remember_secrets();
            redact(text).contains("(secret)")
        };
        assert!(!is_hidden("one-9x7q"));
        fs::write(&path, "one-9x7q\n").unwrap();
        assert!(is_hidden("one-9x7q"));
        fs::write(&path, "another-9x7q\n").unwrap();
        assert!(is_hidden("another-9x7q") && !is_hidden("one-9x7q"));
        fs::remove_file(&path).unwrap();
        assert!(!is_hidden("another-9x7q"));
        fs::write(&path, "one-9x7q\n").unwrap();
        assert!(is_hidden("one-9x7q"));
        fs::remove_dir_all(dir.path().join("secrets")).unwrap();
        assert!(!is_hidden("one-9x7q"));
    }

    #[test]
    fn secrets_in_memory_leave_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let store = store.with_secrets_in_memory();
        let (name, secret) = ("secrets/a.psk", Secret::new("hunter2\n".to_owned()));
        store.write_secret(name, &secret).unwrap();
        let read = store.read_secret(name).unwrap().unwrap();
        assert_eq!(read.expose(), "hunter2");
        assert!(!directory.path().join(name).exists());
        assert!(store.remove_secret(name).unwrap());
        assert!(store.read_secret(name).unwrap().is_none());
    }
}
