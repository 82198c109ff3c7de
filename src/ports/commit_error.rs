use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{BirdError, CheckError};
use crate::model::Identity;
use crate::observed::bird::mark::{way_out, whose};
use crate::observed::bird::{BirdProblem, Diagnostic, Version};

/// Reason why BIRD does not run a fragment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FragmentError {
    /// The name is not a valid file name.
    #[error(
        "{0:?} cannot name a fragment: use 1..64 of A-Z a-z 0-9 _ . - and begin with no dot or dash"
    )]
    Name(String),
    /// BIRD's parser rejects the text. The previous text stays.
    #[error("BIRD refuses the fragment {name}: {what}")]
    Refused {
        name: String,
        /// BIRD's message, with the live file, line and column.
        what: Diagnostic,
    },
    /// The text does not define the protocols that it promises. It was not loaded.
    #[error(
        "the file of {name} does not define protocol {}: not loaded, keeping the previous file",
        .missing.join(", ")
    )]
    Undefined { name: String, missing: Vec<String> },
    /// BIRD loaded the text but does not have the protocols that it defines. The load was undone.
    #[error("BIRD loaded the fragment {name} but has no protocol {}: undone", .missing.join(", "))]
    Unverified { name: String, missing: Vec<String> },
    /// The commit failed for all callers.
    #[error(transparent)]
    Commit(#[from] Arc<CommitError>),
}

/// Reason why BIRD does not run the base files.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BaseError {
    /// The path is not one of the agent's.
    #[error(
        "{0:?} cannot be a base file: use bird.conf or moenet/….conf, outside moenet/sessions/"
    )]
    Path(String),
    /// BIRD's parser rejects the files. The previous files stay.
    #[error("BIRD configuration failed: {what}")]
    Refused {
        /// BIRD's message, with the live file, line and column.
        what: Diagnostic,
    },
    /// BIRD would not read all of these files. They were not loaded.
    #[error(
        "the base configuration does not include {}: not loaded, keeping the previous files",
        .missing.join(", ")
    )]
    Incomplete {
        /// The files that no include reaches.
        missing: Vec<String>,
    },
    /// The commit failed for all callers.
    #[error(transparent)]
    Commit(#[from] Arc<CommitError>),
}

/// Reason why nothing was committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A file operation failed.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// The operation: `read`, `write`, …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The parser could not be run, or crashed without naming a file.
    #[error("cannot check the configuration")]
    Check(#[from] CheckError),
    /// An unchanged file is broken: the operator's `bird.conf`, or a file edited by hand.
    #[error("BIRD's configuration has an error outside this change: {0}")]
    Tree(Diagnostic),
    /// BIRD did not answer, or refused `configure`.
    #[error("cannot load the configuration into BIRD")]
    Bird(#[from] BirdError),
    /// A file carries no mark, so it is not the agent's.
    #[error("{} was not written by the agent and is left unchanged: move it away", .0.display())]
    Foreign(PathBuf),
    /// A file carries the mark of another state directory.
    #[error("{} {} and is left unchanged: {}", .0.display(), whose(.1.as_ref()), way_out(.1.as_ref()))]
    OtherAgent(PathBuf, Option<Identity>),
    /// BIRD's main file is the operator's and does not include the agent's files.
    #[error("{0}")]
    Blocked(BirdProblem),
    /// The parser and the running daemon have different versions, and the parser rejects a text that the daemon may
    /// accept.
    #[error(
        "{program} is BIRD {parser} and the running daemon is BIRD {daemon}, so no check is \
         possible: restart BIRD, or set bird.binary to the daemon's program ({what})"
    )]
    Versions {
        program: String,
        parser: Version,
        /// The version of the daemon on the control socket.
        daemon: Version,
        /// The parser's message.
        what: Diagnostic,
    },
    /// BIRD loaded a configuration without the agent's files.
    #[error(
        "BIRD loaded its configuration without moenet/generation.conf: \
             include \"moenet/main.conf\" in its bird.conf, and is the daemon's -c this directory's?"
    )]
    NotIncluded,
    /// No include reaches unchanged files of the tree.
    #[error(
        "BIRD would not read {}: nothing was loaded; include \"moenet/main.conf\" in bird.conf and \
             \"sessions/*.conf\" in moenet/main.conf",
        .0.join(", ")
    )]
    NotReached(Vec<String>),
    /// This configuration failed after its load, which was undone. It is not loaded again until the wait ends.
    #[error(
        "this configuration was loaded and undone before ({cause}); retrying in {wait:?} at the \
         earliest, a changed one at once"
    )]
    FailedBefore {
        cause: String,
        /// How long it is not retried.
        wait: Duration,
    },
    /// A reconfiguration did not finish.
    #[error(
        "BIRD's reconfiguration is still in progress after {0:?}: does a client not read its answer?"
    )]
    NotSettled(Duration),
    /// Unchanged sessions went down with the commit, which was undone.
    #[error("unchanged sessions went down ({}): undone", .0.join(", "))]
    WentDown(Vec<String>),
    /// The committer has ended.
    #[error("the committer has ended: the agent is stopping")]
    Gone,
}

impl CommitError {
    /// Returns whether the parser or BIRD did not end in time: the machine is slow, or one of them hangs, and no object
    /// is to blame.
    pub fn is_late(&self) -> bool {
        matches!(
            self,
            Self::Check(CheckError::Timeout { .. }) | Self::Bird(BirdError::Timeout { .. })
        )
    }
}

impl From<CommitError> for FragmentError {
    fn from(error: CommitError) -> Self {
        Self::Commit(Arc::new(error))
    }
}

impl From<CommitError> for BaseError {
    fn from(error: CommitError) -> Self {
        Self::Commit(Arc::new(error))
    }
}
