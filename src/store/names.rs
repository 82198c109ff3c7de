//! The entries of the folders, and by their names which of them are documents.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::DocumentError;
use crate::model::ObjectName;
use crate::util::file::Stamp;
use crate::util::fs;

use super::read;

/// The entries of folders; a folder is read again only when it changed.
#[derive(Debug, Default)]
pub(super) struct Folders(HashMap<PathBuf, Folder>);

#[derive(Debug)]
struct Folder {
    stamp: Stamp,
    entries: Arc<[Entry]>,
}

/// A file or folder in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: OsString,
    pub(super) is_folder: bool,
}

impl Folders {
    /// Returns the entries of a folder; a symbolic link to one is followed.
    pub(super) fn entries(&mut self, path: &Path) -> io::Result<Arc<[Entry]>> {
        let stamp = Stamp::of(&fs::metadata(path)?);
        if let Some(folder) = self.0.get(path)
            && folder.stamp == stamp
        {
            return Ok(Arc::clone(&folder.entries));
        }
        // A change while the folder is read makes the stamp younger than it is now, so that it is not settled.
        let is_settled = stamp.is_settled();
        let entries = fs::read_dir(path)?.map(|entry| {
            let entry = entry?;
            let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
            let name = entry.file_name();
            Ok(Entry { name, is_folder })
        });
        let entries: Arc<[Entry]> = entries.collect::<io::Result<Vec<_>>>()?.into();
        if is_settled {
            let entries = Arc::clone(&entries);
            self.0.insert(path.to_owned(), Folder { stamp, entries });
        } else {
            self.0.remove(path);
        }
        Ok(entries)
    }
}

/// The names of the documents in a folder, and the errors of files that look like documents but are not valid ones.
pub(super) struct Listed {
    pub(super) names: BTreeSet<ObjectName>,
    pub(super) problems: Vec<DocumentError>,
}

pub(super) fn names(path: &Path, folders: &mut Folders) -> io::Result<Listed> {
    // A linked folder could be outside of the state directory, and a change in it causes no event.
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::other(
            "it is a symbolic link, which is never followed",
        ));
    }
    let mut listed = Listed {
        names: BTreeSet::new(),
        problems: Vec::new(),
    };
    for entry in &*folders.entries(path)? {
        let file = Path::new(&entry.name);
        if !is_document(file) {
            continue;
        }
        match file
            .file_stem()
            .and_then(OsStr::to_str)
            .unwrap_or("�")
            .parse()
        {
            Ok(name) => drop(listed.names.insert(name)),
            Err(error) => listed
                .problems
                .push(read::error(&path.join(file), error.to_string())),
        }
    }
    Ok(listed)
}

/// Returns whether a file is intended as a document. Editors' temporary files are not:
/// `.x.yaml.swp`, `x.yaml~`, `.#x.yaml`, `4913`, `x.yaml.bak`, `x.yaml.tmp`, `sedQ1x2`.
pub(super) fn is_document(file: &Path) -> bool {
    let hidden = file.as_os_str().as_encoded_bytes().starts_with(b".");
    !hidden && file.extension() == Some(OsStr::new("yaml"))
}

/// Returns whether a file with this ending is probably intended as a document.
pub(super) fn looks_like_a_document(end: &OsStr) -> bool {
    ["yaml", "yml", "json"]
        .iter()
        .any(|known| end.eq_ignore_ascii_case(known))
}

/// Returns the files in a folder that are intended as documents but have another ending.
pub(super) fn misnamed(path: &Path, folders: &mut Folders) -> Vec<PathBuf> {
    let Ok(entries) = folders.entries(path) else {
        return Vec::new();
    };
    let wrong = |entry: &&Entry| {
        let end = Path::new(&entry.name).extension();
        end.is_some_and(|end| end != "yaml" && looks_like_a_document(end))
            && !entry.name.as_encoded_bytes().starts_with(b".")
    };
    let files = entries.iter().filter(wrong);
    let mut files: Vec<PathBuf> = files.map(|entry| path.join(&entry.name)).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intervals::FILE_SETTLED;
    use std::fs;
    use std::time::Duration;

    #[test]
    fn young_folder_is_read_again() {
        let (folder, mut folders) = (tempfile::tempdir().unwrap(), Folders::default());
        for count in 0..4 {
            assert_eq!(folders.entries(folder.path()).unwrap().len(), count);
            fs::write(folder.path().join(count.to_string()), "").unwrap();
        }
    }

    #[test]
    fn unchanged_folder_is_read_once() {
        let (folder, mut folders) = (tempfile::tempdir().unwrap(), Folders::default());
        fs::write(folder.path().join("a.yaml"), "").unwrap();
        std::thread::sleep(FILE_SETTLED + Duration::from_millis(100));
        let first = folders.entries(folder.path()).unwrap();
        let second = folders.entries(folder.path()).unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        fs::rename(folder.path().join("a.yaml"), folder.path().join("b.yaml")).unwrap();
        let listed = names(folder.path(), &mut folders).unwrap();
        assert_eq!(listed.names, ["b".parse().unwrap()].into());
    }
}
