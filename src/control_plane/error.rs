use std::time::Duration;

use crate::model::shown;
use crate::wire::{Call, WireError};

/// Why a call to the Control Plane failed. No text of it holds the token or the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {failure}")]
pub struct CallError {
    /// Which call.
    pub call: Call,
    /// What happened.
    pub failure: Failure,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 401 or 403.
    #[error("the Control Plane refuses the token{}; check controlPlane.token", said(.detail))]
    Auth {
        /// The Control Plane's words.
        detail: String,
    },
    /// 404.
    #[error("not found{}; check node.name and controlPlane.url", said(.detail))]
    NotFound {
        /// The Control Plane's code, as `ROUTER_NOT_FOUND`.
        code: Option<String>,
        /// The Control Plane's words.
        detail: String,
    },
    /// 429.
    #[error("the Control Plane wants fewer requests; next try in {} s", retry_after.as_secs())]
    RateLimited {
        /// When to come again.
        retry_after: Duration,
    },
    /// Another 4xx, or a redirect.
    #[error("the Control Plane refuses the request with status {status}{}", said(.detail))]
    Refused {
        /// The status.
        status: u16,
        /// The Control Plane's words.
        detail: String,
    },
    /// 5xx.
    #[error("the Control Plane failed with status {status}{}", said(.detail))]
    Server {
        /// The status.
        status: u16,
        /// The Control Plane's words.
        detail: String,
        /// When to come again, if it says so.
        retry_after: Option<Duration>,
    },
    /// No request went out, for there is no token to send.
    #[error("{0}")]
    NoToken(String),
    /// TLS cannot be set up.
    #[error("set up TLS: {0}; install the package ca-certificates")]
    Tls(String),
    /// No answer, or half of one.
    #[error("no answer: {0}")]
    Network(String),
    /// An answer that is none.
    #[error("{0}")]
    Body(#[from] WireError),
    /// An answer beyond all measure.
    #[error("the answer is larger than {0} bytes; nothing is changed")]
    TooLarge(usize),
    /// The answer is good, and could not be written to the state directory.
    #[error("received, and not written: {0}")]
    NotWritten(String),
    /// No call went out.
    #[error("the circuit breaker is open after repeated failures; next try in {} s", retry_in.as_secs())]
    BreakerOpen {
        /// When the next call may go out.
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

/// What a caller does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wrong token, router or request: somebody has to act. Slow retry, and a clear condition.
    Operator,
    /// Come back, not before the time that is given.
    Later(Duration),
    /// The breaker is open: this call may probe after this time.
    Withheld(Duration),
    /// The next regular poll will do.
    Transient,
}

impl CallError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match &self.failure {
            Failure::Auth { .. }
            | Failure::NotFound { .. }
            | Failure::Refused { .. }
            | Failure::NoToken(_) => Class::Operator,
            Failure::RateLimited { retry_after } => Class::Later(*retry_after),
            Failure::Server {
                retry_after: Some(wait),
                ..
            } => Class::Later(*wait),
            Failure::BreakerOpen { retry_in } => Class::Withheld(*retry_in),
            _ => Class::Transient,
        }
    }
}

impl Failure {
    /// One word for metrics.
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

    /// Whether the same request may fare better in a moment.
    pub(super) fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Server { .. } | Self::Network(_) | Self::RateLimited { .. }
        )
    }

    /// Whether the Control Plane lives, though it does not give what is asked.
    pub(super) fn is_alive(&self) -> bool {
        matches!(
            self,
            Self::Auth { .. }
                | Self::NotFound { .. }
                | Self::Refused { .. }
                | Self::RateLimited { .. }
        )
    }

    /// The wait that the Control Plane asks for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
