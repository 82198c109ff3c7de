//! What a running router has, as documents of this agent and a report of everything else. Pure.
//!
//! | file | holds |
//! |---|---|
//! | [`ini`] | sections and entries of a text in the manner of `wg-quick` and systemd, with their lines |
//! | [`tunnel_file`] | the settings of a WireGuard interface in the files of `wg-quick` and systemd-networkd |
//! | [`map`] | links, sessions and files → documents with `adopt: true`, and findings |
//! | [`report`] | a finding, with its place |
//! | [`harm`] | the steps of a plan that interrupt a tunnel or reset a session |
//!
//! The planner alone says what a pass would do with the documents: this module compares nothing.

pub mod harm;
pub mod ini;
pub mod map;
pub mod report;
pub mod tunnel_file;

pub use harm::{Before, Harm};
pub use map::{Adopted, Adoption, Running};
pub use report::{Finding, Outcome, Place};
pub use tunnel_file::TunnelFile;
