//! The files of one router below the fleet: their names, and how their texts become answers. Pure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::check;
use super::network::TokenHash;
use crate::document::{DocumentError, parse_value};
use crate::http::{ApiError, same};
use crate::model::Secret;
use crate::wire::Call;

/// Size limit of a fleet's file, in bytes; a list of twenty thousand sessions has about eight million.
pub(super) const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The file whose presence answers every call with 503.
pub(super) const MAINTENANCE: &str = "maintenance";

/// Returns the file with the answer to a call.
pub(super) fn file_of(call: Call) -> &'static str {
    match call {
        Call::Config => "router.yaml",
        Call::Mesh => "mesh.yaml",
        Call::BirdConfig => "bird-config.yaml",
        Call::Sessions | Call::Heartbeat | Call::Report | Call::Modify | Call::Drain => {
            "sessions.yaml"
        }
    }
}

/// The content of `router.yaml`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RouterFile {
    pub(super) token: Option<Secret<String>>,
    pub(super) token_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) token_hashes: Vec<TokenHash>,
    pub(super) node: Option<Value>,
}

/// The tokens that a router may send.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    plain: Option<Secret<String>>,
    hashes: Vec<TokenHash>,
}

/// A router's file gives no usable token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoToken {
    #[error(
        "has neither token, tokenFile nor tokenHashes; `moenet-agent fleet validate` checks it"
    )]
    Missing,
    #[error("the token is empty")]
    Empty,
}

impl Tokens {
    /// Takes the text of a token, or of a file with one, and the hashes of others.
    pub(super) fn new(
        token: Option<&Secret<String>>,
        hashes: Vec<TokenHash>,
    ) -> Result<Self, NoToken> {
        let plain = token.map(|token| token.expose().trim().to_owned());
        match &plain {
            Some(token) if token.is_empty() => return Err(NoToken::Empty),
            None if hashes.is_empty() => return Err(NoToken::Missing),
            _ => {}
        }
        let plain = plain.map(Secret::new);
        Ok(Self { plain, hashes })
    }

    pub(super) fn accept(&self, token: &str) -> bool {
        let is_plain = self.plain.as_ref().is_some_and(|plain| same(token, plain));
        let given = TokenHash::of_text(token);
        is_plain || self.hashes.iter().any(|hash| hash.is_same(&given))
    }
}

/// Reads a `router.yaml`. An error shows where the file is invalid but not its content, because
/// the client may not have sent a valid token yet.
pub(super) fn parse_router(router: &str, text: &str) -> Result<RouterFile, ApiError> {
    parse_value(text).map_err(|error| {
        let place = DocumentError {
            message: String::new(),
            ..error
        };
        let place = place.in_file(&shown(router, "router.yaml")).to_string();
        ApiError::internal(format!(
            "{place}not valid; it is YAML with token, tokenFile or tokenHashes, and node"
        ))
    })
}

/// Returns the answer to `GET config` from a `router.yaml`.
pub(super) fn config(router: &str, text: &str) -> Result<Arc<Map<String, Value>>, ApiError> {
    let node = parse_router(router, text)?.node.unwrap_or_default();
    Ok(Arc::new(Map::from_iter([("node".to_owned(), node)])))
}

/// Refuses an answer without the list or object that agents expect.
pub(super) fn shaped(
    router: &str,
    call: Call,
    map: Arc<Map<String, Value>>,
) -> Result<Arc<Map<String, Value>>, ApiError> {
    match check::shape(call, &map) {
        None => Ok(map),
        Some(problem) => Err(wrong(router, file_of(call), problem.message)),
    }
}

pub(super) fn missing(router: &str, file: &str) -> ApiError {
    ApiError::not_found(format!("{} does not exist", shown(router, file).display()))
}

pub(super) fn wrong(router: &str, file: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::internal(format!("{}: {message}", shown(router, file).display()))
}

pub(super) fn invalid(router: &str, file: &str, error: DocumentError) -> ApiError {
    ApiError::internal(error.in_file(&shown(router, file)).to_string())
}

/// Returns a file's name below the fleet's directory, whose own path is not disclosed.
pub(super) fn shown(router: &str, file: &str) -> PathBuf {
    Path::new(router).join(file)
}
