//! Copies of the files that an adoption may change, and their restoration byte for byte.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{AdoptionError, record};
use crate::adopt::record::{FileBefore, Record};
use crate::model::Identity;
use crate::observed::bird::mark::{self, Mark};
use crate::util::file::{self, Writer};
use crate::util::fs;

/// The most files, and bytes, that are copied.
const MOST_FILES: u64 = 20_000;
const MOST_BYTES: u64 = 256 << 20;

/// Regular files and folders below some roots. Links are not followed: the agent replaces none.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeSet<PathBuf>,
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Tree {
    /// Lists a file, or a folder with everything below it except these paths. A missing one has nothing.
    pub(super) fn list(&mut self, path: &Path, except: &[PathBuf]) -> Result<(), AdoptionError> {
        if except.iter().any(|it| it == path) {
            return Ok(());
        }
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found.map_err(AdoptionError::file("read", path))?,
        };
        if found.is_file() {
            self.files.insert(path.to_owned());
            return Ok(());
        }
        if !found.is_dir() {
            return Ok(());
        }
        self.folders.insert(path.to_owned());
        let entries = fs::read_dir(path).map_err(AdoptionError::file("list", path))?;
        for entry in entries {
            let entry = entry.map_err(AdoptionError::file("list", path))?;
            self.list(&entry.path(), except)?;
        }
        Ok(())
    }

    /// Copies every file into the record's folder, durably.
    pub(super) fn copy(&self, state: &Path) -> Result<Vec<FileBefore>, AdoptionError> {
        let (folder, mut copies, mut bytes) = (record::folder(state), Vec::new(), 0);
        for (number, path) in (1..).zip(&self.files) {
            let (file, found) =
                file::open_unlinked(path).map_err(AdoptionError::file("read", path))?;
            let (mode, group) = (found.mode() & 0o7777, found.gid());
            bytes += found.len();
            if bytes > MOST_BYTES || number > MOST_FILES {
                return Err(AdoptionError::TooMuch {
                    path: path.clone(),
                    most: if number > MOST_FILES {
                        MOST_FILES
                    } else {
                        MOST_BYTES
                    },
                });
            }
            let content = file::bytes((file, found), MOST_BYTES)
                .map_err(AdoptionError::file("read", path))?;
            let copy = format!("copy-{number}");
            let target = folder.join(&copy);
            let written = Writer::new(0o600).replace(&target, &content);
            written.map_err(AdoptionError::file("write", &target))?;
            copies.push(FileBefore {
                path: path.clone(),
                copy,
                mode,
                group,
            });
        }
        Ok(copies)
    }
}

/// Restores the files that the agent has changed since. One outside the state directory without its mark is left alone:
/// another has written it since, the operator or the distribution.
pub(super) fn restore(
    state: &Path,
    record: &Record,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<(), AdoptionError> {
    let folder = record::folder(state);
    for before in &record.files {
        let is_inside = before.path.starts_with(state);
        if !is_inside && fs::exists(&before.path) && !is_ours(&before.path) {
            continue;
        }
        let copy = folder.join(&before.copy);
        let content =
            file::read_unlinked(&copy, MOST_BYTES).map_err(AdoptionError::file("read", &copy))?;
        let now = file::read_unlinked(&before.path, MOST_BYTES);
        if now.is_ok_and(|now| now == content) {
            continue;
        }
        if let Some(parent) = before.path.parent() {
            fs::create_dirs(parent, 0o755).map_err(AdoptionError::file("create", parent))?;
        }
        let writer = Writer::new(before.mode).group(Some(before.group));
        let written = writer.replace(&before.path, &content);
        written.map_err(AdoptionError::file("restore", &before.path))?;
    }
    Ok(())
}

/// Removes the files and empty folders below a root that did not exist before.
pub(super) fn remove_new(
    tree: &Tree,
    record: &Record,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<(), AdoptionError> {
    let before: BTreeSet<_> = record.files.iter().map(|it| &it.path).collect();
    for path in tree.files.iter().filter(|it| !before.contains(it)) {
        if is_ours(path) {
            file::remove_file(path).map_err(AdoptionError::file("remove", path))?;
        }
    }
    // The deepest first. A folder with a file of another owner stays.
    for folder in tree.folders.iter().rev() {
        if record.folders.contains(folder) {
            continue;
        }
        match fs::remove_dir(folder) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
                ) =>
            {
                return Err(AdoptionError::file("remove", folder)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether a file has the mark of this state directory.
pub(super) fn is_marked(path: &Path, identity: &Identity) -> bool {
    let Ok(bytes) = file::read_unlinked(path, MOST_BYTES) else {
        return false;
    };
    let text = String::from_utf8_lossy(&bytes);
    let Mark::Complete { identity: of, .. } = mark::read(&text) else {
        return false;
    };
    of.as_ref() == Some(identity)
}
