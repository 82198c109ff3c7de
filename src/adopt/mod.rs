//! What a running router has, as documents of this agent and a report of everything else. Pure.
//!
//! | file | holds |
//! |---|---|
//! | [`ini`] | sections and entries of a text in the manner of `wg-quick` and systemd, with their lines |
//! | [`tunnel_file`] | the settings of a WireGuard interface in the files of `wg-quick` and systemd-networkd |
//! | [`map`] | links, sessions and files → documents with `adopt: true`, and findings |
//! | [`report`] | a finding, with its place |
//! | [`fleet`] | adopted interfaces as sessions of a Control Plane |
//! | [`changes()`] | the settings of links that a plan changes |
//! | [`harm`] | the steps of a plan that interrupt a tunnel or reset a session |
//! | [`record`] | what the router was before, for an undo |
//! | [`mod@reverse`] | the record and the kernel's state → the changes that undo an adoption |
//! | `synced` | documents of the Control Plane for the same interfaces → overrides |
//! | [`watch`] | what sessions and tunnels lose meanwhile |
//!
//! The planner alone says what a pass would do with the documents: this module compares nothing.

mod changes;
pub mod fleet;
pub mod harm;
pub mod ini;
pub mod map;
pub mod record;
pub mod report;
pub mod reverse;
mod synced;
pub mod tunnel_file;
pub mod watch;

pub use changes::changes;
pub use harm::{Before, Harm, irreversible, of_undo};
pub use map::{Adopted, Adoption, OwnAs, OwnKey, Running};
pub use record::{LinkSettings, Phase, Record, Written};
pub use report::{Finding, Outcome, Place};
pub use reverse::{Now, Restoration, Scope, forgetting, gone, reverse, reverse_host};
pub use synced::{Changed, without};
pub use tunnel_file::TunnelFile;
pub use watch::{Baseline, Doubt, Loss, Seen};
