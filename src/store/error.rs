use std::io;
use std::path::{Path, PathBuf};

use crate::document::DocumentError;

/// Why the state directory could not be opened, read or written. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused an operation on a file.
    #[error("cannot {operation} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was attempted, as a verb: `write`, `read`, `create`.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
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
        /// Who holds the lock, as far as is known.
        holder: String,
    },
    /// The directory that was opened is not there now.
    #[error("the state directory {} {reason}; nothing is removed until it is back", dir.display())]
    Vanished {
        /// The state directory.
        dir: PathBuf,
        /// How it shows: "is not there", "is another directory than the one that was opened".
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
        /// Where HEAD is, in words.
        at: String,
    },
    /// An operator wrote this document; the agent does not write over it.
    #[error(
        "{} is the operator's own document (it has no uid); the agent does not write over it. \
         Rename or delete it to let the Control Plane's document of this name in",
        path.display()
    )]
    OperatorOwned {
        /// The file.
        path: PathBuf,
    },
    /// An operator edited a synced document; it becomes an override before it is written over.
    #[error("{} was edited by hand; the edit has to become an override before it is written over", path.display())]
    EditedInPlace {
        /// The file.
        path: PathBuf,
    },
    /// The file that stands in the way is no valid document, so nobody can tell whose it is.
    #[error("not written over, because nobody can tell whose it is: {0}")]
    Document(#[from] DocumentError),
    /// A name that does not stay inside `secrets/`; it is not shown, since it may be the secret itself.
    #[error(
        "what is named is no file in secrets/: write secrets/<name>, of A-Z a-z 0-9 _ . - only"
    )]
    SecretName,
    /// A file in `secrets/` that is none: a link, a directory, too large, not text.
    #[error("{}: {reason}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong; never the content.
        reason: String,
    },
    /// The directory was opened for reading only.
    #[error("{} was opened for reading only", dir.display())]
    ReadOnly {
        /// The state directory.
        dir: PathBuf,
    },
    /// A call that makes no sense: a mistake in the agent.
    #[error("this is a mistake in the agent, please report it: {0}")]
    Bug(String),
}

impl StoreError {
    /// The thread that did the work was ended before it was done.
    pub(crate) fn interrupted() -> Self {
        Self::Bug("work on the state directory was interrupted".to_owned())
    }

    /// Makes an [`io::Error`] say what was attempted on which file; for `map_err`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }

    /// Whether the same call may succeed later although no document changes: disk full, read-only,
    /// unmounted.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Vanished { .. } | Self::Locked { .. } | Self::Moved { .. }
        )
    }
}

/// What an operator does about an error of the system.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            ". The disk is full (or out of inodes): make room; what was there is unharmed, and the agent tries again"
        }
        io::ErrorKind::QuotaExceeded => {
            ". The disk quota is used up: make room; what was there is unharmed"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ". The file system is read-only: look for disk errors in the kernel log and remount it for writing"
        }
        io::ErrorKind::PermissionDenied => ". The agent's user must own the state directory",
        io::ErrorKind::NotADirectory => ". A file stands where a directory belongs: move it away",
        io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => {
            ". A directory stands where the file belongs: move it away"
        }
        _ => "",
    }
}
