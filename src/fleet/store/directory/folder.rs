//! One router's folder, with the files of its operator.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::parsed::{ReadError, is_being_written, mapping, read_quiet};
use crate::fleet::layout::{
    MAINTENANCE, MAX_BYTES, Tokens, config, file_of, invalid, missing, parse_router, shaped, wrong,
};
use crate::fleet::network::{NETWORK, RESERVED};
use crate::fleet::posts::REPORTED;
use crate::fleet::version::{Version, version};
use crate::http::ApiError;
use crate::model::{ObjectName, Secret};
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::wire::Call;

/// A router's folder. Its name is checked: it is untrusted text, and becomes a path.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    fleet: PathBuf,
    path: PathBuf,
    router: ObjectName,
}

impl Folder {
    pub(super) fn new(fleet: &Path, router: ObjectName) -> Self {
        Self {
            fleet: fleet.to_owned(),
            path: fleet.join(router.as_str()),
            router,
        }
    }

    /// Returns whether the router has a folder of its own; those of a network are not.
    pub(super) fn exists(&self) -> bool {
        fs::exists(self.path.join("router.yaml"))
            && !(RESERVED.contains(&self.router.as_str()) && fs::exists(self.fleet.join(NETWORK)))
    }

    pub(super) fn all(fleet: &Path) -> Vec<Self> {
        let entries = fs::read_dir(fleet).into_iter().flatten().flatten();
        let name = |entry: DirEntry| entry.file_name().into_string().ok();
        entries
            .filter_map(name)
            .filter_map(|name| Some(Self::new(fleet, name.parse().ok()?)))
            .filter(Self::exists)
            .collect()
    }

    /// Returns the stamp that changes with the content of a file of this folder.
    pub(super) fn stamp(&self, call: Call) -> Option<Stamp> {
        Stamp::at(&self.path.join(file_of(call)))
    }

    /// Returns the version of an answer; `None` while one of its files may change without another stamp.
    pub(super) fn version(&self, call: Call) -> Option<Version> {
        let stamp = |call| self.stamp(call).filter(Stamp::is_settled);
        Some(version(&(stamp(Call::Config)?, stamp(call)?)))
    }

    pub(super) fn router(&self) -> &ObjectName {
        &self.router
    }

    /// Returns the directory with the router's posts: outside of its folder for a router that is, or was, a part of a
    /// network. Git may remove the folder's files for a moment, so that these do not count in a followed directory.
    pub(super) fn reported(&self, is_followed: bool) -> PathBuf {
        let of_network = self.fleet.join(REPORTED).join(self.router.as_str());
        let own = self.path.join(REPORTED);
        let is_own = match is_followed {
            true => fs::exists(&own),
            false => self.exists(),
        };
        match is_own && !fs::exists(&of_network) {
            true => own,
            false => of_network,
        }
    }

    /// Returns whether the operator has put a file `maintenance` into the folder.
    pub(super) fn in_maintenance(&self) -> bool {
        fs::exists(self.path.join(MAINTENANCE))
    }

    /// Returns the router's tokens.
    pub(super) fn tokens(&self) -> Result<Tokens, ApiError> {
        let router = self.router.as_str();
        let read = file::read_text_below(&self.fleet, &self.below("router.yaml"), file::DOCUMENT);
        let text = read.map_err(|error| self.unreadable("router.yaml", &error))?;
        let file = parse_router(router, &text)?;
        let wrong = |message: String| wrong(router, "router.yaml", message);
        let token = match (file.token, file.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => {
                let text = file::read_text(&self.path.join(path), file::TOKEN);
                Some(Secret::new(
                    text.map_err(|error| wrong(format!("tokenFile: {error}")))?,
                ))
            }
            (None, None) => None,
        };
        Tokens::new(token.as_ref(), file.token_hashes).map_err(|error| wrong(error.to_string()))
    }

    /// Returns the answer to a `GET` from the files: an object with the call's key.
    pub(super) fn answer(&self, call: Call) -> Result<Arc<Map<String, Value>>, ApiError> {
        let file = file_of(call);
        let map = match call {
            Call::Config => {
                let read = read_quiet(&self.fleet, &self.below(file));
                let text = read.map_err(|error| self.unreadable(file, &error))?;
                config(self.router.as_str(), &text)?
            }
            _ => self.mapping(file)?,
        };
        shaped(self.router.as_str(), call, map)
    }

    /// Returns the router's `node`, if its file can be read.
    pub(super) fn node(&self) -> Option<Value> {
        let map = mapping(&self.fleet, &self.below(file_of(Call::Config))).ok()?;
        map.get("node").cloned()
    }

    /// Returns the text of a file. Empty if it cannot be read.
    pub(super) fn text(&self, call: Call) -> String {
        file::read_text_below(&self.fleet, &self.below(file_of(call)), MAX_BYTES)
            .unwrap_or_default()
    }

    /// Returns whether a token may be wrong because its file is incomplete.
    pub(super) fn token_is_being_written(&self) -> bool {
        is_being_written(&self.path.join("router.yaml"))
    }

    /// Returns the path of a file below the fleet's directory.
    fn below(&self, file: &str) -> PathBuf {
        Path::new(self.router.as_str()).join(file)
    }

    fn mapping(&self, file: &str) -> Result<Arc<Map<String, Value>>, ApiError> {
        mapping(&self.fleet, &self.below(file)).map_err(|error| match error {
            ReadError::Io(error) => self.unreadable(file, &error),
            ReadError::Document(error) => invalid(self.router.as_str(), file, error),
        })
    }

    fn unreadable(&self, file: &str, error: &io::Error) -> ApiError {
        match error.kind() {
            io::ErrorKind::NotFound => missing(self.router.as_str(), file),
            _ => wrong(self.router.as_str(), file, error),
        }
    }
}
