//! Atomic files: a file exists completely or not at all, and a symbolic link in its place is replaced, not followed.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::util::fs;
use crate::util::sorted::Sorted as _;
use tempfile::TempPath;

/// Prefix of temporary files: hidden, so that listings and BIRD's includes skip them, and unique to the agent, so that
/// files left by a crash can be removed.
pub(crate) const TEMPORARY: &str = ".moenet-tmp-";

/// Flushes by this process since its start.
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// Returns the number of flushes of a file, a directory or a file system to the disk.
pub(crate) fn flushes() -> u64 {
    FLUSHES.load(Ordering::Relaxed)
}

fn sync(file: &File) -> io::Result<()> {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
    if *FLUSHES_NOTHING {
        return Ok(());
    }
    file.sync_all()
}

/// In a debug build, with `MOENET_AGENT_FLUSH_NOTHING`, no flush is made: a test that cuts the power must find the loss.
static FLUSHES_NOTHING: LazyLock<bool> = LazyLock::new(|| {
    cfg!(debug_assertions) && std::env::var_os("MOENET_AGENT_FLUSH_NOTHING").is_some()
});

/// Writes files of one kind: temporary file in the same directory, fsync, rename, fsync of the directory. On any error
/// the old file is unchanged and the temporary file is removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer {
    mode: u32,
    owner: Option<u32>,
    group: Option<u32>,
    is_durable: bool,
    is_sole: bool,
}

impl Writer {
    /// Returns a writer of files with this mode. They are private until their content is complete.
    pub(crate) const fn new(mode: u32) -> Self {
        Self {
            mode,
            owner: None,
            group: None,
            is_durable: true,
            is_sole: false,
        }
    }

    /// Sets the group. A process that is not root may not; its files keep its own group.
    pub(crate) const fn group(self, group: Option<u32>) -> Self {
        Self { group, ..self }
    }

    /// Sets the owner. A process that is not root may not; its files are its own.
    pub(crate) const fn owner(self, owner: Option<u32>) -> Self {
        Self { owner, ..self }
    }

    /// Omits fsync: for content that is observed or written again after a power failure, and for files that [`flush`]
    /// makes durable together.
    pub(crate) const fn light(self) -> Self {
        Self {
            is_durable: false,
            ..self
        }
    }

    /// Uses one temporary name per file, so that crashes leave at most one, which the next write replaces. For files
    /// that no other process writes.
    pub(crate) const fn sole(self) -> Self {
        Self {
            is_sole: true,
            ..self
        }
    }

    /// Replaces a file.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn replace(self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.stage(path, bytes)?.replace()?;
        self.sync(path)
    }

    /// Creates a file unless it exists. `false`: it exists and is unchanged.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn create(self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        let staged = self.stage(path, bytes)?;
        match staged.temporary.persist_noclobber(&staged.path) {
            Ok(()) => self.sync(path).map(|()| true),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error.error),
        }
    }

    /// Writes a file completely under a temporary name.
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn stage(self, path: &Path, bytes: &[u8]) -> io::Result<Staged> {
        // Created with O_EXCL and mode 0600, so that a secret is never readable by others.
        let mut file = if self.is_sole {
            let temporary = temporary(path);
            remove_file(&temporary)?;
            let mut builder = tempfile::Builder::new();
            builder.prefix(temporary.file_name().unwrap_or_default());
            fs::temporary_file(builder.rand_bytes(0), folder(path))
        } else {
            let mut builder = tempfile::Builder::new();
            fs::temporary_file(builder.prefix(TEMPORARY), folder(path))
        }
        .map_err(bare)?;
        if self.owner.is_some() || self.group.is_some() {
            give(file.as_file(), self.owner, self.group)?;
        }
        if self.mode != 0o600 {
            let permissions = Permissions::from_mode(self.mode);
            file.as_file().set_permissions(permissions)?;
        }
        file.write_all(bytes).map_err(bare)?;
        if self.is_durable {
            sync(file.as_file())?;
        }
        Ok(Staged {
            temporary: file.into_temp_path(),
            path: path.to_owned(),
        })
    }

    fn sync(self, path: &Path) -> io::Result<()> {
        match self.is_durable {
            true => sync_folder(folder(path)),
            false => Ok(()),
        }
    }
}

/// A complete file under a temporary name. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct Staged {
    temporary: TempPath,
    path: PathBuf,
}

impl Staged {
    /// Returns the final path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of the file.
    pub(crate) fn folder(&self) -> &Path {
        folder(&self.path)
    }

