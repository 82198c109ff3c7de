//! The level-triggered loop.
//!
//! ```text
//! state directory ─▶ world ─▶ queue ─▶ reconcile(key): observe ─▶ plan ─▶ apply ─▶ observe again ─▶ status
//!        ▲                      ▲
//!       sync              netlink, timers, API: a hint which key may have changed, never what
//! ```
//!
//! Runs of one key never overlap, keys run in parallel, and a failing key backs off alone.

pub mod guard;
pub mod observe;
pub mod planning;
pub mod queue;
pub mod world;

pub use observe::{BirdState, Observer};
pub use planning::{Key, KeyPlan};
pub use world::World;
