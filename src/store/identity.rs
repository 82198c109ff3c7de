//! Is the directory that is there now the one that was opened? An unmounted disk leaves an empty
//! directory behind, and an empty directory must never read as "no sessions".

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{StoreError, atomic};
use crate::disk;

/// The file that says that the state directory is really there.
pub(super) const MARKER: &str = ".moenet-state";
/// The file that carries the advisory lock.
pub(super) const LOCK: &str = ".lock";

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// Tells this state directory from every other.
    pub(super) id: String,
    /// Documents may be missing that nobody deleted: the directory is new, or a folder of it vanished.
    pub(super) unproven: bool,
}

impl Marker {
    pub(super) fn new(unproven: bool) -> Self {
        Self {
            id: format!("{:032x}", rand::random::<u128>()),
            unproven,
        }
    }

    /// Reads the marker; `None` when there is none, or none that can be understood.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let text = disk::read_text(&dir.join(MARKER), disk::TOKEN).ok()?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
        };
        let id = value("id:").filter(|id| !id.is_empty())?.to_owned();
        Some(Self {
            id,
            unproven: value("unproven:") == Some("true"),
        })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let Self { id, unproven } = self;
        let text = format!(
            "# By this file the agent knows that its state directory is there. Do not delete it.\n\
             id: {id}\nunproven: {unproven}\n"
        );
        atomic::write(&dir.join(MARKER), text.as_bytes(), 0o644)
    }
}

/// The directory that was opened, and the lock on it.
#[derive(Debug)]
pub(super) struct Held {
    lock: File,
    root: (u64, u64),
    pub(super) marker: Marker,
}

impl Held {
    /// Takes the lock.
    pub(super) fn take(dir: &Path, marker: Marker) -> Result<Self, StoreError> {
        Ok(Self {
            lock: lock(dir)?,
            root: root(dir)?,
            marker,
        })
    }

    /// Makes sure that the directory is the one that was opened, and that the lock still holds.
    pub(super) fn verify(&mut self, dir: &Path) -> Result<(), StoreError> {
        let root = root(dir)?;
        let marker = Marker::read(dir);
        let same = marker
            .as_ref()
            .is_some_and(|marker| marker.id == self.marker.id);
        if root != self.root && !same {
            return Err(vanished(
                dir,
                "is another directory than the one that was opened; mount the right one, or restart the agent to begin anew",
            ));
        }
        self.root = root;
        if self.lock_lost(dir) {
            self.lock = lock(dir)?;
        }
        if !same {
            // Somebody cleaned up in here; what else is gone, nobody knows.
            self.marker.unproven = true;
            self.marker.write(dir)?;
        }
        Ok(())
    }

    /// Notes whether absence proves something, when that changed.
    pub(super) fn set_unproven(&mut self, dir: &Path, unproven: bool) -> Result<(), StoreError> {
        if self.marker.unproven == unproven {
            return Ok(());
        }
        self.marker.unproven = unproven;
        self.marker.write(dir)
    }

    /// Whether the file that we hold the lock on is not the one in the directory any more.
    fn lock_lost(&self, dir: &Path) -> bool {
        let (Ok(held), Ok(there)) = (self.lock.metadata(), fs::symlink_metadata(dir.join(LOCK)))
        else {
            return true;
        };
        (held.dev(), held.ino()) != (there.dev(), there.ino())
    }
}

fn vanished(dir: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Vanished {
        dir: dir.to_owned(),
        reason: reason.into(),
    }
}

/// Device and inode of the state directory.
pub(super) fn root(dir: &Path) -> Result<(u64, u64), StoreError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok((metadata.dev(), metadata.ino())),
        Ok(_) => Err(vanished(dir, "is not a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(vanished(dir, "is not there")),
        Err(error) => Err(vanished(dir, format!("cannot be read ({error})"))),
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let mut file = open_lock(&path).map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {
            // For the message to a second agent; the lock holds without it.
            let _ = file
                .set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            dir: dir.to_owned(),
            holder: holder(&mut file),
        }),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}

/// A read-only file system still has the lock file of better days.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let writable = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    writable.or_else(|error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => File::open(path).map_err(|_| error),
        _ => Err(error),
    })
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "its process is not known".to_owned(),
    }
}
