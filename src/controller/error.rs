//! Errors of steps, of a reconcile, and of a request to recreate an object.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Endpoint, ErrorClass, ObjectKey};
use crate::plan::{Plan, Refusal};
use crate::ports::{BaseError, KernelError};
use crate::store::StoreError;

/// The reason why the steps did not run to their end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    #[error("{0}")]
    Kernel(String),
    /// The kernel, or the machine, lacks a feature.
    #[error("{0}")]
    Unsupported(String),
    /// BIRD refused the text of this object; the field is BIRD's message.
    #[error("BIRD refused it: {0}")]
    BirdRefused(String),
    /// BIRD hangs, or is busy; this ends without an operator.
    #[error("{0}")]
    Waiting(String),
    /// The protocol was enabled less than a minute ago, so the step waits.
    #[error("{what}")]
    TooSoon {
        /// The earlier enable, as text.
        what: String,
        /// Remaining wait.
        left: Duration,
    },
    /// BIRD could not receive the text, for a reason unrelated to the object.
    #[error("{0}")]
    Bird(String),
    /// BIRD could not receive the files that all sessions share.
    #[error(transparent)]
    Base(#[from] BaseError),
}

impl Trouble {
    /// Returns the text when the object itself cannot be configured; trouble with BIRD as a whole does not count.
    pub(crate) fn error(&self) -> Option<String> {
        match self {
            Self::Kernel(text) | Self::Unsupported(text) => Some(text.clone()),
            Self::BirdRefused(_)
            | Self::Bird(_)
            | Self::Base(_)
            | Self::Waiting(_)
            | Self::TooSoon { .. } => None,
        }
    }

    /// Returns the trouble with BIRD as a whole.
    pub(crate) fn of_bird(&self) -> Option<&str> {
        match self {
            Self::Bird(text) | Self::Waiting(text) | Self::TooSoon { what: text, .. } => Some(text),
            _ => None,
        }
    }

    /// Returns BIRD's message, when it refused the object.
    pub(crate) fn refused(&self) -> Option<&str> {
        match self {
            Self::BirdRefused(text) => Some(text),
            _ => None,
        }
    }
}

/// Reason why an object could not be compared with the observed state, or its plan not begun.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReconcileError {
    /// The kernel could not be read.
    #[error(transparent)]
    Kernel(Arc<KernelError>),
    /// The state directory could not be read, or the claims of the object could not be recorded.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The link of an object that is to be recreated could not be removed.
    #[error(transparent)]
    TakeDown(Trouble),
}

impl ReconcileError {
    /// Returns what the error means for a retry and for the log. A kernel that cannot be read has an edge of its own,
    /// and a link that cannot be removed is in the answer to the request.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Kernel(_) | Self::TakeDown(_) => ErrorClass::Transient,
            Self::Store(error) => error.class(),
        }
    }
}

impl From<StoreError> for ReconcileError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// Reason why an object was not recreated.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RestartError {
    /// An override pauses the object.
    #[error(
        "{key} is paused (hands off), so it is left unchanged; remove the pause in overrides/{key}.yaml first"
    )]
    Paused { key: ObjectKey },
    /// Its link, once removed, could not be created again.
    #[error("{key} is left unchanged: {why}")]
    NotMakeable { key: ObjectKey, why: Obstacle },
    /// The reconcile ended early.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// A foreign object is in the way of the new link.
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Failed(Trouble),
    /// Steps are left.
    #[error("not done yet: {0}")]
    Unfinished(Box<Plan>),
}

/// Reason why a link could not be created again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Obstacle {
    /// The name of the peer's endpoint does not resolve.
    #[error("the name of its endpoint {endpoint} has no address ({why})")]
    NoAddress {
        endpoint: Endpoint,
        /// The error of the last lookup.
        why: String,
    },
    /// Another object has to move first.
    #[error("it {0}")]
    Waits(String),
    /// A foreign object is in the way.
    #[error(transparent)]
    Refused(#[from] Refusal),
}
