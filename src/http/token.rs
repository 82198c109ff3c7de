use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::{ApiError, Client, Guesses};
use crate::model::Secret;

/// Limits of wrong tokens for each client: calls per second, and calls at once.
const GUESSES: (f64, u32) = (1.0, 10);

/// Length of a token, in bytes, from which it cannot be guessed at any rate of calls.
pub(crate) const LONG: usize = 16;

/// Checks a token, with a limit for those who guess it.
pub(crate) struct Guarded {
    started: Instant,
    guesses: Mutex<Guesses>,
}

impl Guarded {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            guesses: Mutex::new(Guesses::new(GUESSES.0, GUESSES.1)),
        }
    }

    /// Returns whether a token is right.
    ///
    /// # Errors
    /// Its sender has guessed too often.
    pub(super) fn check(
        &self,
        request: &Parts,
        given: Option<&str>,
        wanted: &Secret<String>,
    ) -> Result<bool, ApiError> {
        let is_right = given.is_some_and(|given| same(given, wanted));
        self.count(request, given.unwrap_or_default(), is_right)
    }

    /// Returns whether a token is right that was compared before.
    ///
    /// # Errors
    /// Its sender has guessed too often.
    pub(crate) fn count(
        &self,
        request: &Parts,
        given: &str,
        is_right: bool,
    ) -> Result<bool, ApiError> {
        if is_right && given.len() >= LONG {
            return Ok(true);
        }
        let mut guesses = self.guesses.lock();
        let checked = guesses.check(Client::of(request), is_right, self.started.elapsed());
        checked.map_err(ApiError::rate_limited).map(|()| is_right)
    }
}

/// Returns the token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Compares in constant time, independent of the position of a difference; digests have the same length.
pub(crate) fn same(given: &str, wanted: &Secret<String>) -> bool {
    let given = Sha256::digest(given.as_bytes());
    let wanted = Sha256::digest(wanted.expose().as_bytes());
    given.ct_eq(&wanted).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let wanted = Secret::new("s3cret".to_owned());
        assert!(same("s3cret", &wanted));
        for other in ["", "s3cre", "s3crets", "S3cret"] {
            assert!(!same(other, &wanted), "{other}");
        }
    }

    #[test]
    fn guesses_keep_no_right_long_token_out() {
        let (parts, ()) = axum::http::Request::new(()).into_parts();
        for (token, is_let_in) in [("0123456789abcdef", true), ("s3cret", false)] {
            let guarded = Guarded::new();
            let wanted = Secret::new(token.to_owned());
            let check = |given| guarded.check(&parts, Some(given), &wanted);
            while check("another-0123456789abcdef").is_ok() {}
            assert_eq!(check(token).is_ok(), is_let_in, "{token}");
            check("another-0123456789abcdef").unwrap_err();
        }
    }

    #[test]
    fn a_bearer_header_is_read_strictly() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer abc").as_deref(), Some("abc"));
        for text in ["abc", "Basic abc", "Bearer", "Bearer  "] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
