use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::Secret;
use crate::redact::{forget, remember};
use crate::util::file;
use crate::util::notices::Notices;

/// A bearer token: none, one from the configuration, or the content of a file that may change at any time. Clones
/// share it. While the file cannot be read, the last token stays in use, and only calls can fail.
#[derive(Clone, Default)]
pub struct TokenSource(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    from: From,
    token: Option<Secret<String>>,
    problem: Notices<TokenError>,
}

/// Source of a token.
#[derive(Clone, Default, PartialEq, Eq)]
enum From {
    #[default]
    Configuration,
    File(PathBuf),
}

/// Reason why a token file cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("token file {path}: {reason}; write the token into it, readable for this program, which reads it again while it \
         runs", path = path.display())]
pub struct TokenError {
    path: PathBuf,
    reason: Unusable,
}

/// The fault of a token file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
enum Unusable {
    #[error("is empty")]
    Empty,
    #[error("{text}")]
    Unreadable {
        kind: std::io::ErrorKind,
        /// The error of the operating system.
        text: String,
    },
}

impl TokenError {
    /// Returns whether this user may not read the file.
    pub(crate) fn is_denied(&self) -> bool {
        let denied = std::io::ErrorKind::PermissionDenied;
        matches!(&self.reason, Unusable::Unreadable { kind, .. } if *kind == denied)
    }
}

/// The result of reading the token file again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenNews {
    /// Nothing changed.
    None,
    /// The file holds a new token.
    Changed,
    /// The file can be read again, and holds the same token.
    Readable,
    /// The file can no longer be read, or for a new reason.
    Unreadable(TokenError),
}

impl TokenSource {
    /// Uses the token from the configuration, or else from the file, which is read now.
    pub fn new(given: Option<&Secret<String>>, file: Option<&Path>) -> Self {
        let source = Self::default();
        source.set(given, file);
        source
    }

    fn set(&self, given: Option<&Secret<String>>, file: Option<&Path>) -> TokenNews {
        let mut state = self.0.lock();
        match (given, file) {
            (None, Some(file)) => {
                let from = From::File(file.to_owned());
                if state.from != from {
                    state.from = from;
                    state.problem.news([]);
                }
            }
            (token, _) => {
                state.forget_configured();
                token
                    .iter()
                    .for_each(|token| remember(&configured(token), token.expose()));
                *state = State {
                    token: token.cloned(),
                    ..State::default()
                };
            }
        }
        drop(state);
        self.refresh()
    }

    /// Replaces the source, and keeps the last token while the new file cannot be read. Returns the result of reading it.
    pub fn replace(&self, other: &Self) -> TokenNews {
        let (from, token) = {
            let other = other.0.lock();
            (other.from.clone(), other.token.clone())
        };
        match from {
            From::File(file) => self.set(None, Some(&file)),
            From::Configuration => self.set(token.as_ref(), None),
        }
    }

    /// Returns whether a token is configured, even while its file cannot be read.
    pub fn is_configured(&self) -> bool {
        let state = self.0.lock();
        state.token.is_some() || state.from != From::Configuration
    }

    /// Returns the token, or the last one that could be read; `None` when none is configured.
    ///
    /// # Errors
    /// The file could not be read yet.
    pub fn current(&self) -> Result<Option<Secret<String>>, TokenError> {
        let state = self.0.lock();
        match (&state.token, state.problem.first()) {
            (None, Some(problem)) => Err(problem),
            (token, _) => Ok(token.clone()),
        }
    }

    /// Returns why the file cannot be read, if it cannot.
    pub fn problem(&self) -> Option<TokenError> {
        self.0.lock().problem.first()
    }

    /// Reads the file again, if there is one. Blocks while it reads a small file.
    pub fn refresh(&self) -> TokenNews {
        let From::File(path) = self.0.lock().from.clone() else {
            return TokenNews::None;
        };
        let read = read(&path);
        let mut state = self.0.lock();
        match read {
            Ok(text) => {
                remember(&path.to_string_lossy(), &text);
                let was_unreadable = state.problem.news([]).is_over;
                let is_same = state.token.as_ref().is_some_and(|t| *t.expose() == text);
                state.token = Some(Secret::new(text));
                match (is_same, was_unreadable) {
                    (false, _) => TokenNews::Changed,
                    (true, true) => TokenNews::Readable,
                    (true, false) => TokenNews::None,
                }
            }
            Err(reason) => {
                let new = state.problem.new_in([TokenError { path, reason }]);
                let new = new.into_iter().next();
                new.map_or(TokenNews::None, TokenNews::Unreadable)
            }
        }
    }
}

impl State {
    /// Forgets the token of the configuration, which another one replaces.
    fn forget_configured(&self) {
        let token = self
            .token
            .as_ref()
            .filter(|_| self.from == From::Configuration);
        token.iter().for_each(|token| forget(&configured(token)));
    }
}

/// Returns the source of a token that the configuration holds itself.
fn configured(token: &Secret<String>) -> String {
    format!("configuration:{}", token.expose())
}

impl std::convert::From<Option<Secret<String>>> for TokenSource {
    fn from(token: Option<Secret<String>>) -> Self {
        Self::new(token.as_ref(), None)
    }
}

impl std::convert::From<Secret<String>> for TokenSource {
    fn from(token: Secret<String>) -> Self {
        Self::new(Some(&token), None)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    let unreadable = |error: std::io::Error| Unusable::Unreadable {
        kind: error.kind(),
        text: error.to_string(),
    };
    let text = file::read_text(path, file::TOKEN).map_err(unreadable)?;
    match text.trim() {
        "" => Err(Unusable::Empty),
        token => Ok(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(source: &TokenSource) -> Option<String> {
        let token = source.current().ok()?;
        token.map(|token| token.expose().clone())
    }

    #[test]
    fn rotated_token_is_reread_and_missing_file_keeps_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenSource::new(None, Some(&path));
        assert!(source.is_configured() && source.current().is_err());
        assert_eq!(source.refresh(), TokenNews::None, "told once");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(source.refresh(), TokenNews::Changed);
        assert_eq!(token(&source).as_deref(), Some("one"));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(source.refresh(), TokenNews::Unreadable(_)));
        assert_eq!(token(&source).as_deref(), Some("one"));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(source.refresh(), TokenNews::Readable);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(source.refresh(), TokenNews::Changed);
        assert_eq!(token(&source).as_deref(), Some("two"));
        assert!(!format!("{source:?}").contains("two"));
    }

    #[test]
    fn only_a_regular_file_with_text_holds_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, " \n").unwrap();
        for (path, why) in [
            (path.as_path(), "is empty"),
            (folder.path(), "is a directory"),
        ] {
            let source = TokenSource::new(None, Some(path));
            let error = source.current().unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains("token file"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_new_place_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenSource::from(Secret::new("given".to_owned()));
        let news = source.replace(&TokenSource::new(None, Some(&path)));
        assert!(matches!(news, TokenNews::Unreadable(_)));
        assert_eq!(
            token(&source).as_deref(),
            Some("given"),
            "until the file is there"
        );
        std::fs::write(&path, "filed").unwrap();
        assert_eq!(source.refresh(), TokenNews::Changed);
        source.replace(&TokenSource::default());
        assert!(!source.is_configured() && token(&source).is_none());
    }
}
