//! Converts Control Plane JSON to the agent's types and back (docs/contract/control-plane.md). Pure.
//!
//! A [`Dialect`] contains paths, envelopes, field names and status numbers; nothing outside its module names any of
//! them. Scalars are read leniently where the meaning is clear, everything else is strict: an incomplete list is an
//! error or is marked as incomplete, and a bad item is in [`Listing::rejected`], never missing.

mod body;
mod call;
mod dialect;
mod error;
mod listing;
mod read;
pub mod reference;

pub use body::error_body;
pub use call::Call;
pub use dialect::Dialect;
pub(crate) use error::FieldError;
pub use error::WireError;
pub use listing::{Listing, PeerItem, PolicyItem, SessionItem};
pub(crate) use listing::{NodeItem, Rejected, RejectedField};
pub use reference::{DrainWish, Heartbeat, Modify, PeerState, Report, SessionReport, WireStatus};
