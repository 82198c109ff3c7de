//! The agents of this host, by the identity of their state directories: one file each in
//! `/run/moenet-agent`, which a reboot clears together with the kernel's links. At its first start
//! a second agent uses these files to distinguish the links of the first agent from links that a
//! lost directory of its own left.

use std::path::{Path, PathBuf};

use tracing::debug;

use crate::model::Identity;
use crate::observed::mark::mark_of;
use crate::util::file::{self, Writer};

const DIRECTORY: &str = "/run/moenet-agent";

fn record(identity: &Identity) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{identity}.state"))
}

/// Records the path of this identity's directory. Without the record only the first start of
/// another agent on this host needs an approval.
pub(super) fn note(identity: &Identity, dir: &Path) {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let text = format!(
        "# {}: its state directory\n{}\n",
        mark_of(identity),
        dir.display()
    );
    let written = std::fs::create_dir_all(DIRECTORY).and_then(|()| {
        Writer::new(0o644)
            .light()
            .replace(&record(identity), text.as_bytes())
    });
    if let Err(error) = written {
        debug!(%error, "state directory not recorded in {DIRECTORY}");
    }
}

/// Returns whether the identity belongs to a state directory other than this one. The record is
/// enough, even if that directory cannot be read now: its disk may be the one that is not mounted.
pub(super) fn has_directory(identity: &Identity, other_than: &Path) -> bool {
    match file::read_text(&record(identity), file::TOKEN) {
        Ok(text) => names_other(&text, other_than) && is_there(&text),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Returns whether the named directory exists, mounted or not. One that does not was moved, or its path corrected.
fn is_there(text: &str) -> bool {
    let found = text.lines().nth(1).map(std::fs::symlink_metadata);
    found.is_some_and(|found| match found {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    })
}

/// Returns whether the text of a record names another directory.
fn names_other(text: &str, other_than: &Path) -> bool {
    let named = text.lines().nth(1).map(Path::new);
    let other_than = std::path::absolute(other_than).ok();
    named.is_some_and(|dir| Some(dir) != other_than.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_of_another_directory_is_believed_without_reading_the_directory() {
        let note = "# moenet-agent:2:4f1c8a09d2e7b365: its state directory\n/mnt/not-mounted\n";
        assert!(names_other(note, Path::new("/var/lib/moenet-agent")));
        assert!(!names_other(note, Path::new("/mnt/not-mounted")));
        assert!(!names_other("", Path::new("/mnt/not-mounted")));
    }
}
