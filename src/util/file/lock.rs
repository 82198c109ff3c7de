use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, Instant};

use crate::intervals::LOCK_POLL;
use crate::util::task::pause;

/// Takes the lock of an open file or folder until this is closed. `false`: another program held it all the time.
///
/// # Errors
/// The file system has no locks.
pub(crate) fn lock(file: &File, wait: Duration) -> io::Result<bool> {
    let end = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => return Ok(false),
            Err(TryLockError::WouldBlock) => pause(LOCK_POLL),
        }
    }
}
