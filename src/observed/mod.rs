//! The observed state, in the agent's own types: what kernel and BIRD report. Pure; `kernel` and `bird` read it.
//!
//! | file | holds |
//! |---|---|
//! | [`bird`] | protocols, version, configuration files and replies of BIRD |
//! | [`kernel`] | links with their addresses, WireGuard and sysctls |
//! | [`mark`] | marks, and the owner of an object by its mark |

pub mod bird;
pub mod kernel;
pub mod mark;
mod ownership;

pub use mark::{Mark, Ownership, Succession};
pub use ownership::SharedOwnership;
