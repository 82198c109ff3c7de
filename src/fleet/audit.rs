//! Who changes what routers get: the files of a fleet through a server or in a database, and decisions about all of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::change::ChangeError;
use super::commit::FleetCommit;
use crate::http::{ApiError, Client};
use crate::model::ObjectName;

/// The object of a change of all files, or of a decision about all routers.
pub(super) const FLEET: &str = "fleet";

/// The server itself, as the one who decides.
const SERVER: &str = "server";

/// A router that asks with its own token.
const ROUTER: &str = "router";

/// Who asks for a change, and for which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    /// `admin-socket`, `write-token`, `AS` and the number of the owner, `router`, `server`, or the user of a verb.
    pub(crate) who: String,
    /// The address of the client, or a word for it.
    pub(crate) client: String,
    /// The change: `accept`, `disable`, `delete`, `create`, `change`, `import`, `drain`, or a step of a rollout.
    pub(crate) what: String,
    /// The session: `ROUTER/NAME`; the router; `fleet` for all files.
    pub(crate) object: String,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditEntry {
    pub(crate) at: Timestamp,
    #[serde(flatten)]
    pub(crate) author: Author,
    /// The changed files.
    pub(crate) files: Vec<String>,
    /// The reason of a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// The commit that a step of a rollout is about; absent over a store without commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<FleetCommit>,
}

impl AuditEntry {
    /// Returns the entries of a log's lines. One that cannot be read costs itself only.
    pub(super) fn read<L: AsRef<[u8]>>(lines: impl Iterator<Item = L>) -> Vec<Self> {
        let mut entries = Vec::new();
        let mut unreadable = 0;
        for line in lines {
            match serde_json::from_slice(line.as_ref()) {
                Ok(entry) => entries.push(entry),
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            tracing::warn!(
                entries = unreadable,
                "entries of the audit cannot be read and are left out"
            );
        }
        entries
    }

    /// Returns the entry of a permission that a router gets now to drain; `broken` is the budget that `--force` breaks.
    pub(super) fn drain(router: &ObjectName, client: Client, broken: Option<String>) -> Self {
        let what = match broken {
            Some(_) => "drain by force",
            None => "drain",
        };
        let author = Author::new(ROUTER, client, what, router.to_string());
        Self {
            why: broken,
            ..author.made(Vec::new())
        }
    }

    /// Returns the entry of a step that the server makes now with the whole fleet, as of this commit.
    pub(super) fn step(what: &str, why: Option<String>, commit: Option<FleetCommit>) -> Self {
        let author = Author::new(SERVER, Client::Local, what, FLEET.to_owned());
        Self {
            why,
            commit,
            ..author.made(Vec::new())
        }
    }
}

impl Author {
    pub(super) fn new(who: impl Into<String>, client: Client, what: &str, object: String) -> Self {
        Self {
            who: who.into(),
            client: client.to_string(),
            what: what.to_owned(),
            object,
        }
    }

    /// Returns the entry of a change of files that is made now.
    pub(super) fn made(&self, files: Vec<String>) -> AuditEntry {
        AuditEntry {
            at: Timestamp::now(),
            author: self.clone(),
            files,
            why: None,
            commit: None,
        }
    }

    /// Logs a change that was refused before it was made.
    pub(super) fn refused(&self, error: ApiError) -> ApiError {
        self.log(&Err(error.clone().into()));
        error
    }

    /// Logs the changed files, or why there is no change.
    pub(super) fn log(&self, changed: &Result<Vec<String>, ChangeError>) {
        let Self {
            who,
            client,
            what,
            object,
        } = self;
        match changed {
            Ok(files) => {
                let result = match files.is_empty() {
                    true => "unchanged",
                    false => "changed",
                };
                let files = files.join(" ");
                tracing::info!(
                    who,
                    client,
                    what,
                    object,
                    result,
                    files,
                    "change of a session"
                );
            }
            Err(error) => {
                let result = "refused";
                tracing::warn!(who, client, what, object, result, %error, "change of a session was refused");
            }
        }
    }
}
