//! The agents of this host, by the identity of their state directories: a file each in `/run/moenet-agent`, which a
//! reboot empties as it does the kernel's links. By it a second agent's first start tells the links of the first
//! from links that a lost directory of its own left.

use std::path::{Path, PathBuf};

use tracing::debug;

use crate::disk;
use crate::model::Identity;
use crate::plan::mark::mark_of;
use crate::store::StateIdentity;

const DIRECTORY: &str = "/run/moenet-agent";

fn file(identity: &Identity) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{identity}.state"))
}

/// Notes where the directory of this identity is. Without the note only the first start of another agent on this
/// host has to be approved.
pub(super) fn note(identity: &Identity, dir: &Path) {
    let text = format!(
        "# {}: its state directory\n{}\n",
        mark_of(identity),
        dir.display()
    );
    let written =
        std::fs::create_dir_all(DIRECTORY).and_then(|()| std::fs::write(file(identity), text));
    if let Err(error) = written {
        debug!(%error, "the state directory is not noted in {DIRECTORY}");
    }
}

/// Whether another state directory than this one has the identity.
pub(super) fn has_directory(identity: &Identity, other_than: &Path) -> bool {
    let text = disk::read_text(&file(identity), disk::TOKEN).unwrap_or_default();
    let Some(dir) = text.lines().nth(1).map(Path::new) else {
        return false;
    };
    let same = std::path::absolute(other_than).is_ok_and(|other| other == dir);
    let there = || StateIdentity::read(dir).is_some_and(|known| known.identity == *identity);
    !same && there()
}
