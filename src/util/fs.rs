//! The file system. Like `std::fs`, whose functions `clippy.toml` forbids elsewhere; each one blocks, and a debug build
//! of the daemon checks that it does not block an async worker.

#![expect(
    clippy::disallowed_methods,
    reason = "the one place that calls the file system"
)]

use std::fs::{self, File, Metadata, OpenOptions, Permissions, ReadDir};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::{NamedTempFile, TempDir};

use super::task::assert_may_block;

/// Files and directories that this process has opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of files and directories that this process has opened.
pub(crate) fn opened() -> u64 {
    OPENED.load(Ordering::Relaxed)
}

fn count_opened() {
    OPENED.fetch_add(1, Ordering::Relaxed);
}

/// Defines functions that check the thread and call those of `std::fs`.
macro_rules! checked {
    ($($name:ident($($argument:ident: $type:ty),+) -> $result:ty $(, $count:ident)?;)+) => {$(
        #[track_caller]
        pub(crate) fn $name($($argument: $type),+) -> io::Result<$result> {
            assert_may_block(stringify!($name));
            $($count();)?
            fs::$name($($argument),+)
        }
    )+};
}

checked! {
    canonicalize(path: impl AsRef<Path>) -> PathBuf;
    copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> u64, count_opened;
    create_dir_all(path: impl AsRef<Path>) -> ();
    hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> ();
    metadata(path: impl AsRef<Path>) -> Metadata;
    read(path: impl AsRef<Path>) -> Vec<u8>, count_opened;
    read_dir(path: impl AsRef<Path>) -> ReadDir, count_opened;
    read_link(path: impl AsRef<Path>) -> PathBuf;
    read_to_string(path: impl AsRef<Path>) -> String, count_opened;
    remove_dir(path: impl AsRef<Path>) -> ();
    remove_dir_all(path: impl AsRef<Path>) -> ();
    remove_file(path: impl AsRef<Path>) -> ();
    rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> ();
    set_permissions(path: impl AsRef<Path>, permissions: Permissions) -> ();
    symlink_metadata(path: impl AsRef<Path>) -> Metadata;
    write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> (), count_opened;
}

/// As [`Path::exists`].
#[track_caller]
pub(crate) fn exists(path: impl AsRef<Path>) -> bool {
    metadata(path).is_ok()
}

/// As [`Path::is_dir`].
#[track_caller]
pub(crate) fn is_dir(path: impl AsRef<Path>) -> bool {
    metadata(path).is_ok_and(|found| found.is_dir())
}

/// As [`Path::is_symlink`].
#[track_caller]
pub(crate) fn is_link(path: impl AsRef<Path>) -> bool {
    symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// As [`Path::is_file`].
#[track_caller]
pub(crate) fn is_file(path: impl AsRef<Path>) -> bool {
    metadata(path).is_ok_and(|found| found.is_file())
}

/// As [`OpenOptions::open`].
#[track_caller]
pub(crate) fn open(path: impl AsRef<Path>, options: &OpenOptions) -> io::Result<File> {
    assert_may_block("open");
    count_opened();
    options.open(path)
}

/// Opens a directory, to lock or to flush it.
#[track_caller]
pub(crate) fn open_dir(path: impl AsRef<Path>) -> io::Result<File> {
    open(path, File::options().read(true))
}

#[track_caller]
pub(crate) fn create_dir(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    assert_may_block("create_dir");
    fs::DirBuilder::new().mode(mode).create(path)
}

/// Creates a directory and its missing parents with this mode.
#[track_caller]
pub(crate) fn create_dirs(path: impl AsRef<Path>, mode: u32) -> io::Result<()> {
    assert_may_block("create_dirs");
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(path)
}

/// Creates a directory and those above it, but never `top`: one that was removed must not come back empty.
#[track_caller]
pub(crate) fn create_dirs_below(top: &Path, path: &Path, mode: u32) -> io::Result<()> {
    // Checked first: on a read-only file system, creating an existing directory fails too.
    if is_dir(path) {
        return Ok(());
    }
    let mut place = top.to_owned();
    for name in path.strip_prefix(top).unwrap_or(path).components() {
        place.push(name);
        match create_dir(&place, mode) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[track_caller]
pub(crate) fn set_group(path: impl AsRef<Path>, group: Option<u32>) -> io::Result<()> {
    assert_may_block("set_group");
    std::os::unix::fs::chown(path, None, group)
}

/// Gives a directory that was just created to an owner; a process that is not root may not, and keeps it. A link that
/// has taken its place is not followed.
#[track_caller]
pub(crate) fn give(path: impl AsRef<Path>, owner: u32, group: u32) -> io::Result<()> {
    assert_may_block("give");
    match std::os::unix::fs::lchown(path, Some(owner), Some(group)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        given => given,
    }
}

/// Creates a temporary file in a folder, which is removed when the value is dropped.
#[track_caller]
pub(crate) fn temporary_file(
    builder: &tempfile::Builder<'_, '_>,
    folder: &Path,
) -> io::Result<NamedTempFile> {
    assert_may_block("temporary_file");
    count_opened();
    builder.tempfile_in(folder)
}

/// Creates a temporary directory, which is removed when the value is dropped.
#[track_caller]
pub(crate) fn temporary_dir() -> io::Result<TempDir> {
    assert_may_block("temporary_dir");
    tempfile::tempdir()
}
