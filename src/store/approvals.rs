use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{APPROVED, StoreError, at_branch, atomic, moved};
use crate::intervals::{APPROVALS_WAIT, CHANGES_WAIT, HEAD_FOLLOWS};
use crate::util::sorted::Sorted as _;
use crate::util::{file, fs};

/// The lock of the file of approvals.
pub(super) const LOCK: &str = ".approved.lock";
/// The lock of commands that change documents.
pub(super) const CHANGES: &str = ".changes.lock";

/// The lines of the file of approvals.
pub(super) fn read(dir: &Path) -> Result<BTreeSet<String>, StoreError> {
    let path = dir.join(APPROVED);
    let text = super::read::text(&path)?
        .map(|read| read.text)
        .unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).sorted_set())
}

/// Changes the file of approvals under a lock, because both operator and agent write it.
pub(super) fn change(
    dir: &Path,
    change: impl FnOnce(&mut BTreeSet<String>),
) -> Result<(), StoreError> {
    moved::wait_for_git(dir, HEAD_FOLLOWS, Instant::now());
    at_branch(dir)?;
    let Some(_lock) = locked(dir, LOCK, APPROVALS_WAIT)? else {
        let dir = dir.to_owned();
        return Err(StoreError::ApprovalsLocked { dir });
    };
    let mut approved = read(dir)?;
    change(&mut approved);
    let path = dir.join(APPROVED);
    if approved.is_empty() {
        return atomic::remove(&path).map(drop);
    }
    let lines: String = approved.iter().map(|line| format!("{line}\n")).collect();
    atomic::write(&path, lines.as_bytes(), 0o644)
}

/// Takes the lock that lets one operator's command at a time write documents.
///
/// # Errors
/// Another command has it for long, or this user cannot write in the directory.
pub(crate) fn lock_changes(dir: &Path) -> Result<File, StoreError> {
    let lock = locked(dir, CHANGES, CHANGES_WAIT)?;
    lock.ok_or_else(|| StoreError::ChangesLocked {
        dir: dir.to_owned(),
    })
}

/// Lets those open a lock who can write in its directory, and no other user, who could hold it.
fn share(lock: &File, dir: &Path) -> io::Result<()> {
    let (folder, now) = (fs::metadata(dir)?, lock.metadata()?);
    let is_shared = folder.mode() & 0o020 != 0;
    let mode = if is_shared { 0o660 } else { 0o600 };
    let is_so = now.mode() & 0o777 == mode && (!is_shared || now.gid() == folder.gid());
    // Only its owner can change it.
    if is_so || now.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    if is_shared {
        fchown(lock, None, Some(folder.gid()))?;
    }
    lock.set_permissions(Permissions::from_mode(mode))
}

/// Takes a lock of the state directory; `None`: another process has it for longer than `wait`.
fn locked(dir: &Path, name: &str, wait: Duration) -> Result<Option<File>, StoreError> {
    let lock = dir.join(name);
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let file = fs::open(&lock, options).map_err(StoreError::io("open", &lock))?;
    share(&file, dir).map_err(StoreError::io("share", &lock))?;
    let taken = file::lock(&file, wait).map_err(StoreError::io("lock", &lock))?;
    Ok(taken.then_some(file))
}
