use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::{InterfaceName, Uid};
use crate::plan::mark::Ownership;

/// The ownership that every observation and every change goes by. The applied records in it follow the state
/// directory.
#[derive(Debug, Clone, Default)]
pub struct SharedOwnership(Arc<RwLock<Arc<Ownership>>>);

impl SharedOwnership {
    /// Starts with this ownership.
    pub fn new(ownership: Ownership) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ownership))))
    }

    /// The ownership at this moment.
    pub fn get(&self) -> Arc<Ownership> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the applied records.
    pub fn set_applied(&self, applied: BTreeSet<(InterfaceName, Uid)>, firewall: bool) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.applied != applied || held.firewall != firewall {
            *held = Arc::new(Ownership {
                applied,
                firewall,
                ..Ownership::clone(&held)
            });
        }
    }
}
