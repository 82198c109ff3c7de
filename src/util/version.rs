//! The version of this build.

/// The agent's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The platform that it was built for.
pub(crate) const TARGET: &str = env!("MOENET_TARGET");
/// The commit of the build.
pub(crate) const COMMIT: &str = env!("MOENET_COMMIT");
