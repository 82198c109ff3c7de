//! Who changes the files of a fleet through a server, or in a database.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::change::ChangeError;
use crate::http::{ApiError, Client};

/// Who asks for a change, and for which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Author {
    /// `admin-socket`, `write-token`, `AS` and the number of the owner, or the user of a verb.
    pub(crate) who: String,
    /// The address of the client, or a word for it.
    pub(crate) client: String,
    /// The change: `accept`, `disable`, `delete`, `create`, `change`, or `import`.
    pub(crate) what: String,
    /// The session: `ROUTER/NAME`; `fleet` for all files.
    pub(crate) object: String,
}

/// A change of files that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuditEntry {
    pub(crate) at: Timestamp,
    #[serde(flatten)]
    pub(crate) author: Author,
    /// The changed files.
    pub(crate) files: Vec<String>,
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

    /// Returns the entry of a change that is made now.
    pub(super) fn made(&self, files: Vec<String>) -> AuditEntry {
        AuditEntry {
            at: Timestamp::now(),
            author: self.clone(),
            files,
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
