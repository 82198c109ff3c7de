//! Computes the effective specification: defaults < Control Plane < override, with the origin of each field.
//!
//! There are two steps. [`merge`] merges the layers of one document and keeps the origin of each field;
//! [`Session::resolve`] turns the merged specification into the input of the planner and the templates, in which
//! every field with a default is filled in. [`conflicts()`] then compares all sessions with each other.

mod conflicts;
mod layers;
mod mesh;
mod router;
mod session;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use conflicts::{Claim, Claimant, Clash, conflicts};
pub(crate) use layers::merge_problems;
pub(crate) use layers::{Merged, Origin};
pub use layers::{difference, leaves, merge};
pub use mesh::InternalNeighbour;
pub(crate) use mesh::{MeshDefaults, MeshTunnel, interface as mesh_interface};
pub use router::Router;
pub use session::{Defaults, Secrets, Session};
pub(crate) use session::{Neighbour, Tunnel};
pub(crate) use session::{default_interface, expressed_addresses};

/// The reason why a specification cannot be applied, although each of its values is valid: the field and the
/// reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}", crate::model::without_keys(reason))]
pub struct FieldError {
    /// The field, such as `spec.tunnel.publicKey`.
    pub field: String,
    /// The error, and how to correct it.
    pub reason: String,
}

impl FieldError {
    /// Returns an error about a field.
    pub fn new(field: &str, reason: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}
