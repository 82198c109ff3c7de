//! The level-triggered loop.
//!
//! ```text
//! state directory ─▶ desired state ─▶ queue of dirty keys ─▶ pass: observe once ─▶ each key: plan ─▶ kernel ─▶ next pass
//!        ▲                      ▲                                              │    └─▶ commit to BIRD ─▶ next pass
//!       sync              netlink, timers, API: which key may have changed     └─▶ nothing left: records, status
//! ```
//!
//! A pass observes the kernel and BIRD once for all dirty keys, and each key plans from that observation. Steps run
//! beside the passes: those of the kernel per key, those of BIRD in its committer. Their end makes the key dirty, so
//! that the next pass reads back what they did. At most one pass observes at a time, runs of one key never overlap,
//! and a failing key backs off alone.

mod announcer;
mod applied_changes;
mod batch;
pub(crate) mod builder;
mod context;
mod conveniences;
mod edits;
mod enabled;
mod error;
mod events;
mod firewall;
mod first_lists;
mod guard_memory;
mod hint;
mod lost;
mod needs;
mod observe;
pub(crate) mod overrides;
mod pass;
mod permits;
pub mod planning;
pub mod provenance;
mod pulse;
mod queue;
mod ready;
mod reconcile;
mod records;
mod refused;
mod reports;
mod runner;
mod runs;
mod step_log;
mod sweep;
mod sysctls;
mod together;
mod unread;

pub(crate) use announcer::settling;
pub(crate) use announcer::{announce, announce_pass};
pub(crate) use applied_changes::{record_changes, record_pass};
pub(crate) use builder::{Builder, DesiredMaker};
pub use context::{Announced, AppliedChange, Context, Restarts, StatusCache};
pub(crate) use conveniences::{Convenience, Conveniences};
pub(crate) use edits::Edits;
pub use enabled::Enabled;
pub(crate) use events::{watch_firewall, watch_kernel};
pub use firewall::FirewallKeeper;
pub(crate) use firewall::FirewallState;
pub use first_lists::FirstLists;
pub use guard_memory::GuardMemory;
pub use hint::Hint;
pub(crate) use lost::Missing;
pub(crate) use lost::{known_agents, put_back};
pub use observe::Observer;
pub(crate) use overrides::{OverriddenField, OverrideView};
pub use permits::Permits;
pub(crate) use planning::{KeyObservation, KeyPlan};
pub use pulse::Pulse;
pub(crate) use reconcile::{Sessions, observed, peer, sessions, target};
pub use records::{Records, Statuses};
pub(crate) use refused::RefusedItems;
pub use reports::Reports;
pub use runner::Runner;
pub(crate) use step_log::LoggedStep;
pub use step_log::StepLog;
pub(crate) use sysctls::Sysctls;
