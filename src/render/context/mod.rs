//! The variables of the templates. These names are an interface: operators write templates against them, and
//! `templates/README.md` documents them.

mod base;
mod session;
mod shared;

pub use base::rpki_protocol;
pub(super) use base::{Base, Bounds};
pub(super) use session::Peering;
pub use shared::Shared;

/// Returns a limit. Zero means "not set" on the wire, so it has the same meaning here: a limit of zero would
/// remove a session's routes.
fn some(limit: Option<u32>) -> Option<u32> {
    limit.filter(|number| *number != 0)
}
