//! Copies of the files that an adoption may change, and their restoration byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{AdoptionError, Undone, record};
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
            let (mode, owner, group) = (found.mode() & 0o7777, found.uid(), found.gid());
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
                owner: Some(owner),
                group,
            });
        }
        Ok(copies)
    }
}

/// Returns the hashes of the recorded files as they are now.
pub(super) fn hashes(record: &Record) -> BTreeMap<PathBuf, String> {
    let files = record.files.iter();
    let hashed = files.filter_map(|before| {
        let content = file::read_unlinked(&before.path, MOST_BYTES).ok()?;
        Some((before.path.clone(), hash(&content)))
    });
    hashed.collect()
}

fn hash(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Restores the files that the agent has changed since, with owner and mode. One outside the state directory without its mark
/// is left alone: another has written it since, the operator or the distribution.
pub(super) fn restore(
    state: &Path,
    record: &Record,
    is_ours: impl Fn(&Path) -> bool,
    undone: &mut Undone,
) -> Result<(), AdoptionError> {
    let folder = record::folder(state);
    for before in &record.files {
        let copy = folder.join(&before.copy);
        let content =
            file::read_unlinked(&copy, MOST_BYTES).map_err(AdoptionError::file("read", &copy))?;
        let path = &before.path;
        let now = file::open_unlinked(path).and_then(|opened| {
            let found = (opened.1.mode() & 0o7777, opened.1.uid(), opened.1.gid());
            Ok((file::bytes(opened, MOST_BYTES)?, found))
        });
        let now = now.ok();
        let meta = (before.mode, before.owner, before.group);
        let is_same = |(now, (mode, owner, group)): &(Vec<u8>, (u32, u32, u32))| {
            *now == content && (*mode, before.owner.and(Some(*owner)), *group) == meta
        };
        if now.as_ref().is_some_and(is_same) {
            continue;
        }
        let left = record.files_left.get(path);
        let now = now.map(|(now, _)| hash(&now));
        let is_changed = left.is_some() && left != now.as_ref();
        let is_foreign = !path.starts_with(state) && fs::exists(path) && !is_ours(path);
        if is_changed || is_foreign {
            let what = if now.is_some() { "changed" } else { "removed" };
            undone
                .kept
                .push(format!("{} was {what} since", path.display()));
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dirs(parent, 0o755).map_err(AdoptionError::file("create", parent))?;
        }
        let writer = Writer::new(before.mode);
        let writer = writer.owner(before.owner).group(Some(before.group));
        let written = writer.replace(path, &content);
        written.map_err(AdoptionError::file("restore", path))?;
        undone.done.push(format!("restored {}", path.display()));
    }
    Ok(())
}

/// Moves the files below a root that did not exist before into another folder, where someone else may have written them.
pub(super) fn move_new(
    root: &Path,
    tree: &Tree,
    record: &Record,
    target: &Path,
) -> Result<(), AdoptionError> {
    let before: BTreeSet<_> = record.files.iter().map(|it| &it.path).collect();
    for path in tree.files.iter().filter(|it| !before.contains(it)) {
        let Ok(inside) = path.strip_prefix(root) else {
            continue;
        };
        let to = target.join(inside);
        if let Some(parent) = to.parent() {
            fs::create_dirs(parent, 0o700).map_err(AdoptionError::file("create", parent))?;
        }
        fs::rename(path, &to).map_err(AdoptionError::file("move away", path))?;
    }
    Ok(())
}

/// Removes the files and empty folders below a root that did not exist before. Returns the number of files.
pub(super) fn remove_new(
    tree: &Tree,
    record: &Record,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<u32, AdoptionError> {
    let (before, mut removed): (BTreeSet<_>, _) =
        (record.files.iter().map(|it| &it.path).collect(), 0);
    for path in tree.files.iter().filter(|it| !before.contains(it)) {
        if is_ours(path) {
            file::remove_file(path).map_err(AdoptionError::file("remove", path))?;
            removed += 1;
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
    Ok(removed)
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
