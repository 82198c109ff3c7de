use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CommitId;

/// A failure to write or read the history. None of them delays routing.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Git is not installed.
    #[error("cannot run {}: {source}; install git, and the history continues", program.display())]
    NoGit {
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The current directory is not the one of this history.
    #[error("the state directory {} is missing; the history continues when it is back", dir.display())]
    Away {
        /// The state directory.
        dir: PathBuf,
    },
    /// Git has moved the work tree, or is about to move it.
    #[error(
        "the work tree of {} is {at}; commits wait until it is back on branch main (`git checkout main`)",
        dir.display()
    )]
    Moved {
        /// The state directory.
        dir: PathBuf,
        /// Position of the tree, as text.
        at: String,
    },
    /// A repository exists, but git does not recognize it.
    #[error(
        "cannot read the history in {}: {reason}; if it is broken, the agent moves it aside and \
         starts a new one with its next commit",
        dir.display()
    )]
    Broken {
        dir: PathBuf,
        /// Git's error.
        reason: String,
    },
    /// Git did not end in time.
    #[error("git did not {operation} in {} within {deadline:?}; it was stopped", dir.display())]
    Deadline {
        /// The attempted operation, as a verb.
        operation: &'static str,
        /// The state directory.
        dir: PathBuf,
        /// The time limit.
        deadline: Duration,
    },
    #[error("git cannot {operation} in {}: {reason}", dir.display())]
    Git {
        /// The attempted operation, as a verb.
        operation: &'static str,
        /// The state directory.
        dir: PathBuf,
        /// Git's error.
        reason: String,
    },
    /// A file of the repository could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// The attempted operation, as a verb.
        operation: &'static str,
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The commit does not exist.
    #[error("the history has no commit {0:?}; `moenet-agent history` lists the commits")]
    NoCommit(String),
    /// An abbreviated ID that matches several commits.
    #[error("{start:?} may be {}; give more digits", some(.commits))]
    Ambiguous {
        /// The given text.
        start: String,
        /// The commits whose IDs start with it.
        commits: Vec<CommitId>,
    },
    /// A path that is not a document of the state directory.
    #[error("the history does not record {}", .0.display())]
    NotKept(PathBuf),
}

/// Returns the first few IDs.
fn some(commits: &[CommitId]) -> String {
    let names: Vec<_> = commits.iter().take(4).map(CommitId::short).collect();
    let more = commits
        .len()
        .checked_sub(names.len())
        .filter(|more| *more > 0);
    names.join(" or ")
        + &more
            .map(|more| format!(" or {more} others"))
            .unwrap_or_default()
}

impl HistoryError {
    /// Adds the attempted operation and the file to an [`io::Error`]; for `map_err`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
