//! What is wanted, whole: defaults < Control Plane < override, with the origin of each field.
//!
//! Two steps. [`merge`] puts the layers of one document on top of each other and keeps where each
//! field came from; [`Session::resolve`] turns the merged specification into what the planner and the
//! templates need, with nothing optional left that has a default. [`conflicts`] then looks at all
//! sessions together.

mod conflicts;
mod layers;
mod mesh;
mod router;
mod session;

pub use conflicts::{Claim, Claimant, Clash, conflicts};
pub(crate) use layers::merge_problems;
pub use layers::{Merged, Origin, difference, leaves, merge};
pub use mesh::{InternalNeighbour, MeshDefaults, MeshTunnel};
pub use router::Router;
pub use session::{Defaults, Neighbour, Secrets, Session, Tunnel};

/// Why a specification cannot be put into force, although each of its values is valid: the field and
/// the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}", crate::model::without_keys(reason))]
pub struct FieldError {
    /// The field, as `spec.tunnel.publicKey`.
    pub field: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl FieldError {
    /// An error about a field.
    pub fn new(field: &str, reason: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}
