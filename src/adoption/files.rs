//! Copies of the files that an adoption may change, and the removal of those that it added.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{AdoptionError, record};
use crate::adopt::record::{FileBefore, Record};
use crate::document::Kind;
use crate::store::{Area, Place, has_copy, is_bookkeeping};
use crate::util::file::{self, Writer};
use crate::util::fs;
use crate::util::sorted::Sorted as _;

/// The most files, and bytes, that are copied.
const MOST_FILES: u64 = 20_000;
pub(super) const MOST_BYTES: u64 = 256 << 20;

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

    /// Returns the files that did not exist before.
    pub(super) fn new_files<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = &'a PathBuf> {
        let before = record.paths();
        self.files.iter().filter(move |it| !before.contains(it))
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

/// Returns the hashes of the recorded files as they are now, without those that operators write too.
pub(super) fn hashes(state: &Path, record: &Record) -> BTreeMap<PathBuf, String> {
    let files = record.files.iter().map(|before| &before.path);
    let files = files.filter(|path| !path.strip_prefix(state).is_ok_and(is_for_operators));
    let hashed = files.filter_map(|path| Some((path.clone(), hash_of(path)?)));
    hashed.sorted_map()
}

fn hash_of(path: &Path) -> Option<String> {
    Some(hash(&file::read_unlinked(path, MOST_BYTES).ok()?))
}

pub(super) fn hash(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the hashes of the files that the adoption added to the state directory, without a document that an operator
/// added meanwhile.
pub(super) fn made(
    state: &Path,
    record: &Record,
) -> Result<BTreeMap<PathBuf, String>, AdoptionError> {
    let mut tree = Tree::default();
    tree.list(state, &[record::folder(state), state.join(".git")])?;
    let (before, own) = (record.paths(), documents(record));
    let is_made = |path: &PathBuf| {
        path.strip_prefix(state)
            .is_ok_and(|it| own.contains(it) || has_copy(state, it) || !is_for_operators(it))
    };
    let new = tree.files.into_iter().filter(|it| !before.contains(it));
    let hashed = new
        .filter(is_made)
        .filter_map(|path| hash_of(&path).map(|hash| (path, hash)));
    Ok(hashed.sorted_map())
}

/// Returns the documents and overrides that the adoption writes, below the state directory.
fn documents(record: &Record) -> BTreeSet<PathBuf> {
    let place = |area, name| Place::new(area, Kind::BgpSession, name).relative();
    let written = &record.written;
    let documents = written.documents.keys();
    let documents = documents.map(|name| place(Area::Documents, name));
    let overrides = written.overrides.keys();
    documents
        .chain(overrides.map(|name| place(Area::Overrides, name)))
        .sorted_set()
}

/// Returns whether a file below the state directory is in a place for documents or overrides, where operators write too.
pub(super) fn is_for_operators(relative: &Path) -> bool {
    let first = relative.iter().next().unwrap_or_default();
    let stem = Path::new(first).file_stem().and_then(OsStr::to_str);
    first == Area::Overrides.folder() || Kind::ALL.iter().any(|kind| stem == Some(kind.folder()))
}

/// Returns whether the adoption wrote a file of the state directory, and it was not changed since. What the agent alone
/// writes needs no proof.
pub(super) fn is_made(state: &Path, record: &Record, path: &Path) -> bool {
    let made = record.made.get(path);
    let is_same = made.is_some() && made == hash_of(path).as_ref();
    is_same || path.strip_prefix(state).is_ok_and(is_bookkeeping)
}

/// Returns the place in a folder for files that cannot be moved beside it.
pub(super) fn inside(root: &Path, beside: &Path) -> PathBuf {
    let end = beside.extension().unwrap_or_default();
    let mut name = OsString::from(".");
    name.push(end);
    root.join(name)
}

/// Moves the files below a root that did not exist before into another folder, except the adoption's own; where the root is a
/// mount, into a folder of it. Returns the folder, if any file was moved.
pub(super) fn move_new(
    root: &Path,
    tree: &Tree,
    record: &Record,
    beside: &Path,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<Option<PathBuf>, AdoptionError> {
    let mut target = None;
    for path in tree.new_files(record).filter(|it| !is_ours(it)) {
        let Ok(relative) = path.strip_prefix(root) else {
            continue;
        };
        let to = target.get_or_insert_with(|| beside.to_owned());
        match move_into(path, &to.join(relative)) {
            Err(error) if is_of_mount(&error) && to.as_path() == beside => {
                discard(&to.join(relative), beside);
                *to = inside(root, beside);
                move_into(path, &to.join(relative))
            }
            done => done,
        }
        .map_err(AdoptionError::file("move away", path))?;
    }
    Ok(target)
}

fn move_into(path: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dirs(parent, 0o700)?;
    }
    fs::rename(path, to)
}

/// Returns whether a file or folder cannot be moved out because it is a mount, or in one, or below a folder that cannot be
/// written, as a service's state directory is.
pub(super) fn is_of_mount(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::CrossesDevices
            | ErrorKind::ResourceBusy
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::PermissionDenied
    )
}

