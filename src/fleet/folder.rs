//! One router's folder, with the files of its operator.

use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::check;
use super::finding::Finding;
use super::good::Outcome;
use super::parsed::{MAX_BYTES, Parsed, ReadError, is_being_written, read_quiet};
use super::reported::Reported;
use crate::document::{DocumentError, parse_value};
use crate::http::ApiError;
use crate::model::{ObjectName, Secret};
use crate::util::file::{self, Stamp};
use crate::util::fs;
use crate::wire::Call;

/// Maximum number of errors of one file that are logged at once.
const PROBLEMS_LOGGED: usize = 20;

/// Removes incomplete files that a killed server left, in every router's folder.
pub(super) fn sweep(fleet: &Path) {
    for entry in fs::read_dir(fleet).into_iter().flatten().flatten() {
        Reported::new(entry.path().join("reported")).sweep();
    }
}

/// Returns the file with the answer to a call.
pub(super) fn file_of(call: Call) -> &'static str {
    match call {
        Call::Config => "router.yaml",
        Call::Mesh => "mesh.yaml",
        Call::BirdConfig => "bird-config.yaml",
        Call::Sessions | Call::Heartbeat | Call::Report | Call::Modify => "sessions.yaml",
    }
}

/// A router's folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
    router: ObjectName,
}

/// The content of `router.yaml`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RouterFile {
    token: Option<Secret<String>>,
    token_file: Option<PathBuf>,
    pub(super) node: Option<Value>,
}

impl Folder {
    /// Returns the folder of a router, if the fleet has one. Checks the name first: it is untrusted
    /// text, and becomes a path.
    pub(super) fn find(fleet: &Path, router: &str) -> Option<Self> {
        let router: ObjectName = router.parse().ok()?;
        let path = fleet.join(router.as_str());
        fs::exists(path.join("router.yaml")).then_some(Self { path, router })
    }

    pub(super) fn all(fleet: &Path) -> Vec<Self> {
        let entries = fs::read_dir(fleet).into_iter().flatten().flatten();
        let name = |entry: DirEntry| entry.file_name().into_string().ok();
        entries
            .filter_map(name)
            .filter_map(|name| Self::find(fleet, &name))
            .collect()
    }

    /// Returns the stamp that changes with the content of a file of this folder.
    pub(super) fn stamp(&self, call: Call) -> Option<Stamp> {
        Stamp::at(&self.path.join(file_of(call)))
    }

    pub(super) fn router(&self) -> &str {
        self.router.as_str()
    }

    /// Returns the directory with the router's posts.
    pub(super) fn reported(&self) -> PathBuf {
        self.path.join("reported")
    }

    /// Returns whether the operator has put a file `maintenance` into the folder.
    pub(super) fn in_maintenance(&self) -> bool {
        fs::exists(self.path.join("maintenance"))
    }

    /// Returns the router's token. An error shows where the file is invalid but not its content,
    /// because the client has not sent a valid token yet.
    pub(super) fn token(&self) -> Result<Secret<String>, ApiError> {
        let file = self.router_file()?;
        let token = match (file.token, file.token_file) {
            (Some(token), _) => token,
            (None, Some(path)) => {
                let read = file::read_text(&self.path.join(path), file::TOKEN);
                Secret::new(
                    read.map_err(|error| self.wrong("router.yaml", format!("tokenFile: {error}")))?,
                )
            }
            (None, None) => {
                return Err(self.wrong("router.yaml", "has neither token nor tokenFile"));
            }
        };
        match token.expose().trim() {
            "" => Err(self.wrong("router.yaml", "the token is empty")),
            token => Ok(Secret::new(token.to_owned())),
        }
    }

    /// Returns the answer to a `GET` from the files: an object with the call's key.
    pub(super) fn answer(
        &self,
        call: Call,
        parsed: &Parsed,
    ) -> Result<Arc<Map<String, Value>>, ApiError> {
        let file = file_of(call);
        let map = match call {
            Call::Config => {
                let read = read_quiet(&self.path.join(file));
                let (text, _) = read.map_err(|error| self.unreadable(file, &error))?;
                let node = self.parse_router(&text)?.node.unwrap_or_default();
                Arc::new(Map::from_iter([("node".to_owned(), node)]))
            }
            _ => self.mapping(file, parsed)?,
        };
        match check::shape(call, &map) {
            None => Ok(map),
            Some(problem) => Err(self.wrong(file, problem.message)),
        }
    }

    /// Returns the router's `node`, if its file can be read.
    pub(super) fn node(&self, parsed: &Parsed) -> Option<Value> {
        let map = parsed
            .mapping(&self.path.join(file_of(Call::Config)))
            .ok()?;
        map.get("node").cloned()
    }

    /// Logs the new problems of a file, and its recovery when all are solved.
    pub(super) fn log(&self, call: Call, outcome: &Outcome) {
        let file = self.shown(file_of(call));
        if outcome.news.is_over {
            tracing::info!(file = %file.display(), "fleet file is valid again");
        }
        if outcome.news.new.is_empty() {
            return;
        }
        let text = file::read_text(&self.path.join(file_of(call)), MAX_BYTES).unwrap_or_default();
        for problem in outcome.news.new.iter().take(PROBLEMS_LOGGED) {
            let finding = Finding::new(&file, &text, problem);
            tracing::warn!(error = %finding, "fleet file has an error; serving the last valid version of this item");
        }
        if let Some(more @ 1..) = outcome.news.new.len().checked_sub(PROBLEMS_LOGGED) {
            tracing::warn!(file = %file.display(), more, "more errors in this file; `moenet-agent fleet validate` lists all");
        }
    }

    /// Returns whether a token may be wrong because its file is incomplete.
    pub(super) fn token_is_being_written(&self) -> bool {
        is_being_written(&self.path.join("router.yaml"))
    }

    fn router_file(&self) -> Result<RouterFile, ApiError> {
        let read = file::read_text(&self.path.join("router.yaml"), file::DOCUMENT);
        self.parse_router(&read.map_err(|error| self.unreadable("router.yaml", &error))?)
    }

    fn parse_router(&self, text: &str) -> Result<RouterFile, ApiError> {
        parse_value(text).map_err(|error| {
            let place = DocumentError {
                message: String::new(),
                ..error
            }
            .in_file(&self.shown("router.yaml"));
            let place = place.to_string();
            ApiError::internal(format!(
                "{place}not valid; it is YAML with token or tokenFile, and node"
            ))
        })
    }

    fn mapping(&self, file: &str, parsed: &Parsed) -> Result<Arc<Map<String, Value>>, ApiError> {
        parsed
            .mapping(&self.path.join(file))
            .map_err(|error| match error {
                ReadError::Io(error) => self.unreadable(file, &error),
                ReadError::Document(error) => {
                    ApiError::internal(error.in_file(&self.shown(file)).to_string())
                }
            })
    }

    fn unreadable(&self, file: &str, error: &io::Error) -> ApiError {
        match error.kind() {
            io::ErrorKind::NotFound => {
                ApiError::not_found(format!("{} does not exist", self.shown(file).display()))
            }
            _ => self.wrong(file, error.to_string()),
        }
    }

    /// Returns a file's name below the fleet's directory, whose own path is not disclosed.
    fn shown(&self, file: &str) -> PathBuf {
        Path::new(self.router()).join(file)
    }

    fn wrong(&self, file: &str, message: impl std::fmt::Display) -> ApiError {
        ApiError::internal(format!("{}: {message}", self.shown(file).display()))
    }
}
