use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Instant;

use super::{APPROVED, StoreError, at_branch, atomic, moved};
use crate::intervals::{APPROVALS_POLL, APPROVALS_WAIT, HEAD_FOLLOWS};
use crate::util::fs;
use crate::util::task::pause;

/// The lock of the file of approvals.
pub(super) const LOCK: &str = ".approved.lock";

/// The lines of the file of approvals.
pub(super) fn read(dir: &Path) -> Result<BTreeSet<String>, StoreError> {
    let path = dir.join(APPROVED);
    let text = super::read::text(&path)?
        .map(|read| read.text)
        .unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// Changes the file of approvals under a lock, because both operator and agent write it.
pub(super) fn change(
    dir: &Path,
    change: impl FnOnce(&mut BTreeSet<String>),
) -> Result<(), StoreError> {
    moved::wait_for_git(dir, HEAD_FOLLOWS, Instant::now());
    at_branch(dir)?;
    let lock = dir.join(LOCK);
    let mut options = File::options();
    // Another user who could open it could hold it.
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let file = fs::open(&lock, options).map_err(StoreError::io("open", &lock))?;
    let end = Instant::now() + APPROVALS_WAIT;
    while let Err(error) = file.try_lock() {
        if let TryLockError::Error(error) = error {
            return Err(StoreError::io("lock", &lock)(error));
        }
        if Instant::now() >= end {
            let dir = dir.to_owned();
            return Err(StoreError::ApprovalsLocked { dir });
        }
        pause(APPROVALS_POLL);
    }
    let mut approved = read(dir)?;
    change(&mut approved);
    let path = dir.join(APPROVED);
    if approved.is_empty() {
        return atomic::remove(&path).map(drop);
    }
    let lines: String = approved.iter().map(|line| format!("{line}\n")).collect();
    atomic::write(&path, lines.as_bytes(), 0o644)
}
