use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;

use super::mark::{Ownership, Succession};
use crate::model::{InterfaceName, ObjectName, Uid};

/// The ownership used by every observation and every change. Its applied records follow the state directory.
#[derive(Debug, Clone, Default)]
pub struct SharedOwnership(Arc<RwLock<Arc<Ownership>>>);

impl SharedOwnership {
    pub fn new(ownership: Ownership) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ownership))))
    }

    /// Returns the current ownership.
    pub fn get(&self) -> Arc<Ownership> {
        Arc::clone(&self.0.read())
    }

    /// Replaces the lost directories that this one succeeds.
    pub fn set_succession(&self, succeeds: Succession) {
        let mut held = self.0.write();
        if held.succeeds != succeeds {
            *held = Arc::new(Ownership {
                succeeds,
                ..Ownership::clone(&held)
            });
        }
    }

    /// Replaces the applied records. `records`: whether one proves that this directory has configured BIRD.
    pub fn set_applied(
        &self,
        applied: BTreeSet<(InterfaceName, Uid)>,
        firewall: bool,
        records: bool,
    ) {
        let mut held = self.0.write();
        let next = Ownership {
            applied,
            firewall: firewall || held.firewall,
            records,
            ..Ownership::clone(&held)
        };
        if **held != next {
            *held = Arc::new(next);
        }
    }

    /// Notes whether this run has the agent's table in nftables.
    pub fn set_firewall(&self, firewall: bool) {
        let mut held = self.0.write();
        if held.firewall != firewall {
            *held = Arc::new(Ownership {
                firewall,
                ..Ownership::clone(&held)
            });
        }
    }

    /// Replaces the names of the paused sessions.
    pub fn set_paused(&self, paused: BTreeSet<ObjectName>) {
        let mut held = self.0.write();
        if held.paused != paused {
            *held = Arc::new(Ownership {
                paused,
                ..Ownership::clone(&held)
            });
        }
    }
}
