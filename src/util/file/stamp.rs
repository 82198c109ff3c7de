//! Tells whether a file changed, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::intervals::{FILE_SETTLED, FILE_SETTLED_COARSE};
use crate::util::fs;

/// The attributes that change with a file: device, inode, size, and the times of the last change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns the stamp of the file at a path; a symbolic link is followed. `None` without a readable file.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }

    /// As [`Stamp::at`], for the path itself, whatever its file type.
    pub(crate) fn at_unlinked(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::of)
    }

    /// Returns whether two stamps are of one file, changed or not.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns whether any later change must change the stamp.
    pub(crate) fn is_settled(&self) -> bool {
        // A file system that keeps parts of a second keeps the clock of the kernel.
        let tick = match self.changed.1 {
            0 => FILE_SETTLED_COARSE,
            _ => FILE_SETTLED,
        };
        self.age().is_some_and(|age| age > tick)
    }

    /// Time since the last change, which no program can set, unlike the time of modification. `None` for a change in
    /// the future, as after a clock that was set back.
    pub(crate) fn age(&self) -> Option<Duration> {
        let nanos = u32::try_from(self.changed.1).ok()?;
        let changed = UNIX_EPOCH + Duration::new(u64::try_from(self.changed.0).ok()?, nanos);
        SystemTime::now().duration_since(changed).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn replaced_file_has_another_stamp_even_with_its_old_times() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "1").unwrap();
        fs::write(&other, "2").unwrap();
        let before = Stamp::at(&path).unwrap();
        assert_eq!(Stamp::at(&path), Some(before));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::File::open(&other).unwrap();
        file.set_modified(modified).unwrap();
        fs::rename(&other, &path).unwrap();
        let after = Stamp::at(&path).unwrap();
        assert_ne!(after, before);
        assert!(!after.is_same_file(&before));
    }

    #[test]
    fn stamp_without_parts_of_a_second_settles_later() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let changed = |ago: Duration, nanos| Stamp {
            changed: (i64::try_from((now - ago).as_secs()).unwrap(), nanos),
            ..Stamp::default()
        };
        let second = Duration::from_secs(1);
        assert!(changed(second * 2, 1).is_settled());
        assert!(!changed(second, 0).is_settled());
        assert!(changed(FILE_SETTLED_COARSE + second, 0).is_settled());
        assert!(!changed(Duration::ZERO, 999_999_999).is_settled());
    }

    #[test]
    fn link_has_its_own_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(Stamp::at(&link), None);
        assert!(Stamp::at_unlinked(&link).is_some());
    }
}
