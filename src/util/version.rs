//! The version of this build.

/// The agent's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of the build.
pub(crate) const COMMIT: &str = env!("MOENET_COMMIT");
