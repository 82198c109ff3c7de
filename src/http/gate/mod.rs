//! Who may use the looking glass, and how often. What people write is parsed before anything is asked, and no text of theirs
//! reaches BIRD or a program.

mod ask;

use axum::Json;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::browsers::refuse_other_pages;
use super::glass::{GlassError, LookingGlass, PingView, RouteView, TraceView};
use super::login::{Logins, token_of};
use super::{ApiError, Guarded, TokenBucket, bearer, page};
use crate::intervals::GLASS_BUSY;
use crate::model::Secret;
use ask::Ask;

/// The path of the page; the other paths are below it.
pub(super) const PAGE: &str = "/looking-glass";

/// Limits of questions: calls per second, and calls at once.
const RATE: (f64, u32) = (1.0, 10);
/// Questions that are answered at once.
const SEATS: usize = 4;

/// The calls of the looking glass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GlassCall {
    Page,
    Login,
    Route,
    Ping,
    Trace,
}

/// Returns the method and the call of a path.
pub(super) fn route(path: &str) -> Option<(&'static str, GlassCall)> {
    Some(match path.strip_prefix(PAGE)? {
        "" => ("GET", GlassCall::Page),
        "/login" => ("POST", GlassCall::Login),
        "/route" => ("GET", GlassCall::Route),
        "/ping" => ("GET", GlassCall::Ping),
        "/trace" => ("GET", GlassCall::Trace),
        _ => return None,
    })
}

/// Who may ask, and how often.
pub(super) struct Gate {
    started: Instant,
    logins: Logins,
    asked: Mutex<TokenBucket>,
    tried: Guarded,
    seats: Semaphore,
}

/// One answer, or the reason why it is missing, for the page.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    ask: &'static str,
    target: String,
    error: Option<String>,
    answer: Option<Answer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Route(RouteView),
    Ping(PingView),
    Trace(TraceView),
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            logins: Logins::new(PAGE),
            asked: Mutex::new(TokenBucket::new(RATE.0, RATE.1)),
            tried: Guarded::new(),
            seats: Semaphore::new(SEATS),
        }
    }

    /// Answers a call.
    ///
    /// # Errors
    /// The token is wrong, the question cannot be parsed or is not allowed, or the router cannot answer.
    pub(super) async fn answer(
        &self,
        glass: &dyn LookingGlass,
        call: GlassCall,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response, ApiError> {
        let token = self.token(glass)?;
        if call == GlassCall::Login {
            return self.login(parts, body, &token);
        }
        if !self.knows(parts, &token)? {
            return match call {
                GlassCall::Page => {
                    Ok((StatusCode::UNAUTHORIZED, page::glass_login(None)?).into_response())
                }
                _ => Err(ApiError::invalid_token()),
            };
        }
        let query = parts.uri.query().unwrap_or_default();
        match call {
            GlassCall::Page if query.is_empty() => page::glass(&Shown::default()),
            GlassCall::Page => self.page(glass, query).await,
            _ => self.json(glass, call, query).await,
        }
    }

    fn token(&self, glass: &dyn LookingGlass) -> Result<Secret<String>, ApiError> {
        match glass.token().current() {
            Ok(Some(token)) => Ok(token),
            // The configuration refuses a looking glass without a token.
            _ => Err(ApiError::no_glass_token_yet()),
        }
    }

    fn knows(&self, parts: &Parts, token: &Secret<String>) -> Result<bool, ApiError> {
        if self.logins.is_known(&parts.headers, token) {
            return Ok(true);
        }
        match bearer(&parts.headers) {
            None => Ok(false),
            given => self.tried.check(parts, given, token),
        }
    }

    fn login(
        &self,
        parts: &Parts,
        body: &Bytes,
        token: &Secret<String>,
    ) -> Result<Response, ApiError> {
        refuse_other_pages(&parts.headers)?;
        let given = token_of(body);
        let is_right = self.tried.check(parts, given.as_deref(), token)?;
        match is_right.then(|| self.logins.cookie(token)).flatten() {
            Some(cookie) => Ok(([(SET_COOKIE, cookie)], Redirect::to(PAGE)).into_response()),
            None => {
                let form = page::glass_login(Some("This is not the token of this looking glass."))?;
                Ok((StatusCode::UNAUTHORIZED, form).into_response())
            }
        }
    }

    async fn json(
        &self,
        glass: &dyn LookingGlass,
        call: GlassCall,
        query: &str,
    ) -> Result<Response, ApiError> {
        let word = match call {
            GlassCall::Ping => ask::PING,
            GlassCall::Trace => ask::TRACE,
            _ => ask::ROUTE,
        };
        let (_, target) = ask::fields(query);
        let ask = Ask::parse(word, &target)?;
        Ok(match self.ask(glass, ask).await? {
            Answer::Route(view) => Json(view).into_response(),
            Answer::Ping(view) => Json(view).into_response(),
            Answer::Trace(view) => Json(view).into_response(),
        })
    }

    /// Answers the form: an error is shown beside it.
    async fn page(&self, glass: &dyn LookingGlass, query: &str) -> Result<Response, ApiError> {
        let (word, target) = ask::fields(query);
        let answered = match Ask::parse(&word, &target) {
            Ok(ask) => self.ask(glass, ask).await,
            Err(error) => Err(error),
        };
        let status = answered
            .as_ref()
            .err()
            .map_or(StatusCode::OK, |error| error.status);
        let (answer, error) = match answered {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error.message)),
        };
        let shown = Shown {
            ask: ask::word(&word),
            target,
            error,
            answer,
        };
        Ok((status, page::glass(&shown)?).into_response())
    }

    async fn ask(&self, glass: &dyn LookingGlass, ask: Ask) -> Result<Answer, ApiError> {
        let taken = self.asked.lock().take(self.started.elapsed());
        taken.map_err(ApiError::rate_limited)?;
        let Ok(_seat) = self.seats.try_acquire() else {
            return Err(ApiError::rate_limited(GLASS_BUSY));
        };
        let answer = match ask {
            Ask::Route(net) => glass.route(net).await.map(Answer::Route),
            Ask::Ping(target) | Ask::Trace(target) if !glass.may_reach(target) => {
                return Err(ApiError::bad_request(
                    "the target is outside of 172.20.0.0/14, 10.0.0.0/8, fd00::/8 and the policy's extraRanges",
                ));
            }
            Ask::Ping(target) => glass.ping(target).await.map(Answer::Ping),
            Ask::Trace(target) => glass.trace(target).await.map(Answer::Trace),
        };
        answer.map_err(|error| {
            let code = match error {
                GlassError::Bird(_) => "BIRD_UNAVAILABLE",
                GlassError::Probe(_) => "PROBE_FAILED",
            };
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
        })
    }
}
