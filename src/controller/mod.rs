//! The level-triggered loop.
//!
//! ```text
//! state directory ─▶ world ─▶ queue ─▶ reconcile(key): observe ─▶ plan ─▶ apply ─▶ observe again ─▶ status
//!        ▲                      ▲
//!       sync              netlink, timers, API: a hint which key may have changed, never what
//! ```
//!
//! Runs of one key never overlap, keys run in parallel, and a failing key backs off alone.

mod bird_work;
mod context;
mod conveniences;
mod enabled;
mod firewall;
pub mod guard;
mod guard_memory;
mod observe;
pub mod planning;
mod pulse;
mod queue;
mod reconcile;
mod reports;
mod runner;
mod runs;
pub mod sync;
mod sysctls;
mod taken;
mod turns;
pub mod world;

pub use bird_work::BirdWork;
pub use context::{Announced, Board, Context, Entry, Restarts, Unrecorded};
pub use conveniences::{Convenience, Conveniences};
pub use enabled::Enabled;
pub use firewall::{FirewallKeeper, FirewallState};
pub use guard_memory::GuardMemory;
pub use observe::{Observer, look_at_bird};
pub use planning::KeyPlan;
pub use pulse::Pulse;
pub use queue::{Backoff, Outcome, Queue};
pub use reconcile::target;
pub use reports::Reports;
pub use runner::{Hint, Runner, keys};
pub use sysctls::Sysctls;
pub use taken::{Taken, TakenStep};
pub use turns::Turns;
pub use world::World;
