use std::io;
use std::path::{Path, PathBuf};

use crate::document::DocumentError;
use crate::model::ErrorClass;

/// A failure to open, read or write the state directory. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused an operation on a file.
    #[error("cannot {operation} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// The attempted operation, as a verb: `write`, `read`, `create`.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another agent works on this directory.
    #[error(
        "{} is in use by another agent ({holder}); stop that one, or give this one another directory",
        dir.display()
    )]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The holder of the lock, if known.
        holder: String,
    },
    /// Another command changes documents.
    #[error(
        "another command changes documents in {}, so nothing was written; try again when it has ended",
        dir.display()
    )]
    ChangesLocked {
        /// The state directory.
        dir: PathBuf,
    },
    /// Another process changes the approvals.
    #[error(
        "another process changes the approvals in {}, so nothing was approved; look at \
         `moenet-agent approve --list`, and approve again what it still lists",
        dir.display()
    )]
    ApprovalsLocked {
        /// The state directory.
        dir: PathBuf,
    },
    /// The opened directory does not exist now.
    #[error("the state directory {} {reason}; nothing is removed until it is back", dir.display())]
    Vanished {
        /// The state directory.
        dir: PathBuf,
        /// The finding: "is not there", "is another directory than the one that was opened".
        reason: String,
    },
    /// Git has moved the work tree.
    #[error(
        "HEAD of the repository in {} is {at}, so documents are neither read nor written there; \
         run `git -C {} checkout main`",
        dir.display(), dir.display()
    )]
    Moved {
        /// The state directory.
        dir: PathBuf,
        /// Position of HEAD, as text.
        at: String,
    },
    /// The document belongs to an operator; the agent does not overwrite it.
    #[error(
        "{} is the operator's own document (it has no uid); the agent does not overwrite it. \
         Rename or delete it to let the Control Plane's document of this name in",
        path.display()
    )]
    OperatorOwned { path: PathBuf },
    /// An operator edited a synced document; the edit becomes an override before the document is overwritten.
    #[error("{} was edited by hand; the edit must be imported as an override before the file is \
             overwritten", path.display())]
    EditedInPlace { path: PathBuf },
    /// The existing file is not a valid document, so its owner is unknown.
    #[error("not overwritten, because its owner is unknown: {0}")]
    Document(#[from] DocumentError),
    /// A name that does not stay inside `secrets/`; it is not shown, because it may be the secret itself.
    #[error("not a file in secrets/: use secrets/<name> with a name of A-Z a-z 0-9 _ . -")]
    SecretName,
    /// An invalid file in `secrets/`: a link, a directory, too large, not text.
    #[error("{}: {reason}", path.display())]
    Secret {
        path: PathBuf,
        /// The problem; never the content.
        reason: String,
    },
    /// The directory was opened for reading only.
    #[error("{} was opened for reading only", dir.display())]
    ReadOnly {
        /// The state directory.
        dir: PathBuf,
    },
    /// An invalid call: a bug in the agent.
    #[error("this is a mistake in the agent, please report it: {0}")]
    Bug(String),
}

impl StoreError {
    /// Adds the attempted operation and the file to an [`io::Error`]; for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Returns whether the system did not find a file or folder.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns what the error means for a retry and for the log.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Io { .. }
            | Self::Vanished { .. }
            | Self::Locked { .. }
            | Self::ApprovalsLocked { .. }
            | Self::ChangesLocked { .. }
            | Self::Moved { .. } => ErrorClass::Transient,
            Self::OperatorOwned { .. } | Self::EditedInPlace { .. } => ErrorClass::Conflict,
            Self::Document(_) | Self::SecretName | Self::Secret { .. } => ErrorClass::Invalid,
            Self::ReadOnly { .. } | Self::Bug(_) => ErrorClass::Bug,
        }
    }
}

/// Returns the advice for the operator about a system error.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            ". The disk is full (or out of inodes): free space; existing files are unharmed, and \
             the agent retries"
        }
        io::ErrorKind::QuotaExceeded => {
            ". The disk quota is used up: free space; existing files are unharmed"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ". The file system is read-only: look for disk errors in the kernel log and remount it for writing"
        }
        io::ErrorKind::PermissionDenied => ". The agent's user must own the state directory",
        io::ErrorKind::NotADirectory => ". A file is in the place of a directory: move it away",
        io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
            ". A directory is in the place of the file: move it away"
        }
        _ => "",
    }
}
