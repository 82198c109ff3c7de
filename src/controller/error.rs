//! Errors of steps, of a reconcile, and of a request to recreate an object.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{Endpoint, ErrorClass, ObjectKey};
use crate::observed::bird::{BadName, Silence};
use crate::plan::{Plan, Refusal, Step};
use crate::ports::{BaseError, BirdError, CommitError, FragmentError, KernelError};
use crate::store::StoreError;
use crate::telemetry::chain;

/// The reason why the steps did not run to their end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Kernel(Arc<KernelError>),
    /// The kernel's executor did not answer for this step.
    #[error("the kernel returned no result for: {}", .0.action)]
    NoResult(Box<Step>),
    /// BIRD does not run the text of this object, because of the text.
    #[error("BIRD refused it: {}", refusal(.0))]
    Fragment(FragmentError),
    /// No text could be loaded, for a reason unrelated to the object.
    #[error(transparent)]
    Commit(Arc<CommitError>),
    /// BIRD could not receive the files that all sessions share.
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error(transparent)]
    Command(Arc<BirdError>),
    #[error(transparent)]
    Name(#[from] BadName),
    /// BIRD works on another commit.
    #[error("BIRD is busy and has not confirmed it yet")]
    Busy,
    /// BIRD hangs.
    #[error(transparent)]
    Silent(Silence),
    /// The protocol was enabled less than a minute ago, so the step waits.
    #[error("{protocol} was enabled less than a minute ago")]
    TooSoon {
        protocol: String,
        /// Remaining wait.
        left: Duration,
    },
    /// A condition of the status document: the failure that the agent recorded before.
    #[error("{message}")]
    Recorded { of: FailedPart, message: String },
}

/// The part of an object that a failure concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedPart {
    /// The object itself: the kernel rejects it.
    Kernel,
    /// The object's text for BIRD.
    Text,
    /// BIRD as a whole.
    Bird,
    /// The files that all sessions share.
    Base,
}

impl Trouble {
    /// Returns the part of the object that the failure concerns.
    pub(crate) fn part(&self) -> FailedPart {
        match self {
            Self::Kernel(_) | Self::NoResult(_) => FailedPart::Kernel,
            Self::Fragment(_) => FailedPart::Text,
            Self::Commit(error) if is_own(error) => FailedPart::Text,
            Self::Base(BaseError::Commit(error)) if error.is_late() => FailedPart::Bird,
            Self::Base(_) => FailedPart::Base,
            Self::Recorded { of, .. } => *of,
            _ => FailedPart::Bird,
        }
    }

    /// Returns what the failure means for a retry: a transient one ends without a change of the object.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NoResult(_) => ErrorClass::Bug,
            // Another load may have removed the protocols again.
            Self::Fragment(FragmentError::Unverified { .. }) => ErrorClass::Transient,
            Self::Fragment(_) | Self::Name(_) => ErrorClass::Invalid,
            Self::Commit(error) | Self::Base(BaseError::Commit(error)) => match &**error {
                CommitError::Foreign(_) | CommitError::OtherAgent(..) => ErrorClass::Conflict,
                // An operator's file may be repaired without an announcement.
                _ => ErrorClass::Transient,
            },
            Self::Base(BaseError::Refused { .. } | BaseError::Incomplete { .. }) => {
                ErrorClass::Invalid
            }
            Self::Base(BaseError::Path(_)) => ErrorClass::Bug,
            Self::Kernel(error) => match **error {
                KernelError::NotOurs { .. } => ErrorClass::Conflict,
                // A module may be loaded, or a program installed, without an announcement.
                KernelError::Unsupported { .. } | KernelError::Request { .. } => {
                    ErrorClass::Transient
                }
            },
            Self::Recorded { of, .. } if *of == FailedPart::Text => ErrorClass::Invalid,
            Self::Command(_)
            | Self::Busy
            | Self::Silent(_)
            | Self::TooSoon { .. }
            | Self::Recorded { .. } => ErrorClass::Transient,
        }
    }

    /// Returns whether BIRD is hanging or busy, which is no failure of the object.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Busy | Self::Silent(_) | Self::TooSoon { .. } => true,
            _ => self.is_late(),
        }
    }

    /// Returns whether a check or a load did not end in time, and is tried again later.
    pub(crate) fn is_late(&self) -> bool {
        match self {
            Self::Commit(error) | Self::Base(BaseError::Commit(error)) => error.is_late(),
            _ => false,
        }
    }

    /// Returns whether the kernel, or the machine, lacks a feature.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Kernel(error) if matches!(**error, KernelError::Unsupported { .. }))
    }

    /// Returns the text of a failure of this part.
    pub(crate) fn of(&self, part: FailedPart) -> Option<String> {
        (self.part() == part).then(|| match self {
            Self::Fragment(error) => refusal(error),
            Self::Commit(error) if part == FailedPart::Text => match &**error {
                CommitError::Tree(what) => what.to_string(),
                error => error.to_string(),
            },
            error => chain(error),
        })
    }
}

/// Returns whether an obstacle keeps the object's own file from being configured; every other error is temporary.
fn is_own(error: &CommitError) -> bool {
    matches!(
        error,
        CommitError::Tree(_) | CommitError::Foreign(_) | CommitError::OtherAgent(..)
    )
}

/// Returns BIRD's message about a text, without the object's name.
fn refusal(error: &FragmentError) -> String {
    match error {
        FragmentError::Refused { what, .. } => what.to_string(),
        error => error.to_string(),
    }
}

impl From<FragmentError> for Trouble {
    fn from(error: FragmentError) -> Self {
        match error {
            FragmentError::Commit(error) => Self::Commit(error),
            error => Self::Fragment(error),
        }
    }
}

impl From<BirdError> for Trouble {
    fn from(error: BirdError) -> Self {
        Self::Command(Arc::new(error))
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
            Self::Kernel(_) => ErrorClass::Transient,
            Self::TakeDown(trouble) => trouble.class(),
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
    #[error("{key} is paused, so it is left unchanged; `moenet-agent resume {key}` ends the pause")]
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
