//! Reads the files that operators write from a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::FleetError;
use super::network::{
    FleetFiles, NETWORK, OWNERS, RESERVED, ROUTERS, SESSIONS, is_ignored, is_structure,
};
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
    let changed = Changed::since(dir, &Stamps::new())?;
    let mut files = FleetFiles::default();
    read_changed(dir, &changed, &mut files);
    Ok(files)
}

/// The files and folders whose stamps changed.
#[derive(Debug, Default)]
pub struct Changed {
    pub new: Stamps,
    pub gone: Vec<PathBuf>,
}

impl Changed {
    /// Compares all stamps.
    pub fn between(before: &Stamps, now: Stamps) -> Self {
        let gone = before.keys().filter(|path| !now.contains_key(*path));
        let gone = gone.cloned().collect();
        let mut new = now;
        new.retain(|path, stamp| before.get(path) != Some(stamp));
        Self { new, gone }
    }

    /// Compares all files with their stamps of before. Keeps only what differs: a list of all takes megabytes.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn since(dir: &Path, before: &Stamps) -> Result<Self, FleetError> {
        let (mut new, mut known) = (Stamps::new(), 0);
        visit(dir, &mut |path, stamp| {
            let last = before.get(&path);
            known += usize::from(last.is_some());
            if last != Some(&stamp) {
                new.insert(path, stamp);
            }
        })?;
        match known == before.len() {
            true => Ok(Self {
                new,
                gone: Vec::new(),
            }),
            false => Ok(Self::between(before, stamps(dir)?)),
        }
    }

    /// Compares the stamps of files and folders of which something changed, and those of the folders above them.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn at(dir: &Path, before: &Stamps, paths: &BTreeSet<PathBuf>) -> Result<Self, FleetError> {
        let (mut known, mut now) = (Stamps::new(), Stamps::new());
        for path in paths {
            let below = before.range(path.clone()..);
            let below = below.take_while(|(other, _)| other.starts_with(path));
            known.extend(below.map(|(path, stamp)| (path.clone(), *stamp)));
            let folder = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder));
            let depth = folder
                .and_then(|(_, deepest)| (deepest + 1).checked_sub(path.components().count()));
            match depth {
                Some(depth @ 1..) if is_dir(dir, path) => {
                    visit_folder(dir, path, depth, &mut |path, stamp| {
                        now.insert(path, stamp);
                    })?;
                }
                _ => {
                    if lookup(dir, path)?.is_some() {
                        now.insert(path.clone(), Stamp::at_unlinked(&dir.join(path)));
                    }
                }
            }
            let above = path.ancestors().skip(1);
            for folder in above.filter(|it| before.contains_key(*it)) {
                known.extend(
                    before
                        .get_key_value(folder)
                        .map(|(path, stamp)| (path.clone(), *stamp)),
                );
                now.extend(lookup(dir, folder)?.map(|stamp| (folder.to_owned(), Some(stamp))));
            }
        }
        Ok(Self::between(&known, now))
    }

    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.gone.is_empty()
    }

    /// Returns whether the files have the same stamps as at the comparison.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn is_still(&self, dir: &Path) -> Result<bool, FleetError> {
        let is_same = |(path, stamp): (&PathBuf, &Option<Stamp>)| {
            Stamp::at_unlinked(&dir.join(path)) == *stamp
        };
        for path in &self.gone {
            if lookup(dir, path)?.is_some() {
                return Ok(false);
            }
        }
        Ok(self.new.iter().all(is_same))
    }
}

/// Reads the changed files into those of before.
pub fn read_changed(dir: &Path, changed: &Changed, files: &mut FleetFiles) {
    for path in &changed.gone {
        files.remove(&path.to_string_lossy());
    }
    for path in changed.new.keys() {
        files.remove(&path.to_string_lossy());
        if is_folder(dir, path) {
            continue;
        }
        match (
            path.to_str(),
            file::read_text_below(dir, path, file::DOCUMENT),
        ) {
            (Some(name), Ok(text)) => files.insert(name, text),
            (Some(name), Err(error)) => files.fault(name, unusable(&error)),
            (None, _) => files.fault(path.to_string_lossy(), "its name is not UTF-8; rename it"),
        }
    }
}