    /// Renames the file to its final name. The caller makes that durable with [`sync_folder`].
    ///
    /// # Errors
    /// As the system says.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.temporary
            .persist(&self.path)
            .map_err(|error| error.error)
    }
}

/// Makes complete files durable before they get their final names: one with an fsync, more with one flush of
/// the file systems that they are on. There a thousand files cost what one does; the price is that the flush also
/// waits for what other programs wrote.
///
/// # Errors
/// As the system says.
pub(crate) fn flush<'a>(files: impl IntoIterator<Item = &'a Staged>) -> io::Result<()> {
    let files: Vec<_> = files.into_iter().collect();
    if let [only] = files[..] {
        return sync(&fs::open(&only.temporary, File::options().read(true))?);
    }
    flush_file_systems(files.iter().map(|file| file.folder()))
}

/// Makes everything on the file systems of these directories durable. One that is gone has nothing to flush.
///
/// # Errors
/// As the system says.
pub(crate) fn flush_file_systems<'a>(
    folders: impl IntoIterator<Item = &'a Path>,
) -> io::Result<()> {
    let (mut flushed, folders): (_, BTreeSet<_>) =
        (BTreeSet::new(), folders.into_iter().sorted_set());
    for folder in folders {
        let folder = match fs::open_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            folder => folder?,
        };
        if flushed.insert(folder.metadata()?.dev()) {
            flush_file_system(&folder)?;
        }
    }
    Ok(())
}

/// Makes everything on the file system of a directory durable.
///
/// # Errors
/// As the system says.
pub(crate) fn flush_file_system(directory: &File) -> io::Result<()> {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
    match *FLUSHES_NOTHING {
        true => Ok(()),
        false => Ok(rustix::fs::syncfs(directory)?),
    }
}

/// Makes the content of a file durable that exists durably.
///
/// # Errors
/// As the system says.
pub(crate) fn flush_content(file: &File) -> io::Result<()> {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
    match *FLUSHES_NOTHING {
        true => Ok(()),
        false => file.sync_data(),
    }
}

/// Makes renames and removals in directories durable across a power failure: in one with an fsync, in several with one
/// flush of the file systems that they are on.
///
/// # Errors
/// As the system says.
pub(crate) fn sync_folders<'a>(folders: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    let folders: BTreeSet<_> = folders.into_iter().sorted_set();
    match folders.first() {
        Some(only) if folders.len() == 1 => sync_folder(only),
        _ => flush_file_systems(folders),
    }
}

/// Makes renames and removals in a directory durable across a power failure.
///
/// # Errors
/// As the system says.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    sync(&fs::open_dir(folder)?)
}

/// Removes a file durably. `false`: it did not exist.
///
/// # Errors
/// As the system says.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    let existed = remove_file(path)?;
    if existed {
        sync_folder(folder(path))?;
    }
    Ok(existed)
}

/// Removes a file. `false`: it did not exist.
///
/// # Errors
/// As the system says.
pub(crate) fn remove_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Removes the temporary files that a crash left in a directory. Ignores errors: such files only take space.
pub(crate) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Returns the temporary name of a file with a single writer.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Returns whether a path is the temporary name of a file that is being written.
pub(crate) fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let has_one_writer = name.starts_with(b".") && name.ends_with(b".new");
    has_one_writer || name.starts_with(TEMPORARY.as_bytes())
}

/// Returns the directory of a file.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn give(file: &File, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
    match fchown(file, owner, group) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Returns the system's error without the temporary file's random name, which is useless to the operator.
fn bare(error: io::Error) -> io::Error {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.source()?.downcast_ref::<io::Error>());
    let number = cause.and_then(io::Error::raw_os_error);
    number.map_or(error, io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        for writer in [Writer::new(0o644), Writer::new(0o640).sole().light()] {
            writer.replace(&path, b"x").unwrap_err();
            assert_eq!(names(folder.path()), ["taken"]);
        }
        Writer::new(0o600)
            .replace(&folder.path().join("missing/file"), b"x")
            .unwrap_err();
    }

    #[test]
    fn created_file_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let writer = Writer::new(0o600).sole();
        assert!(writer.create(&path, b"first").unwrap());
        assert!(!writer.create(&path, b"second").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn symbolic_link_is_replaced_and_its_target_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Writer::new(0o640).replace(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        let found = fs::symlink_metadata(&link).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o640);
        assert!(found.is_file());
    }

    #[test]
    fn sweep_removes_only_temporary_files_of_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".moenet-tmp-1", ".moenet", "document.yaml"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        sweep(folder.path());
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, [".moenet", "document.yaml"]);
    }
}
