//! The router's own WireGuard key.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::info;
use wireguard_control::Key;

use crate::model::{Invalid, PrivateKey, PublicKey};
use crate::util::file::{self, Writer};
use crate::util::fs;

/// Reason why there is no private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file, or its folder, could not be read or created.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// "read", "create".
        what: &'static str,
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file does not hold a key. It is not overwritten, because it may be another key.
    #[error("{path} holds no WireGuard private key ({reason})", path = path.display())]
    NotAKey {
        path: PathBuf,
        /// The reason; never the content.
        reason: Invalid,
    },
}

impl KeyError {
    /// Returns whether this user may not read or create the file.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Creates a private key at this path, if there is no file. A file that appears meanwhile is kept and read.
///
/// The file is readable only by its owner from its first byte, appears atomically, and is never
/// overwritten. Blocks: call it on a blocking thread.
///
/// # Errors
/// When the file cannot be written, or does not hold a key.
pub fn create(path: &Path) -> Result<PrivateKey, KeyError> {
    let key = PrivateKey::new(Key::generate_private().0);
    match write_new(path, &key) {
        Ok(()) => {
            info!(path = %path.display(), public_key = %public_key(&key), "generated a WireGuard private key");
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(path)?.ok_or_else(|| failed("read", path)(error))
        }
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// Returns the public key of a private key. No IO.
pub fn public_key(key: &PrivateKey) -> PublicKey {
    PublicKey::new(Key(*key.expose()).get_public().0)
}

/// The public key of the last private key. Most links have the router's key, and a multiplication on the curve takes
/// longer than all the rest of reading a link.
#[derive(Debug, Default)]
pub(super) struct LastKey(Mutex<Option<(PrivateKey, PublicKey)>>);

impl LastKey {
    /// Returns the public key of a private key.
    pub(super) fn public_key(&self, key: PrivateKey) -> PublicKey {
        let mut last = self.0.lock();
        if let Some((private, public)) = &*last
            && *private == key
        {
            return *public;
        }
        let public = public_key(&key);
        *last = Some((key, public));
        public
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    move |source| KeyError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Reads the private key at this path; `None` when there is no file. Blocks.
///
/// # Errors
/// When the file cannot be read, or does not hold a key.
pub fn load(path: &Path) -> Result<Option<PrivateKey>, KeyError> {
    let text = match file::read(path, file::TOKEN) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let not_a_key = |reason| KeyError::NotAKey {
        path: path.to_owned(),
        reason,
    };
    let key = PrivateKey::from_base64(&text).map_err(not_a_key)?;
    if key.is_zero() {
        return Err(not_a_key(Invalid::new("a key of zeros means no key")));
    }
    Ok(Some(key))
}

/// Returns the file's mode in octal if other users may read the key.
pub(crate) fn mode_for_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| format!("{:o}", mode & 0o7777))
}

fn write_new(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dirs(folder, 0o700)?;
    let text = format!("{}\n", key.to_base64().expose());
    match Writer::new(0o600).sole().create(path, text.as_bytes())? {
        true => Ok(()),
        false => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Removes an incomplete key file that a crash left. No tunnel has used it.
///
/// # Errors
/// When it cannot be removed.
pub fn sweep(path: &Path) -> io::Result<()> {
    file::remove_file(&file::temporary(path)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn created_key_is_for_its_owner_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wireguard/private.key");
        assert!(load(&path).unwrap().is_none());
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(file::temporary(&path), "left by a crash").unwrap();
        let first = create(&path).unwrap();
        assert!(first == create(&path).unwrap());
        assert!(Some(first) == load(&path).unwrap());
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays");
    }

    #[test]
    fn malformed_key_file_is_an_error_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("private.key");
        for content in [
            "",
            "hunter2\n",
            &"A".repeat(43),
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            fs::write(&path, content).unwrap();
            let error = create(&path).unwrap_err();
            assert!(matches!(error, KeyError::NotAKey { .. }), "{error}");
            assert!(
                content.is_empty() || !error.to_string().contains(content.trim()),
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn unreadable_file_is_not_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            load(folder.path()),
            Err(KeyError::Io { what: "read", .. })
        ));
    }

    #[test]
    fn the_public_key_is_that_of_wg_pubkey() {
        let key = PrivateKey::from_base64("SGb+ojrRNDuMePufwtIYhXzA//k6wF3R21tEBgKlzlM=").unwrap();
        assert_eq!(
            public_key(&key).to_string(),
            "DD5yKRfzExcV5+kDnTroDgCU15latdMjiQ59j1hEuk8="
        );
    }
}
