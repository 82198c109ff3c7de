//! Reads the files that operators write from a directory.

use std::io;
use std::path::{Path, PathBuf};

use super::FleetError;
use super::network::{FleetFiles, NETWORK};
use crate::util::file;
use crate::util::fs;

/// The folders with files of a network, and how deep these are.
const FOLDERS: [(&str, usize); 2] = [("routers", 1), ("sessions", 2)];

/// Reads the description of a network and of its routers and sessions; a fleet may have none.
///
/// # Errors
/// One of the files cannot be read: a part of them is no fleet.
pub fn read(dir: &Path) -> Result<FleetFiles, FleetError> {
    let mut files = FleetFiles::default();
    add(&mut files, dir, Path::new(NETWORK))?;
    if files.has_network() {
        for (folder, depth) in FOLDERS {
            add_folder(&mut files, dir, Path::new(folder), depth)?;
        }
    }
    Ok(files)
}

fn add_folder(
    files: &mut FleetFiles,
    dir: &Path,
    folder: &Path,
    depth: usize,
) -> Result<(), FleetError> {
    let unreadable = |source| FleetError::Unreadable {
        file: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir.join(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(unreadable)?,
    };
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        // Editors and tools keep hidden files beside their own.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path: PathBuf = folder.join(&name);
        if depth > 1 {
            if fs::is_dir(dir.join(&path)) {
                add_folder(files, dir, &path, depth - 1)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            add(files, dir, &path)?;
        }
    }
    Ok(())
}

fn add(files: &mut FleetFiles, dir: &Path, path: &Path) -> Result<(), FleetError> {
    let unreadable = |source| FleetError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let text = match file::read_text(&dir.join(path), file::DOCUMENT) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(unreadable)?,
    };
    let no_text = || unreadable(io::Error::other("its name is not UTF-8"));
    files.insert(path.to_str().ok_or_else(no_text)?, text);
    Ok(())
}
