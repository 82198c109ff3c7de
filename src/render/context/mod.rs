//! What a template sees. These names are an interface: operators write templates against them, and
//! `templates/README.md` tells of them.

mod base;
mod session;

pub(super) use base::Base;
pub use base::rpki_protocol;
pub(super) use session::Peering;

/// Zero stands for "not said" on the wire, so it is read as that here too: a limit of zero would
/// take a session's routes away.
fn some(limit: Option<u32>) -> Option<u32> {
    limit.filter(|number| *number != 0)
}
