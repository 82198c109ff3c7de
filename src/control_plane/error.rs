use std::time::Duration;

use crate::model::{ErrorClass, shown};
use crate::wire::{Call, WireError};

/// A failed call to the Control Plane. Its text never contains the token or the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {failure}")]
pub struct CallError {
    pub call: Call,
    pub failure: Failure,
}

/// Cause of a failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 401 or 403.
    #[error("the Control Plane refuses the token{}; check controlPlane.token", said(.detail))]
    Auth {
        /// The Control Plane's message.
        detail: String,
    },
    /// 404.
    #[error("not found{}; check node.name and controlPlane.url", said(.detail))]
    NotFound {
        /// The Control Plane's code, as `ROUTER_NOT_FOUND`.
        code: Option<String>,
        /// The Control Plane's message.
        detail: String,
    },
    /// 429.
    #[error("the Control Plane limits the request rate; next try in {} s", retry_after.as_secs())]
    RateLimited {
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
    /// Another 4xx, or a redirect.
    #[error("the Control Plane refuses the request with status {status}{}", said(.detail))]
    Refused {
        status: u16,
        /// The Control Plane's message.
        detail: String,
    },
    /// 5xx.
    #[error("the Control Plane failed with status {status}{}", said(.detail))]
    Server {
        status: u16,
        /// The Control Plane's message.
        detail: String,
        /// Time until the next attempt is allowed, if the Control Plane sent one.
        retry_after: Option<Duration>,
    },
    /// No request was sent, because there is no token.
    #[error("{0}")]
    NoToken(String),
    /// TLS cannot be set up.
    #[error("set up TLS: {0}; install the package ca-certificates")]
    Tls(String),
    /// No answer, or an incomplete one.
    #[error("no answer: {0}")]
    Network(String),
    /// An invalid answer.
    #[error("{0}")]
    Body(#[from] WireError),
    /// An answer over the size limit.
    #[error("the answer is larger than {0} bytes; nothing is changed")]
    TooLarge(usize),
    /// The answer is valid, but could not be written to the state directory.
    #[error("received but not written: {0}")]
    NotWritten(String),
    /// No request was sent.
    #[error("the circuit breaker is open after repeated failures; next try in {} s", retry_in.as_secs())]
    BreakerOpen {
        /// Time until the next call may be sent.
        retry_in: Duration,
    },
}

fn said(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {}", shown(detail))
    }
}

impl CallError {
    /// Identifies the cause of the failure without the words of the Control Plane, which may hold the number of a
    /// request.
    pub fn cause(&self) -> String {
        match &self.failure {
            Failure::NotFound { code, .. } => {
                format!("not found {}", code.as_deref().unwrap_or_default())
            }
            Failure::Refused { status, .. } | Failure::Server { status, .. } => {
                format!("status {status}")
            }
            Failure::Body(error) => error.cause(),
            Failure::Auth { .. } | Failure::RateLimited { .. } | Failure::TooLarge(_) => {
                self.failure.word().to_owned()
            }
            other => crate::telemetry::chain(other),
        }
    }
}

impl Failure {
    /// Returns the class of the error: a wrong token, router or request needs an operator.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Auth { .. } | Self::NotFound { .. } | Self::Refused { .. } | Self::NoToken(_) => {
                ErrorClass::Invalid
            }
            _ => ErrorClass::Transient,
        }
    }

    /// Returns the time that the Control Plane asks to wait.
    pub fn requested_wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns one word for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Auth { .. } => "auth",
            Self::NotFound { .. } => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::Refused { .. } => "refused",
            Self::Server { .. } => "server",
            Self::Network(_) | Self::Tls(_) => "network",
            Self::Body(_) | Self::TooLarge(_) => "body",
            Self::NotWritten(_) => "not_written",
            Self::BreakerOpen { .. } | Self::NoToken(_) => "withheld",
        }
    }

    /// Returns whether a retry of the same request may succeed soon.
    pub(super) fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Server { .. } | Self::Network(_) | Self::RateLimited { .. }
        )
    }

    /// Returns whether the Control Plane works, although it refuses the request.
    pub(super) fn is_alive(&self) -> bool {
        matches!(
            self,
            Self::Auth { .. }
                | Self::NotFound { .. }
                | Self::Refused { .. }
                | Self::RateLimited { .. }
        )
    }

    /// Returns the wait that the Control Plane requested.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// An invalid option of the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL.
    #[error("controlPlane.url must be http://host/ or https://host/: {0}")]
    Url(String),
    /// The router's name cannot be part of a path.
    #[error("node.name must be a name, not {0}")]
    Router(String),
    /// The token cannot be sent in a header.
    #[error(
        "controlPlane.token is empty, or has a character that no header can carry (a line \
             break?)"
    )]
    Token,
}

impl ClientError {
    /// Returns the key of the configuration that is wrong.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Url(_) => "controlPlane.url",
            Self::Router(_) => "node.name",
            Self::Token => "controlPlane.token",
        }
    }
}
