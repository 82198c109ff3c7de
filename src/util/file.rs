//! Reading files that anyone may have written. Only regular files are read, never more than a limit, and opening
//! never waits: a pipe without a writer, a device or a directory is an error and not a hang.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::util::fs;
use rustix::fs::OFlags;

mod lock;
mod quarantine;
mod stamp;
mod write;

pub(crate) use lock::lock;
pub(crate) use quarantine::{QUARANTINED, quarantine};
pub(crate) use stamp::Stamp;
pub(crate) use write::{
    Staged, Writer, flush, flush_content, flush_file_system, flush_file_systems, flushes,
    is_temporary, remove, remove_file, sweep, sync_folders, temporary,
};

/// The largest configuration, template or document, in bytes.
pub(crate) const DOCUMENT: u64 = 256 * 1024;
/// The largest file with a token, a key or a password, in bytes.
pub(crate) const TOKEN: u64 = 4096;

/// Why a symbolic link is not read.
pub(crate) const LINK: &str =
    "is a symbolic link, which is not followed here; put its target in its place";

/// Opens a regular file; a symbolic link is followed.
///
/// # Errors
/// As the system says, and when it is not a regular file.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    open_as(path, fs::metadata(path)?)
}

/// Opens a regular file; a symbolic link is an error.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_unlinked(path: &Path) -> io::Result<(File, Metadata)> {
    open_as(path, fs::symlink_metadata(path)?)
}

/// Opens a regular file below a root, itself or one of whose folders below the root is no symbolic link: what a link
/// leads to may be of others.
///
/// # Errors
/// As [`open_unlinked`].
pub(crate) fn open_below(root: &Path, path: &Path) -> io::Result<(File, Metadata)> {
    for folder in path
        .ancestors()
        .skip(1)
        .filter(|it| !it.as_os_str().is_empty())
    {
        if fs::is_link(root.join(folder)) {
            let message = format!("its folder {} {LINK}", folder.display());
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
    }
    open_unlinked(&root.join(path))
}

/// Opens a regular file that was looked at, since opening a device may have effects. It is looked at again, since the
/// file may be another by then.
///
/// # Errors
/// As [`open`]; [`ErrorKind::Interrupted`] for another file.
pub(crate) fn open_as(path: &Path, expected: Metadata) -> io::Result<(File, Metadata)> {
    check(&expected)?;
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::open(path, File::options().read(true).custom_flags(flags))?;
    let found = file.metadata()?;
    check(&found)?;
    if !Stamp::of(&found).is_same_file(&Stamp::of(&expected)) {
        return Err(ErrorKind::Interrupted.into());
    }
    Ok((file, found))
}

fn check(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    Err(if found.is_dir() {
        io::Error::new(ErrorKind::IsADirectory, "is a directory, not a file")
    } else if found.is_symlink() {
        io::Error::new(ErrorKind::InvalidInput, LINK)
    } else {
        io::Error::new(
            ErrorKind::InvalidInput,
            "is a pipe, a socket or a device; only regular files are read",
        )
    })
}

/// Reads a regular file of at most `limit` bytes; a symbolic link is followed.
///
/// # Errors
/// As the system says, when it is not a regular file, and when it is larger.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    again(|| bytes(open(path)?, limit))
}

/// As [`read`]; a symbolic link is an error.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_unlinked(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    again(|| bytes(open_unlinked(path)?, limit))
}

/// As [`read_unlinked`], for UTF-8 text.
///
/// # Errors
/// As [`read_unlinked`], and when it is not UTF-8.
pub(crate) fn read_text_unlinked(path: &Path, limit: u64) -> io::Result<String> {
    text(read_unlinked(path, limit)?)
}

/// As [`read`], for UTF-8 text below a root, and without a symbolic link on the way.
///
/// # Errors
/// As [`open_below`], and when it is not UTF-8.
pub(crate) fn read_text_below(root: &Path, path: &Path, limit: u64) -> io::Result<String> {
    text(again(|| bytes(open_below(root, path)?, limit))?)
}

/// As [`read`], for UTF-8 text.
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// The bytes of an open file.
///
/// # Errors
/// When it cannot be read, or is larger than `limit`.
pub(crate) fn bytes((file, found): (File, Metadata), limit: u64) -> io::Result<Vec<u8>> {
    let too_large = |size: u64| {
        let message = format!("is {size} bytes long; at most {limit} are read");
        io::Error::new(ErrorKind::FileTooLarge, message)
    };
    if found.len() > limit {
        return Err(too_large(found.len()));
    }
    let mut read = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
    file.take(limit + 1).read_to_end(&mut read)?;
    let size = u64::try_from(read.len()).unwrap_or(u64::MAX);
    if size > limit {
        return Err(too_large(size));
    }
    Ok(read)
}

/// UTF-8 text; the error does not show the content, which may be a secret.
///
/// # Errors
/// When it is not UTF-8.
pub(crate) fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "is not text (UTF-8)"))
}

/// Whether such an error says that a file cannot be what it should be, rather than that it cannot be read now.
pub(crate) fn is_unusable(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidInput | ErrorKind::IsADirectory | ErrorKind::FileTooLarge
    )
}

/// A file that is replaced while it is opened is opened again.
fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..8 {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    fn pipe(folder: &Path) -> std::path::PathBuf {
        let path = folder.join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        path
    }

    #[test]
    fn pipe_directory_and_device_are_errors_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for path in [&pipe(folder.path()), folder.path(), Path::new("/dev/zero")] {
            read(path, 10).unwrap_err();
            read_unlinked(path, 10).unwrap_err();
        }
    }

    #[test]
    fn large_file_is_refused_by_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        File::create(&path).unwrap().set_len(3 << 30).unwrap();
        let error = read(&path, DOCUMENT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{error}");
    }

    #[test]
    fn symbolic_link_is_followed_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_text(&link, 10).unwrap(), "x");
        read_unlinked(&link, 10).unwrap_err();
    }
}
