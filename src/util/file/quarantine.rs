//! Moves files out of the way that cannot be what they should be. Nothing is deleted or replaced.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::write::{folder, sync_folder};
use crate::util::fs;

/// Suffix of a quarantined file; no listing and no include of BIRD matches it.
pub(crate) const QUARANTINED: &str = ".broken";

/// Limit of quarantined files with one name.
const MOST: usize = 1000;

/// Renames a file or a directory to `<name>.broken`, or to the next free `<name>.broken.2`, with one warning. Returns
/// the new path.
///
/// # Errors
/// It cannot be renamed, or there are a thousand already.
pub(crate) fn quarantine(path: &Path, why: &str) -> io::Result<PathBuf> {
    let name = |number| match number {
        1 => QUARANTINED.to_owned(),
        number => format!("{QUARANTINED}.{number}"),
    };
    for end in (1..MOST).map(name) {
        let mut target = path.as_os_str().to_owned();
        target.push(end);
        let target = PathBuf::from(target);
        match rename_to_free(path, &target) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            renamed => {
                renamed?;
                tracing::warn!(file = %path.display(), quarantine = %target.display(), why, "file quarantined");
                return sync_folder(folder(path)).map(|()| target);
            }
        }
    }
    let message = format!("{MOST} quarantined files of this name exist; remove some of them");
    Err(io::Error::new(ErrorKind::AlreadyExists, message))
}

/// Renames atomically, if the new name is free.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(to).is_ok() => {
            Err(ErrorKind::AlreadyExists.into())
        }
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn quarantined_files_are_numbered_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        for number in 1..4 {
            fs::write(&path, number.to_string()).unwrap();
            quarantine(&path, "not a report").unwrap();
        }
        fs::create_dir(&path).unwrap();
        quarantine(&path, "is a directory").unwrap();
        let text = |end: &str| fs::read_to_string(folder.path().join(format!("report.json{end}")));
        assert_eq!(text(".broken").unwrap(), "1");
        assert_eq!(text(".broken.3").unwrap(), "3");
        assert!(folder.path().join("report.json.broken.4").is_dir());
    }

    #[test]
    fn dangling_link_in_the_way_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "x").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("x.broken")).unwrap();
        let target = quarantine(&path, "test").unwrap();
        assert_eq!(target, folder.path().join("x.broken.2"));
    }
}
