use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::Config;
use super::rules::at_key;
use crate::document::DocumentError;

/// The file that a configuration was read from, and its values.
#[derive(Clone, Default, PartialEq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub(super) text: Arc<str>,
    /// Its values as written in the file.
    pub(super) values: Value,
}

impl Source {
    /// Returns the place of a key, as `config.yaml:3`; of a key that is not in the file, that of the nearest above.
    pub(crate) fn place(&self, key: &str) -> String {
        let line = at_key(&self.text, key, "").location.map(|(line, _)| line);
        let path = self.path.display();
        line.map_or_else(|| path.to_string(), |line| format!("{path}:{line}"))
    }

    /// Returns an error about a key, with its place in the file.
    pub(crate) fn error(&self, key: &str, message: &str) -> DocumentError {
        at_key(&self.text, key, message).in_file(&self.path)
    }
}

/// Keys that hold a secret themselves.
const SECRETS: [&str; 3] = [
    "/controlPlane/token",
    "/server/token",
    "/server/lookingGlass/token",
];

impl Config {
    /// Returns the files that hold secrets: those of tokens and of the private key, and the configuration if a token is in it.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        let values = &self.source.values;
        let is_inline = SECRETS.iter().any(|key| values.pointer(key).is_some());
        let own = is_inline.then(|| self.source.path.clone());
        let control_plane = self.control_plane.as_ref();
        let glass = self.server.looking_glass.as_ref();
        let tokens = [
            control_plane.and_then(|it| it.token_file.clone()),
            self.server.token_file.clone(),
            glass.and_then(|it| it.token_file.clone()),
        ];
        let key = self.wireguard.private_key_path.clone();
        own.into_iter()
            .chain(tokens.into_iter().flatten())
            .chain([key])
            .collect()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits text and values, because they may contain a token.
        f.debug_tuple("Source").field(&self.path).finish()
    }
}
