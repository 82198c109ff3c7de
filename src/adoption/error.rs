use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;

use crate::adopt::Loss;
use crate::agent::BuildError;
use crate::control_plane::CallError;
use crate::controller::Missing;
use crate::firewall::FirewallError;
use crate::model::InterfaceName;
use crate::ports::{BirdError, KernelError};
use crate::store::StoreError;
use crate::util::exec::ExecError;

/// Why an adoption did not begin, was not kept, or was not undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptionError {
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "the record of an adoption {} cannot be read, so it is not undone; repair the disk, or undo it by hand with the \
         copies beside it and remove it",
        path.display()
    )]
    Record {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(
        "{} has more than {most} files or bytes, so no copy of it is kept; move it away first",
        path.display()
    )]
    TooMuch { path: PathBuf, most: u64 },
    #[error(
        "an adoption is recorded already in {}; undo it first: `moenet-agent adopt --undo`",
        path.display()
    )]
    Recorded { path: PathBuf },
    #[error(
        "{} has the record of another machine's adoption, as this state directory was copied, or the machine's id has \
         changed; nothing was undone. Remove that directory, if this router is to use the copy",
        path.display()
    )]
    OtherMachine { path: PathBuf },
    #[error(
        "{} has the record of an interrupted adoption without the machine that it belongs to; if it is this machine's, \
         run `moenet-agent adopt --undo`, otherwise remove that directory",
        path.display()
    )]
    UnknownMachine { path: PathBuf },
    #[error(
        "nothing was undone: the adoption was kept meanwhile; run `moenet-agent adopt --undo` again"
    )]
    KeptMeanwhile,
    #[error("no adoption is recorded in {}, so there is nothing to undo", path.display())]
    NoRecord { path: PathBuf },
    #[error(
        "interface {interface} has the mark of an earlier run of this state directory; start the agent instead, or remove \
         that link first"
    )]
    Marked { interface: InterfaceName },
    #[error("interface {interface} disappeared since the plan; run `moenet-agent adopt` again")]
    Gone { interface: InterfaceName },
    #[error(
        "the documents differ from those of the plan, as the Control Plane has changed them since; run `moenet-agent adopt` \
         again"
    )]
    Changed,
    #[error("interface {interface} was not taken over: {why}")]
    NotTaken {
        interface: InterfaceName,
        why: String,
    },
    #[error("a step of the pass failed: {object}: {why}")]
    Step { object: String, why: String },
    #[error(transparent)]
    Loss(#[from] Loss),
    #[error("the sessions cannot be watched")]
    Silent(#[source] BirdError),
    #[error("interrupted by a signal")]
    Interrupted,
    #[error("{command} failed")]
    Unit {
        command: String,
        #[source]
        source: UnitError,
    },
    #[error(
        "{interface} could not be restored completely and keeps the agent's mark; run `moenet-agent adopt --undo` again"
    )]
    Restore {
        interface: String,
        source: KernelError,
    },
    #[error("fetch the documents of the Control Plane")]
    Fetch(#[source] CallError),
    #[error("install signal handlers")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Missing(#[from] Box<Missing>),
    #[error(transparent)]
    Build(#[from] Box<BuildError>),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    SharedKernel(#[from] Arc<KernelError>),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error("remove the agent's table in nftables: {0}")]
    Table(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why `systemctl` did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitError {
    #[error(transparent)]
    Run(#[from] ExecError),
    #[error("{status}: {message}")]
    Failed { status: ExitStatus, message: String },
}

impl AdoptionError {
    /// Returns a function that names the file of an error.
    pub(super) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            operation,
            path,
            source,
        }
    }
}
