//! The commit that is served, with its files, so that a restart serves it also without the repository. Blocks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fleet::FleetError;
use crate::fleet::commit::FleetCommit;
use crate::fleet::network::FleetFiles;
use crate::fleet::store::directory::{commit_path, view_path};
use crate::util::file::{self, Writer};
use crate::util::sorted::Sorted as _;

/// Size limit of both, above that of all files of a fleet.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// A commit with the texts of its files by their paths.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept<T: Ord = String> {
    pub(super) commit: FleetCommit,
    /// Git's directory.
    pub(super) repository: Option<T>,
    pub(super) files: BTreeMap<T, T>,
}

/// The reference of Git that a server follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct GitView {
    /// The reference.
    pub(crate) git_ref: String,
    /// The commit that is served; absent before the first one.
    pub(crate) commit: Option<FleetCommit>,
    /// The newest commit, if its files have an error.
    pub(crate) refused: Option<FleetCommit>,
    /// Why the newest commit is not served.
    pub(crate) errors: Vec<String>,
}

/// Returns the commit that was served last. One that cannot be used is quarantined: the repository has it.
///
/// # Errors
/// The file exists and cannot be read.
pub(super) fn read(root: &Path) -> Result<Option<Kept>, FleetError> {
    read_json(&commit_path(root))
}

/// Makes a commit the one that a restart serves, durably.
///
/// # Errors
/// The file cannot be written, or a restart could not read it.
pub(super) fn write(
    root: &Path,
    commit: &FleetCommit,
    repository: &str,
    files: &FleetFiles,
) -> Result<(), (PathBuf, io::Error)> {
    let path = commit_path(root);
    let kept = Kept {
        commit: commit.clone(),
        repository: Some(repository),
        files: files
            .iter()
            .map(|(path, text)| (path, &**text))
            .sorted_map(),
    };
    replace(&path, &kept).map_err(|error| (path, error))
}

/// Returns the state of the followed reference.
///
/// # Errors
/// The file exists and cannot be read.
pub(super) fn read_view(root: &Path) -> Result<GitView, FleetError> {
    Ok(read_json(&view_path(root))?.unwrap_or_default())
}

pub(super) fn write_view(root: &Path, view: &GitView) -> io::Result<()> {
    replace(&view_path(root), view)
}

fn replace(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        let message = format!("has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Writer::new(0o600).replace(path, &text)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FleetError> {
    let unreadable = |source| FleetError::Unreadable {
        file: path.to_owned(),
        source,
    };
    let unusable = match file::read(path, MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if file::is_unusable(error.kind()) => error.to_string(),
        Err(error) => return Err(unreadable(error)),
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error.to_string(),
        },
    };
    file::quarantine(path, &unusable).map_err(unreadable)?;
    Ok(None)
}
