use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CommitId;

/// Why the history could not be written or read. None of it holds up routing.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no git.
    #[error("cannot run {}: {source}; install git, and the history goes on by itself", program.display())]
    NoGit {
        /// What was called.
        program: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The directory that is there is not the one whose history this is.
    #[error("the state directory {} is not there; the history goes on when it is back", dir.display())]
    Away {
        /// The state directory.
        dir: PathBuf,
    },
    /// Git has moved the work tree, or is about to.
    #[error(
        "the work tree of {} is {at}; commits wait until it is back on branch main (`git checkout main`)",
        dir.display()
    )]
    Moved {
        /// The state directory.
        dir: PathBuf,
        /// Where it is, in words.
        at: String,
    },
    /// There is a repository, and git does not take it for one.
    #[error(
        "the history in {} cannot be read: {reason}; when it is broken, the agent sets it aside and begins a new \
         one with its next commit",
        dir.display()
    )]
    Broken {
        /// The repository.
        dir: PathBuf,
        /// Git's words.
        reason: String,
    },
    /// Git did not end in time.
    #[error("git did not {operation} in {} within {deadline:?}; it was stopped", dir.display())]
    Deadline {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The state directory.
        dir: PathBuf,
        /// How long it had.
        deadline: Duration,
    },
    /// Git refused.
    #[error("git cannot {operation} in {}: {reason}", dir.display())]
    Git {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The state directory.
        dir: PathBuf,
        /// Git's words.
        reason: String,
    },
    /// A file of the repository could not be read or written.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// There is no such commit.
    #[error("the history has no commit {0:?}; `history` lists those there are")]
    NoCommit(String),
    /// A name that is that of several commits.
    #[error("{start:?} may be {}; give more of its name", some(.commits))]
    Ambiguous {
        /// What was given.
        start: String,
        /// The commits whose names begin so.
        commits: Vec<CommitId>,
    },
    /// A path that is no document of the state directory.
    #[error("{} is nothing that the history keeps", .0.display())]
    NotKept(PathBuf),
}

/// The first few names.
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
    /// Makes an [`io::Error`] say what was attempted on which file; for `map_err`.
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}