/// Returns why a file cannot be used.
pub fn unusable(error: &io::Error) -> String {
    match error.kind() {
        kind if file::is_unusable(kind) => error.to_string(),
        io::ErrorKind::PermissionDenied => {
            format!("cannot be read: {error}; check its owner and mode")
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// Returns whether a path is that of a folder in which files are searched.
pub fn is_folder(dir: &Path, path: &Path) -> bool {
    let depth = path.components().count();
    let searched = FOLDERS.iter().find(|(folder, _)| path.starts_with(folder));
    searched.is_some_and(|(_, deepest)| depth <= *deepest) && is_dir(dir, path)
}

/// Returns whether a path is that of a folder; a link to one is not.
fn is_dir(dir: &Path, path: &Path) -> bool {
    fs::symlink_metadata(dir.join(path)).is_ok_and(|found| found.is_dir())
}

/// Returns the files of a network's description, and their folders; none for a fleet without one.
///
/// # Errors
/// A folder cannot be read.
pub fn stamps(dir: &Path) -> Result<Stamps, FleetError> {
    let mut found = Stamps::new();
    visit(dir, &mut |path, stamp| {
        found.insert(path, stamp);
    })?;
    Ok(found)
}

/// Takes a file or folder with its stamp.
type Visit<'v> = &'v mut dyn FnMut(PathBuf, Option<Stamp>);

fn visit(dir: &Path, found: Visit<'_>) -> Result<(), FleetError> {
    if lookup(dir, Path::new(NETWORK))?.is_some() {
        found(NETWORK.into(), Stamp::at_unlinked(&dir.join(NETWORK)));
    } else if !has_routers(dir)? {
        return Ok(());
    }
    for (folder, depth) in FOLDERS {
        visit_folder(dir, Path::new(folder), depth, found)?;
    }
    // Routers with a folder of their own beside the network.
    for name in names(dir, Path::new(""))? {
        if RESERVED.iter().any(|folder| name == *folder) {
            continue;
        }
        let path = match fs::is_link(dir.join(&name)) {
            true => PathBuf::from(name),
            false => Path::new(&name).join("router.yaml"),
        };
        if let Some(stamp) = Stamp::at_unlinked(&dir.join(&path)) {
            found(path, Some(stamp));
        }
    }
    Ok(())
}

/// Returns whether there are routers of a network whose description is lost. A router with a folder of its own may have
/// the same name as the folder of these.
fn has_routers(dir: &Path) -> Result<bool, FleetError> {
    let folder = Path::new(ROUTERS);
    if lookup(dir, folder)?.is_none() || !is_dir(dir, folder) {
        return Ok(false);
    }
    let names = names(dir, folder)?;
    let is_described =
        |name: &std::ffi::OsString| is_structure(&folder.join(name).to_string_lossy());
    Ok(names.iter().any(is_described) && !names.iter().any(|name| name == "router.yaml"))
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

fn visit_folder(
    dir: &Path,
    folder: &Path,
    depth: usize,
    found: Visit<'_>,
) -> Result<(), FleetError> {
    let Some(stamp) = lookup(dir, folder)? else {
        return Ok(());
    };
    found(folder.to_owned(), Some(stamp));
    if fs::is_link(dir.join(folder)) {
        return Ok(());
    }
    for name in names(dir, folder)? {
        let path = folder.join(name);
        if depth > 1 && is_dir(dir, &path) {
            visit_folder(dir, &path, depth - 1, found)?;
        } else {
            let stamp = Stamp::at_unlinked(&dir.join(&path));
            found(path, stamp);
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
    use std::sync::Arc;

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
        let paths = ["sessions/jp1/a.yaml", "sessions/jp1/gone.yaml"].map(PathBuf::from);
        let changed = Changed::at(dir.path(), &before.0, &paths.into()).unwrap();
        let all = Changed::since(dir.path(), &before.0).unwrap();
        assert_eq!((&changed.new, &changed.gone), (&all.new, &all.gone));
        assert!(changed.is_still(dir.path()).unwrap());
        let mut files = before.1.clone();
        read_changed(dir.path(), &changed, &mut files);
        assert_eq!(files, read(dir.path()).unwrap());
        let is_kept = |path| Arc::ptr_eq(files.text(path).unwrap(), before.1.text(path).unwrap());
        assert!(is_kept("network.yaml") && is_kept("routers/jp1.yaml"));
        assert_eq!(&**files.text("sessions/jp1/a.yaml").unwrap(), "asn: 20");
        assert!(files.has_structure_of(&before.1));
        write("routers/hk1.yaml", "id: 2");
        assert!(!read(dir.path()).unwrap().has_structure_of(&files));
    }
}
