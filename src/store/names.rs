//! Decides by name which files of a folder are documents.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::document::DocumentError;
use crate::model::ObjectName;
use crate::util::fs;

use super::read;

/// The names of the documents in a folder, and the errors of files that look like documents but are not valid ones.
pub(super) struct Listed {
    pub(super) names: BTreeSet<ObjectName>,
    pub(super) problems: Vec<DocumentError>,
}

pub(super) fn names(path: &Path) -> std::io::Result<Listed> {
    // A linked folder could be outside of the state directory, and a change in it causes no event.
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(std::io::Error::other(
            "it is a symbolic link, which is never followed",
        ));
    }
    let mut listed = Listed {
        names: BTreeSet::new(),
        problems: Vec::new(),
    };
    for entry in fs::read_dir(path)? {
        let file = entry?.file_name();
        let file = Path::new(&file);
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
pub(super) fn misnamed(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let files = entries.flatten().map(|entry| entry.path());
    let wrong = |file: &PathBuf| {
        file.extension()
            .is_some_and(|end| end != "yaml" && looks_like_a_document(end))
            && file
                .file_name()
                .is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
    };
    let mut files: Vec<PathBuf> = files.filter(wrong).collect();
    files.sort();
    files
}
