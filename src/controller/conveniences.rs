use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::document::ConditionType;

/// State of the node's conveniences: features that serve the router's operator and not its routing. A failing
/// convenience is a condition of the node and delays nothing.
#[derive(Debug, Default)]
pub struct Conveniences(Mutex<BTreeMap<ConditionType, Convenience>>);

/// State of one convenience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convenience {
    pub works: bool,
    /// The reason of its condition: one machine-readable word.
    pub reason: &'static str,
    /// The reason why it does not work, and how to repair it.
    pub message: String,
}

impl Convenience {
    pub fn works(reason: &'static str) -> Self {
        Self {
            works: true,
            reason,
            message: String::new(),
        }
    }

    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            works: false,
            reason,
            message: message.into(),
        }
    }
}

impl Conveniences {
    /// Stores the state of a convenience. Returns whether the state changed.
    pub fn set(&self, about: ConditionType, is: Convenience) -> bool {
        self.0.lock().insert(about, is.clone()) != Some(is)
    }

    /// Returns the reason why a convenience fails, while it fails.
    pub fn problem(&self, about: ConditionType) -> Option<String> {
        let all = self.0.lock();
        let found = all.get(&about).filter(|found| !found.works);
        found.map(|found| found.message.clone())
    }

    /// Returns all known conveniences.
    pub fn all(&self) -> BTreeMap<ConditionType, Convenience> {
        self.0.lock().clone()
    }
}
