//! Who has which role.

use std::path::{Path, PathBuf};

use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};

use crate::config::TokenSource;
use crate::http::{ApiError, Guarded, Logins, bearer, refuse_other_pages, same};
use crate::model::Secret;

/// The tokens of operators, and the socket of those who need none.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The token that shows the whole fleet.
    pub read: TokenSource,
    /// The token that also changes it.
    pub write: TokenSource,
    /// A unix socket: its owner and group may do everything.
    pub socket: Option<PathBuf>,
}

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Token(#[from] crate::config::TokenError),
    #[error("both token files have the same token; give each role its own")]
    SameToken,
}

impl Access {
    /// Reads the files of tokens. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, or both have the same token.
    pub fn from_files(
        read: Option<&Path>,
        write: Option<&Path>,
        socket: Option<PathBuf>,
    ) -> Result<Self, AccessError> {
        let access = Self {
            read: TokenSource::new(None, read),
            write: TokenSource::new(None, write),
            socket,
        };
        let (read, write) = (access.read.current()?, access.write.current()?);
        match (read, write) {
            (Some(read), Some(write)) if same(read.expose(), &write) => Err(AccessError::SameToken),
            _ => Ok(access),
        }
    }

    /// Returns the sources of the tokens, to read their files again.
    pub(in crate::fleet) fn tokens(&self) -> [TokenSource; 2] {
        [self.read.clone(), self.write.clone()]
    }
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fleet) enum Role {
    /// Look at everything.
    Read,
    /// Change sessions too.
    Write,
}

/// Marks the requests of the unix socket.
#[derive(Debug, Clone, Copy)]
pub(in crate::fleet) struct Trusted;

/// The check of each call.
pub(super) struct Checked {
    access: Access,
    logins: Logins,
    guarded: Guarded,
}

impl Checked {
    pub(super) fn new(access: &Access, has_tls: bool) -> Self {
        Self {
            access: access.clone(),
            logins: Logins::new("/").secure(has_tls),
            guarded: Guarded::new(),
        }
    }

    /// Returns the role of a client. The cookie of a login counts for pages only.
    ///
    /// # Errors
    /// The client has not the role that the call needs.
    pub(super) fn check(
        &self,
        parts: &Parts,
        needed: Option<Role>,
        is_page: bool,
    ) -> Result<Role, ApiError> {
        let Some(needed) = needed else {
            return Ok(Role::Read);
        };
        if is_page {
            refuse_other_pages(&parts.headers)?;
        }
        match self.role(parts, is_page)? {
            Some(role) if role >= needed => Ok(role),
            Some(_) => {
                let message =
                    "this token may only read; changes need the one of --write-token-file";
                Err(ApiError::new(StatusCode::FORBIDDEN, "READ_ONLY", message))
            }
            None if self.access.tokens().iter().any(TokenSource::is_configured) => {
                Err(ApiError::invalid_token())
            }
            None => Err(ApiError::not_found(
                "views of the fleet are off: start the server with --read-token-file, --write-token-file or --admin-socket",
            )),
        }
    }

    fn role(&self, parts: &Parts, is_page: bool) -> Result<Option<Role>, ApiError> {
        if parts.extensions.get::<Trusted>().is_some() {
            return Ok(Some(Role::Write));
        }
        let has_cookie =
            |token: &Secret<String>| is_page && self.logins.is_known(&parts.headers, token);
        let of_cookie = self.roles().find(|(_, token)| has_cookie(token));
        match (of_cookie, bearer(&parts.headers)) {
            (Some((role, _)), _) => Ok(Some(role)),
            (None, Some(given)) => Ok(self.guessed(parts, given)?.map(|(role, _)| role)),
            (None, None) => Ok(None),
        }
    }

    /// Returns the roles with a token, that of changes first.
    fn roles(&self) -> impl Iterator<Item = (Role, Secret<String>)> {
        let of = |source: &TokenSource| source.current().ok().flatten();
        let write = of(&self.access.write).map(|token| (Role::Write, token));
        let read = of(&self.access.read).map(|token| (Role::Read, token));
        write.into_iter().chain(read)
    }

    /// Returns the role of a token, unless its sender has guessed too often.
    fn guessed(
        &self,
        parts: &Parts,
        given: &str,
    ) -> Result<Option<(Role, Secret<String>)>, ApiError> {
        let found = self.roles().find(|(_, token)| same(given, token));
        self.guarded.count(parts, given, found.is_some())?;
        Ok(found)
    }

    /// Returns the cookie for the token of a login form; `None` if it has no role.
    pub(super) fn login(
        &self,
        parts: &Parts,
        given: Option<&str>,
    ) -> Result<Option<HeaderValue>, ApiError> {
        refuse_other_pages(&parts.headers)?;
        let found = match given {
            Some(given) => self.guessed(parts, given)?,
            None => None,
        };
        Ok(found.and_then(|(_, token)| self.logins.cookie(&token)))
    }
}

/// Returns who makes a request that may change something.
pub(super) fn who(parts: &Parts) -> &'static str {
    match parts.extensions.get::<Trusted>() {
        Some(Trusted) => "admin-socket",
        None => "write-token",
    }
}
