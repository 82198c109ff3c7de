use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk;
use crate::model::Secret;
use crate::redact::remember;

/// A bearer token: none, one from the configuration, or the content of a file that may change at any time. Clones
/// share it. A file that cannot be read costs nothing but calls: the last token that was read stays in use.
#[derive(Clone, Default)]
pub struct TokenSource(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    from: From,
    token: Option<Secret<String>>,
    problem: Option<TokenError>,
}

/// Where a token comes from.
#[derive(Clone, Default, PartialEq, Eq)]
enum From {
    #[default]
    Configuration,
    File(PathBuf),
}

/// Why a token file cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("token file {path}: {reason}; write the token into it, readable for the agent, which reads it again by itself", path = path.display())]
pub struct TokenError {
    path: PathBuf,
    reason: String,
}

/// What a look at the token file found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenNews {
    /// Nothing new.
    None,
    /// The file holds another token than before.
    Changed,
    /// The file can be read again, and holds the same token.
    Readable,
    /// The file cannot be read any more, or for another reason than before.
    Unreadable(TokenError),
}

impl TokenSource {
    /// The token that the configuration gives, else that of the file, which is read now.
    pub fn new(given: Option<&Secret<String>>, file: Option<&Path>) -> Self {
        let source = Self::default();
        source.set(given, file);
        source
    }

    fn set(&self, given: Option<&Secret<String>>, file: Option<&Path>) {
        let mut state = self.lock();
        match (given, file) {
            (None, Some(file)) => {
                let from = From::File(file.to_owned());
                if state.from != from {
                    state.from = from;
                    state.problem = None;
                }
            }
            (token, _) => {
                token.iter().for_each(|token| remember(token.expose()));
                *state = State {
                    token: token.cloned(),
                    ..State::default()
                };
            }
        }
        drop(state);
        self.refresh();
    }

    /// Takes over where another source has its token from, and keeps the last token while its file cannot be read.
    pub fn replace(&self, other: &Self) {
        let (from, token) = {
            let other = other.lock();
            (other.from.clone(), other.token.clone())
        };
        match from {
            From::File(file) => self.set(None, Some(&file)),
            From::Configuration => self.set(token.as_ref(), None),
        }
    }

    /// Whether there is to be a token, also while its file cannot be read.
    pub fn is_configured(&self) -> bool {
        let state = self.lock();
        state.token.is_some() || state.from != From::Configuration
    }

    /// The token, or the last one that could be read; `None` when none is configured.
    ///
    /// # Errors
    /// The file could not be read yet.
    pub fn current(&self) -> Result<Option<Secret<String>>, TokenError> {
        let state = self.lock();
        match (&state.token, &state.problem) {
            (None, Some(problem)) => Err(problem.clone()),
            (token, _) => Ok(token.clone()),
        }
    }

    /// Why the file cannot be read, while it cannot.
    pub fn problem(&self) -> Option<TokenError> {
        self.lock().problem.clone()
    }

    /// Reads the file again, when there is one. Blocks for as long as a small file takes.
    pub fn refresh(&self) -> TokenNews {
        let From::File(path) = self.lock().from.clone() else {
            return TokenNews::None;
        };
        let read = read(&path);
        let mut state = self.lock();
        match read {
            Ok(text) => {
                remember(&text);
                let was_unreadable = state.problem.take().is_some();
                let is_same = state.token.as_ref().is_some_and(|t| *t.expose() == text);
                state.token = Some(Secret::new(text));
                match (is_same, was_unreadable) {
                    (false, _) => TokenNews::Changed,
                    (true, true) => TokenNews::Readable,
                    (true, false) => TokenNews::None,
                }
            }
            Err(reason) => {
                let problem = TokenError { path, reason };
                if state.problem.as_ref() == Some(&problem) {
                    return TokenNews::None;
                }
                state.problem = Some(problem.clone());
                TokenNews::Unreadable(problem)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

fn read(path: &Path) -> Result<String, String> {
    let text = disk::read_text(path, disk::TOKEN).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err("is empty".to_owned()),
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
    fn a_rotated_file_is_read_again_and_a_missing_one_keeps_the_last() {
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
        source.replace(&TokenSource::new(None, Some(&path)));
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