/// Removes the empty folders of a move that failed, up to the first one.
fn discard(path: &Path, first: &Path) {
    let folders = path.ancestors().skip(1);
    for folder in folders.take_while(|folder| folder.starts_with(first)) {
        // One that holds something else stays.
        let _ = fs::remove_dir(folder);
    }
}

/// Removes the files and empty folders below a root that did not exist before. Returns the number of files.
pub(super) fn remove_new(
    tree: &Tree,
    record: &Record,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<u32, AdoptionError> {
    let mut removed = 0;
    for path in tree.new_files(record) {
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

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in super::super) fn record() -> Record {
        let time = "2026-01-01T00:00:00Z";
        let record = json!({
            "begun": time, "deadline": time, "phase": "applying", "documents": [], "stateExisted": true,
            "links": {}, "added": [], "all": {}, "units": [], "files": [], "folders": []
        });
        serde_json::from_value(record).unwrap()
    }

    pub(in super::super) fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn only_what_the_adoption_made_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (state, aside) = (folder.path().join("state"), folder.path().join("aside"));
        let path = |name: &str| state.join(name);
        for name in ["sessions/made.yaml", "sessions/changed.yaml"] {
            write(&path(name), "of the adoption");
        }
        for name in [
            "sessions/meanwhile.yaml",
            "sessions/synced.yaml",
            ".synced/sessions/synced.yaml",
        ] {
            write(&path(name), "of another");
        }
        let mut record = record();
        for name in ["made", "changed"] {
            let documents = &mut record.written.documents;
            documents.insert(name.parse().unwrap(), json!({}));
        }
        record.made = made(&state, &record).unwrap();
        write(&path("sessions/changed.yaml"), "of the operator");
        write(&path("overrides/sessions/new.yaml"), "of the operator");
        write(&path("status/node.yaml"), "of the agent");
        let mut tree = Tree::default();
        tree.list(&state, &[]).unwrap();
        let is_ours = |path: &Path| is_made(&state, &record, path);
        let moved = move_new(&state, &tree, &record, &aside, is_ours).unwrap();
        assert_eq!(moved.as_ref(), Some(&aside));
        assert_eq!(remove_new(&tree, &record, is_ours).unwrap(), 4);
        let mut kept = Tree::default();
        kept.list(&aside, &[]).unwrap();
        let names = [
            "overrides/sessions/new.yaml",
            "sessions/changed.yaml",
            "sessions/meanwhile.yaml",
        ];
        let names = names.map(|name| aside.join(name));
        assert_eq!(kept.files.into_iter().collect::<Vec<_>>(), names);
    }

    #[test]
    fn nothing_is_moved_without_a_strange_file() {
        let folder = tempfile::tempdir().unwrap();
        let aside = folder.path().join("aside");
        let tree = Tree::default();
        let moved = move_new(folder.path(), &tree, &record(), &aside, |_| false).unwrap();
        assert_eq!((moved, aside.exists()), (None, false));
    }
}
