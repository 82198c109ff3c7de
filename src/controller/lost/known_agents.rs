//! The agents of this host, by the identity of their state directories: one file each in
//! `/run/moenet-agent`, which a reboot clears together with the kernel's links. At its first start
//! a second agent uses these files to distinguish the links of the first agent from links that a
//! lost directory of its own left.

use std::io;
use std::path::{Path, PathBuf};

use tracing::debug;

use crate::model::Identity;
use crate::observed::mark::mark_of;
use crate::util::file::{self, Writer};
use crate::util::fs;

const DIRECTORY: &str = "/run/moenet-agent";

fn record(identity: &Identity) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{identity}.state"))
}

/// Records the path of this identity's directory. Without the record only the first start of
/// another agent on this host needs an approval.
pub(crate) fn note(identity: &Identity, dir: &Path) {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let text = format!(
        "# {}: its state directory\n{}\n",
        mark_of(identity),
        dir.display()
    );
    let written = fs::create_dir_all(DIRECTORY).and_then(|()| {
        Writer::new(0o644)
            .light()
            .replace(&record(identity), text.as_bytes())
    });
    if let Err(error) = written {
        debug!(%error, "state directory not recorded in {DIRECTORY}");
    }
}

/// Removes the record of an identity whose directory and marks are gone.
pub(crate) fn forget(identity: &Identity) {
    if let Err(error) = file::remove(&record(identity)) {
        debug!(%error, "record of a removed state directory stays in {DIRECTORY}");
    }
}

/// Returns whether the identity belongs to a state directory other than this one. The note is
/// enough, even if that directory cannot be read now: its disk may be the one that is not mounted.
pub(super) fn has_directory(identity: &Identity, other_than: &Path) -> bool {
    is_of_other(
        file::read_text(&record(identity), file::TOKEN),
        other_than,
        is_there,
    )
}

/// Returns the directory that the identity's note names, if it is another one and does not exist: it
/// was moved, or the disk below which it lies is not mounted.
pub(super) fn missing_directory(identity: &Identity, other_than: &Path) -> Option<PathBuf> {
    let text = file::read_text(&record(identity), file::TOKEN).ok()?;
    let directory = named(&text)?;
    (names_other(&text, other_than) && !is_there(directory)).then(|| directory.to_owned())
}

/// A note that exists and cannot be read may name any directory, so the identity stays foreign.
fn is_of_other(
    note: io::Result<String>,
    other_than: &Path,
    is_there: impl Fn(&Path) -> bool,
) -> bool {
    match note {
        Ok(text) => names_other(&text, other_than) && named(&text).is_some_and(is_there),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Returns whether a directory exists, readable or not.
fn is_there(directory: &Path) -> bool {
    match fs::symlink_metadata(directory) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn named(text: &str) -> Option<&Path> {
    text.lines().nth(1).map(Path::new)
}

/// Returns whether the text of a note names another directory.
fn names_other(text: &str, other_than: &Path) -> bool {
    let other_than = std::path::absolute(other_than).ok();
    named(text).is_some_and(|directory| Some(directory) != other_than.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "# moenet-agent:2:4f1c8a09d2e7b365: its state directory\n/mnt/other/state\n";

    fn note() -> io::Result<String> {
        Ok(NOTE.to_owned())
    }

    #[test]
    fn note_of_this_directory_makes_no_identity_foreign() {
        let own = Path::new("/mnt/other/state");
        assert!(!is_of_other(note(), own, |_| true));
        assert!(!is_of_other(Ok(String::new()), own, |_| true));
    }

    #[test]
    fn identity_of_a_directory_that_is_gone_is_not_foreign() {
        let own = Path::new("/var/lib/moenet-agent");
        assert!(is_of_other(note(), own, |_| true));
        assert!(!is_of_other(note(), own, |_| false));
    }

    #[test]
    fn unreadable_note_makes_its_identity_foreign() {
        let own = Path::new("/var/lib/moenet-agent");
        for kind in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::InvalidData,
            io::ErrorKind::IsADirectory,
            io::ErrorKind::Other,
        ] {
            assert!(is_of_other(Err(kind.into()), own, |_| false), "{kind}");
        }
        assert!(!is_of_other(
            Err(io::ErrorKind::NotFound.into()),
            own,
            |_| true
        ));
    }

    #[test]
    fn unreadable_directory_exists() {
        let folder = tempfile::tempdir().unwrap();
        let looped = folder.path().join("loop");
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        assert!(is_there(&looped.join("state")), "the path is a loop");
        assert!(!is_there(&folder.path().join("state")));
    }
}
