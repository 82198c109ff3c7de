//! Reads all files of a fleet, in both layouts.

use std::io;
use std::path::Path;

use super::files::Stamps;
use super::layout::{MAINTENANCE, MAX_BYTES, file_of};
use super::network::{FleetFiles, NETWORK, OWNERS, RESERVED, ROUTERS, SESSIONS, is_ignored};
use super::{FleetError, files};
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::wire::Call;

/// The calls whose answers come from files of a router's folder.
pub const CALLS: [Call; 4] = [Call::Config, Call::Sessions, Call::Mesh, Call::BirdConfig];

/// Reads the description of a network, and the folders of routers.
///
/// # Errors
/// The directory does not exist, or a file cannot be read.
pub fn read(dir: &Path) -> Result<FleetFiles, FleetError> {
    let paths = in_folders(dir)?;
    let mut files = files::read(dir)?;
    let has_network = files.has_network();
    for path in paths {
        if files.has(&path) || (has_network && is_reserved(&path)) {
            continue;
        }
        match file::read_text_below(dir, path.as_ref(), MAX_BYTES) {
            Ok(text) => files.insert(path, text),
            Err(error) if is_absent(&error) => {}
            Err(error) if file::is_unusable(error.kind()) => {
                files.fault(path, files::unusable(&error));
            }
            Err(source) => {
                let file = path.into();
                return Err(FleetError::Unreadable { file, source });
            }
        }
    }
    Ok(files)
}

/// Returns the files that [`read`] reads, and their folders, with their stamps.
///
/// # Errors
/// The directory does not exist, or a folder cannot be read.
pub fn stamps(dir: &Path) -> Result<Stamps, FleetError> {
    let mut stamps = files::stamps(dir)?;
    for path in in_folders(dir)? {
        let stamp = Stamp::at_unlinked(&dir.join(&path));
        stamps.extend(stamp.map(|stamp| (path.into(), Some(stamp))));
    }
    Ok(stamps)
}

/// Returns the paths that files of routers with a folder of their own have, whether they exist or not. A link is one of
/// them: the folder that it leads to must not look like one that is gone.
fn in_folders(dir: &Path) -> Result<Vec<String>, FleetError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => FleetError::NoDirectory(dir.to_owned()),
        _ => FleetError::Unreadable {
            file: dir.to_owned(),
            source,
        },
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        match fs::is_link(dir.join(name)) {
            true if is_ignored(name) => {}
            true => paths.push(name.to_owned()),
            false => paths.extend(CALLS.map(|call| format!("{name}/{}", file_of(call)))),
        }
    }
    Ok(paths)
}

fn is_reserved(path: &str) -> bool {
    let folder = path.split('/').next();
    folder.is_some_and(|folder| RESERVED.contains(&folder))
}

/// Returns whether there is no such file, also because its folder is a file.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the names of the routers with a folder of their own. Beside a network, only a folder with `router.yaml` is
/// that of a router.
pub fn folders(files: &FleetFiles) -> Vec<String> {
    let has_network = files.has_network();
    let mut found = Vec::new();
    for (path, _) in files.iter() {
        let Some((folder, file)) = path.split_once('/') else {
            continue;
        };
        let is_routers = match has_network {
            true => file == file_of(Call::Config) && !RESERVED.contains(&folder),
            false => CALLS.iter().any(|call| file == file_of(*call)),
        };
        if is_routers && found.last().is_none_or(|last| last != folder) {
            found.push(folder.to_owned());
        }
    }
    found
}

/// Returns whether a path below the fleet's directory is that of one of its files, or of one that has another name.
pub fn is_of_fleet(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    !parts.iter().any(|part| is_ignored(part))
        && match parts[..] {
            [ROUTERS | SESSIONS | OWNERS, ..] => true,
            [file] => file == NETWORK,
            _ => is_in_folder(path),
        }
}

/// Returns whether a path is that of a file in the folder of a router.
pub fn is_in_folder(path: &str) -> bool {
    let Some((folder, file)) = path.split_once('/') else {
        return false;
    };
    let is_known = file == MAINTENANCE || CALLS.iter().any(|call| file == file_of(*call));
    is_known && ![ROUTERS, SESSIONS].contains(&folder)
}
