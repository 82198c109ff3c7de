//! The Control Plane's lists as documents, and reports of this router to the Control Plane.
//!
//! | file | task |
//! |---|---|
//! | `poll` | fetches each list and writes its documents |
//! | `plan` | a list against the state directory as changes of documents; pure |
//! | `reporting` | heartbeats, reports and the outbox |
//! | `follow` | fetches the lists as soon as one has changed |
//! | `calls` | repeats each call, and records its health |
//! | `requests` | syncs that `/sync` requests |

mod calls;
mod follow;
pub mod plan;
mod poll;
mod reporting;
mod requests;

use std::sync::Arc;
use std::time::Instant;

pub use calls::{CallHealth, Calls};
pub use requests::{Requests, SyncView};

use crate::config::LiveConfig;
use crate::control_plane::{Client, Outbox, State as Breaker};
use crate::controller::{Context, Edits, RefusedItems};
use crate::history::Feed;
use crate::model::ErrorClass;
use crate::sources::Sources;
use crate::status::{Fact, State, Topic};
use crate::store::StoreError;
use crate::util::notices::Notices;

/// The exchange with the Control Plane.
pub struct Syncer {
    pub client: Arc<Client>,
    pub calls: Arc<Calls>,
    pub requests: Arc<Requests>,
    /// Reports that the Control Plane has not acknowledged.
    pub outbox: Option<Arc<Outbox>>,
    pub config: Arc<LiveConfig>,
    /// The controller's state.
    pub context: Arc<Context>,
    /// Items of the lists that do not decode.
    pub refused: Arc<RefusedItems>,
    /// Importer of manual edits.
    pub edits: Arc<Edits>,
    /// Changes of documents, for the history.
    pub feed: Arc<Feed>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) remarks: Remarks,
    /// Start time of the agent.
    pub started: Instant,
}

/// Remarks on the last lists, each logged once while it lasts.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    /// Values of the policy that are probably not intended.
    pub(crate) policy: Notices,
    /// Items without an identity. An item with an identity has a status, whose edges are logged.
    pub(crate) sessions: Notices,
    /// The same in the list of peers of the backbone.
    pub(crate) mesh: Notices,
    /// The same in the list of internal neighbours.
    pub(crate) ibgp: Notices,
}

/// The reason why the documents of a list are not written.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The next fetch after the return writes the documents.
    #[error("HEAD of the state directory is {head}; run `git checkout main` there to return")]
    Moved { head: String },
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SyncError {
    /// Returns what the error means for a retry and for the log.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Moved { .. } => ErrorClass::Transient,
            Self::Store(error) => error.class(),
        }
    }
}

impl Syncer {
    /// Facts for the log: the circuit breakers of the calls.
    pub fn breakers(&self) -> [(Topic, Fact); 2] {
        let breakers = [
            ("fetches", self.client.breaker()),
            ("posts", self.client.post_breaker()),
        ];
        breakers.map(|(calls, state)| {
            let state = match state {
                Breaker::Closed => State::Good,
                Breaker::Open => State::Bad,
                Breaker::HalfOpen => State::Unknown,
            };
            (Topic::Breaker(calls.to_owned()), Fact::new(state, ""))
        })
    }
}
