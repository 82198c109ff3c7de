//! The traits between the pure core and the world, in our own types. Each has one implementation
//! that does IO, in the room of its name, and one in memory, in the tests.

mod bird_error;
mod check_error;
mod commit;
mod commit_error;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use crate::model::InterfaceName;
use crate::observed::bird::{BirdName, BirdState, Texts};
use crate::observed::kernel::{KernelView, Link};
use crate::plan::action::KernelAction;

pub use bird_error::BirdError;
pub(crate) use check_error::CheckError;
pub use commit::{Committed, Fragment};
pub use commit_error::{BaseError, CommitError, FragmentError};

/// The kernel of this router.
#[async_trait]
pub trait Kernel: Send + Sync {
    /// Reads all links, their addresses and their WireGuard configuration in one dump.
    async fn observe(&self) -> Result<KernelView, KernelError>;

    /// Reads again what no event announces, the configuration of WireGuard; everything else is as in this view.
    async fn observe_wireguard(&self, view: KernelView) -> KernelView;

    /// Reads these links alone, each as [`Self::observe`] does; `None` for one that does not exist.
    async fn observe_links(
        &self,
        names: &BTreeSet<InterfaceName>,
    ) -> Result<BTreeMap<InterfaceName, Option<Link>>, KernelError>;

    /// Makes the changes of one object in their order, up to the first failure; that of a sysctl ends nothing, because
    /// no other change needs it. Returns the result of each change that was tried. Refuses to touch a link that does
    /// not carry the mark it should.
    async fn apply(&self, actions: &[&KernelAction]) -> Vec<Result<(), KernelError>>;

    /// Returns whether a userspace WireGuard of this link runs whose link does not exist, or carries no mark yet.
    async fn is_starting(&self, interface: &InterfaceName) -> bool;
}

/// BIRD on this router. Its committer documents the promise of each change.
#[async_trait]
pub trait Bird: Send + Sync {
    /// Reads everything that a plan or a status needs.
    async fn look(&self) -> BirdState;

    /// Sets the text of one session, or removes it.
    async fn set_fragment(
        &self,
        name: &str,
        fragment: Option<Fragment>,
    ) -> Result<Committed, FragmentError>;

    /// Sets all files that sessions share.
    async fn set_base(&self, files: Texts) -> Result<Committed, BaseError>;

    /// Says that all changes that belong together have been requested: they need not wait for others.
    fn all_requested(&self);

    /// Makes sure that BIRD has loaded the files on disk.
    async fn converge(&self) -> Result<Committed, Arc<CommitError>>;

    async fn restart(&self, name: BirdName) -> Result<(), BirdError>;

    /// Enables one protocol. Returns whether it was disabled.
    async fn enable(&self, name: BirdName) -> Result<bool, BirdError>;
}

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A netlink request failed.
    #[error("{operation}: {reason}")]
    Request {
        /// What was attempted, with its object: "create WireGuard link wg_1".
        operation: String,
        /// The kernel's words, and what to do.
        reason: String,
    },
    /// The link belongs to another program.
    #[error("interface {interface} {found}; refusing to touch it")]
    NotOurs {
        interface: InterfaceName,
        /// Whose it is, as in "belongs to another program".
        found: String,
    },
    /// The kernel (or the machine) lacks what is needed.
    #[error("{operation}: {missing}")]
    Unsupported {
        /// What was attempted.
        operation: String,
        /// What is missing and how to get it.
        missing: String,
    },
}
