//! Reads the files that operators write from a directory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::FleetError;
use super::network::{FleetFiles, NETWORK, OWNERS, RESERVED, ROUTERS, SESSIONS, is_ignored};
use crate::util::file::{self, Stamp};
use crate::util::fs;

/// The folders with files of a network, and how deep these are.
const FOLDERS: [(&str, usize); 3] = [(ROUTERS, 1), (SESSIONS, 2), (OWNERS, 1)];

/// Files and their folders, below a fleet's directory, with their stamps; none for a file that cannot be used.
pub type Stamps = BTreeMap<PathBuf, Option<Stamp>>;

/// Reads the description of a network and of its routers and sessions; a fleet may have none. A file that cannot be
/// read is a fault among the others.
///
/// # Errors
/// A folder cannot be read: a part of the files is no fleet.
pub fn read(dir: &Path) -> Result<FleetFiles, FleetError> {
    Ok(read_changed(dir, &stamps(dir)?, None))
}

/// Reads the files with these stamps, except those that had the same stamp before.
pub fn read_changed(
    dir: &Path,
    stamps: &Stamps,
    before: Option<(&Stamps, &FleetFiles)>,
) -> FleetFiles {
    let mut files = FleetFiles::default();
    for (path, stamp) in stamps {
        let is_same = |known: &Stamps| stamp.is_some() && known.get(path) == Some(stamp);
        let before = before.filter(|(known, _)| is_same(known));
        let known = path.to_str().zip(before);
        if let Some((name, (_, known))) = known
            && let Some(text) = known.text(name)
        {
            files.insert(name, Arc::clone(text));
            continue;
        }
        if is_folder(dir, path) {
            continue;
        }
        match (
            path.to_str(),
            file::read_text(&dir.join(path), file::DOCUMENT),
        ) {
            (Some(name), Ok(text)) => files.insert(name, text),
            (Some(name), Err(error)) => files.fault(name, unusable(&error)),
            (None, _) => files.fault(path.to_string_lossy(), "its name is not UTF-8; rename it"),
        }
    }
    files
}

fn unusable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "a link to a file that does not exist".to_owned(),
        _ => format!("cannot be read: {error}; check its owner and mode"),
    }
}

/// Returns whether a path is that of a folder in which files are searched.
fn is_folder(dir: &Path, path: &Path) -> bool {
    let depth = path.components().count();
    let searched = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder));
    searched.is_some_and(|(_, deepest)| depth <= *deepest) && fs::is_dir(dir.join(path))
}

/// Returns the files of a network's description, and their folders; none for a fleet without one.
///
/// # Errors
/// A folder cannot be read.
pub fn stamps(dir: &Path) -> Result<Stamps, FleetError> {
    let mut found = Stamps::new();
    if lookup(dir, Path::new(NETWORK))?.is_none() {
        return Ok(found);
    }
    found.insert(NETWORK.into(), Stamp::at(&dir.join(NETWORK)));
    for (folder, depth) in FOLDERS {
        add(&mut found, dir, Path::new(folder), depth)?;
    }
    // Routers with a folder of their own beside the network.
    for name in names(dir, Path::new(""))? {
        let path = Path::new(&name).join("router.yaml");
        if RESERVED.iter().all(|folder| name != *folder)
            && let Some(stamp) = Stamp::at(&dir.join(&path))
        {
            found.insert(path, Some(stamp));
        }
    }
    Ok(found)
}

/// Returns the stamp of a path itself; `None` only if nothing is there.
fn lookup(dir: &Path, path: &Path) -> Result<Option<Stamp>, FleetError> {
    match fs::symlink_metadata(dir.join(path)) {
        Ok(found) => Ok(Some(Stamp::of(&found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FleetError::Unreadable {
            file: path.to_owned(),
            source,
        }),
    }
}

fn add(found: &mut Stamps, dir: &Path, folder: &Path, depth: usize) -> Result<(), FleetError> {
    let Some(stamp) = lookup(dir, folder)? else {
        return Ok(());
    };
    found.insert(folder.to_owned(), Some(stamp));
    for name in names(dir, folder)? {
        let path = folder.join(name);
        if depth > 1 && fs::is_dir(dir.join(&path)) {
            add(found, dir, &path, depth - 1)?;
        } else {
            let stamp = Stamp::at(&dir.join(&path));
            found.insert(path, stamp);
        }
    }
    Ok(())
}

/// Returns the names in a folder, without those that are no files of a fleet.
fn names(dir: &Path, folder: &Path) -> Result<Vec<std::ffi::OsString>, FleetError> {
    let unreadable = |source| FleetError::Unreadable {
        file: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir.join(folder)).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if !is_ignored(&name.to_string_lossy()) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn changed_file_alone_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (path, text) in [
            ("network.yaml", "asn: 1"),
            ("routers/jp1.yaml", "id: 1"),
            ("sessions/jp1/a.yaml", "asn: 2"),
            ("sessions/jp1/gone.yaml", "asn: 3"),
        ] {
            write(path, text);
        }
        let before = (stamps(dir.path()).unwrap(), read(dir.path()).unwrap());
        write("sessions/jp1/a.yaml", "asn: 20");
        fs::remove_file(dir.path().join("sessions/jp1/gone.yaml")).unwrap();
        let now = stamps(dir.path()).unwrap();
        let files = read_changed(dir.path(), &now, Some((&before.0, &before.1)));
        assert_eq!(files, read(dir.path()).unwrap());
        let is_kept = |path| Arc::ptr_eq(files.text(path).unwrap(), before.1.text(path).unwrap());
        assert!(is_kept("network.yaml") && is_kept("routers/jp1.yaml"));
        assert_eq!(&**files.text("sessions/jp1/a.yaml").unwrap(), "asn: 20");
        assert!(files.has_structure_of(&before.1));
        write("routers/hk1.yaml", "id: 2");
        assert!(!read(dir.path()).unwrap().has_structure_of(&files));
    }
}
