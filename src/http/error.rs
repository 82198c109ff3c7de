use std::time::Duration;

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::ApiRefusal;

/// The body of every error.
#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorBody {
    /// The text for people.
    error: String,
    /// The word for programs.
    #[schemars(regex(pattern = "^[A-Z_]+$"))]
    code: &'static str,
}

/// An error in the format of all the agent's APIs: `{"error": "...", "code": "..."}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// Time until the next attempt is allowed.
    pub retry_after: Option<Duration>,
    pub allow: Option<&'static str>,
}

impl ApiError {
    /// Creates an error with this status, code and text.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after: None,
            allow: None,
        }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// 401: no token, or a wrong one.
    pub fn invalid_token() -> Self {
        let message = "the token is missing or wrong; send Authorization: Bearer <token>";
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", message)
    }

    /// 401: the agent could not read its own token yet, so every token is refused.
    pub fn no_token_yet() -> Self {
        let message = "the file of server.tokenFile cannot be read, so every call is refused; the agent's log says why";
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", message)
    }

    /// 401: the agent could not read the looking glass's token yet.
    pub fn no_glass_token_yet() -> Self {
        let message = "the file of server.lookingGlass.tokenFile cannot be read, so the looking glass is closed";
        Self::new(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", message)
    }

    /// 404: no such path.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 405: this path requires another method.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path accepts {allow}");
        let error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            message,
        );
        Self {
            allow: Some(allow),
            ..error
        }
    }

    /// 413: the body exceeds the size limit.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    }

    /// 429: too many calls.
    pub fn rate_limited(retry_after: Duration) -> Self {
        let error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "RATE_LIMITED",
            "too many requests",
        );
        Self {
            retry_after: Some(retry_after),
            ..error
        }
    }

    /// 500: a fault of the agent.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    }

    /// 503: in maintenance.
    pub fn maintenance(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "MAINTENANCE_MODE", message)
    }
}

impl From<ApiRefusal> for ApiError {
    fn from(refusal: ApiRefusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            ApiRefusal::UnknownInterface(_) => {
                Self::new(StatusCode::NOT_FOUND, "SESSION_NOT_FOUND", message)
            }
            ApiRefusal::Maintenance => Self::maintenance(message),
            ApiRefusal::BirdUnavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "BIRD_UNAVAILABLE", message)
            }
            ApiRefusal::DrainRefused(_) => {
                Self::new(StatusCode::CONFLICT, "DRAIN_REFUSED", message)
            }
            ApiRefusal::Failed(_) => Self::internal(message),
        }
    }
}

impl ApiError {
    /// Adds the headers of the error to its answer.
    pub(super) fn with_headers(&self, mut response: Response) -> Response {
        if let Some(wait) = self.retry_after {
            // Rounded up: a client that retries a moment early would be refused again.
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: crate::redact::redact(&self.message).into_owned(),
            code: self.code,
        };
        self.with_headers((self.status, Json(body)).into_response())
    }
}
