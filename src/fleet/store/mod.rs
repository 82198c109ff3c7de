//! Where the fleet's files and the routers' posts are. The server knows a store by one trait.

pub(super) mod directory;
pub(super) mod git;
mod held;
#[cfg(feature = "postgres")]
pub(super) mod postgres;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::StatusCode;

use super::audit::{AuditEntry, Author};
use super::change::{ChangeError, Changes, Must};
use super::commit::FleetCommit;
use super::good::{Good, Written};
use super::history::ServedList;
use super::layout::Tokens;
use super::network::FleetFiles;
use super::posts::{Post, Posts, ReportedStatus, Statuses};
use super::rollout::FleetRecord;
use super::version::{Revisions, Version};
use crate::http::ApiError;
use crate::model::{ObjectName, PublicKey, Uid};
use crate::wire::{Call, Modify};

/// The code of an answer while the store cannot be used.
pub(super) const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";

/// Most routers whose posts are read together: those of ten thousand take hundreds of megabytes.
pub(super) const POSTS_AT_ONCE: usize = 256;

/// The files of the operators and the posts of the routers. An error is what the router gets.
#[async_trait]
pub(super) trait Store: Send + Sync {
    /// Returns the files of a network at one moment, the same as before if none changed; `None` without a description.
    async fn network(&self) -> Result<Option<Arc<FleetFiles>>, ApiError>;

    /// Reads what other instances have acknowledged before this call.
    async fn catch_up(&self) -> Result<(), ApiError> {
        Ok(())
    }

    /// Returns one file as it is now; `None` if it does not exist.
    async fn file(&self, path: &Path) -> io::Result<Option<Arc<str>>>;

    /// Returns the key in the newest heartbeat of each router of a network, the same as before if none changed.
    async fn mesh_keys(&self) -> Result<Arc<PostedKeys>, ApiError>;

    /// Returns each router with a folder of its own, with the revision of its files.
    async fn revisions(&self) -> Revisions;

    /// Returns how a router with a folder of its own is let in; `None` without one.
    async fn door(&self, router: &ObjectName) -> Result<Option<Door>, ApiError>;

    /// Returns the version of what the folder of a router has for an answer; `None` while its files may change.
    async fn version(&self, router: &ObjectName, call: Call) -> Option<Version>;

    /// Returns what the folder of a router has for an answer. May wait until a file is complete.
    async fn written(&self, router: &ObjectName, call: Call) -> Result<Written, ApiError>;

    /// Returns the text behind an answer, to show where it is invalid. Empty without one.
    async fn text(&self, router: &ObjectName, call: Call) -> String;

    /// Returns the last valid version of each unit of an answer.
    async fn good(&self, router: &ObjectName, call: Call) -> Result<Good, ApiError>;

    /// Makes a change of the operators' files and writes it, durably when it returns and only if no file changed
    /// meanwhile. Returns the changed files.
    async fn change_files(
        &self,
        by: &Author,
        make: MakeChange,
    ) -> Result<Vec<String>, ChangeError> {
        let _ = (by, make);
        let message = "this server only reads its fleet; commit the change to the repository";
        let status = StatusCode::CONFLICT;
        Err(ApiError::new(status, "READ_ONLY", message).into())
    }

    /// Returns the changes of files and the decisions that were made, the newest last.
    async fn audit(&self) -> Result<Vec<AuditEntry>, ApiError>;

    /// Returns the newest posted status of each session.
    async fn statuses(&self, router: &ObjectName) -> Result<Statuses, ApiError>;

    /// Returns the posted status of one session: none or one.
    async fn status(&self, router: &ObjectName, uuid: &Uid) -> Result<Statuses, ApiError>;

    /// Returns the newest posts of a router.
    async fn posts(&self, router: &ObjectName) -> Result<Posts, ApiError>;

    /// Returns the newest posts of at most `POSTS_AT_ONCE` routers, in the order of these.
    async fn posts_of(&self, routers: &[ObjectName]) -> Vec<Result<Posts, ApiError>> {
        let mut posts = Vec::with_capacity(routers.len());
        for router in routers {
            posts.push(self.posts(router).await);
        }
        posts
    }

    /// Returns the lists that a router was served, the newest last.
    async fn served(&self, router: &ObjectName) -> Result<Vec<ServedList>, ApiError>;

    /// Returns the commit whose files are served; `None` from a store without commits.
    fn commit(&self) -> Option<FleetCommit> {
        None
    }

    /// Returns the record of the whole fleet, the empty one if there was none yet.
    async fn record(&self) -> Result<FleetRecord, ApiError>;

    /// Replaces the record of the version that `record` was made from, durably, with the next version. Returns whether
    /// it did: another instance may have been faster. If it did, `decided` becomes an entry of the audit.
    async fn set_record(
        &self,
        record: &FleetRecord,
        decided: Option<AuditEntry>,
    ) -> Result<bool, ApiError>;

    /// Stores changes, durably when it returns. The caller makes them one at a time for a router.
    async fn write(&self, router: &ObjectName, changes: Vec<Change>) -> Result<(), ApiError>;
}

/// Makes a change of files that are not written yet. It is called again if another change was faster.
pub(super) type MakeChange = Box<dyn FnMut(&mut Changes) -> Result<Must, ChangeError> + Send>;

/// The public keys of tunnels by the names of routers.
pub(super) type PostedKeys = BTreeMap<ObjectName, PublicKey>;

/// How a router is let in.
pub(super) struct Door {
    /// The error, if the files give no token.
    pub(super) tokens: Result<Tokens, ApiError>,
    /// Whether the tokens may be wrong because their file is incomplete or cannot be read.
    pub(super) is_being_written: bool,
    pub(super) in_maintenance: bool,
}

/// A change of what the server stores about a router.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Heartbeat(Post),
    Report(Post),
    /// Lists that the router was served, or new states of these.
    Served(Vec<ServedList>),
    /// A session's status, as its router posted it.
    Status(ReportedStatus),
    /// The operator has changed the status that this post answered.
    Forget(ReportedStatus),
    /// A line for the log of the posts of statuses.
    Log {
        modify: Modify,
        applied: bool,
    },
    /// The last valid version of each unit of an answer.
    Good(Call, Good),
}
