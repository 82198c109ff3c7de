//! Decides which changes wait for an operator (docs/contract/safety.md#rule-1). Pure: the inputs are the applied
//! and the desired state, the ledger of the last window and the approvals; the outputs are the held changes, with
//! reasons, and the next ledger.
//!
//! | file | content |
//! |---|---|
//! | `ledger` | held changes, and removals and additions within the window; the content of `held.yaml` |
//! | `removals` | objects that no document wants any more |
//! | `node` | a node document that would reset every session |

mod ledger;
mod node;
mod removals;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{self, MaxRemovals};
use crate::store::Snapshot;

pub use ledger::{HeldChange, Ledger};
pub use node::{IdentityChange, NODE, identity_change};
pub use removals::{Fate, Member, Unrecorded, unrecorded};

/// Inputs of the guard's decision, besides the objects themselves.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub max_removals: MaxRemovals,
    pub window: Duration,
    /// The lines of the file `approved`.
    pub approved: &'a BTreeSet<String>,
    /// Whether an unlisted document is certainly not wanted.
    pub complete: bool,
    /// Whether all changes are listed. While `false`, a document may be missing because a write is in progress.
    pub settled: bool,
    /// Whether the ledger of the last change could be written.
    pub writable: bool,
    /// The current time, by a clock that never jumps; see [`Ledger::resumed`].
    pub now: Timestamp,
}

impl<'a> Rules<'a> {
    /// Returns the rules of a configuration.
    pub fn new(
        config: &config::Guard,
        approved: &'a BTreeSet<String>,
        snapshot: &Snapshot,
        input: &Input<'_>,
    ) -> Self {
        Self {
            max_removals: config.max_removals,
            window: config.window.get(),
            approved,
            complete: snapshot.complete,
            settled: snapshot.settled,
            writable: input.writable,
            now: input.now,
        }
    }
}

/// The guard's memory, as an input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The ledger so far.
    pub ledger: &'a Ledger,
    /// The current time, by the guard's clock.
    pub now: Timestamp,
    /// Whether the ledger can be written.
    pub writable: bool,
}

/// Returns a duration in its largest whole unit, as the configuration writes it.
fn shown(window: Duration) -> String {
    match window.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
