use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::document::ConditionType;

/// How the node's conveniences are: what the router needs for its operator and not for its routing. A failing one is
/// a condition of the node, and holds nothing up.
#[derive(Debug, Default)]
pub struct Conveniences(Mutex<BTreeMap<ConditionType, Convenience>>);

/// How one convenience is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convenience {
    /// Whether it works.
    pub works: bool,
    /// The reason of its condition: one word for programs.
    pub reason: &'static str,
    /// Why it does not work, and what to do.
    pub message: String,
}

impl Convenience {
    /// One that works.
    pub fn works(reason: &'static str) -> Self {
        Self {
            works: true,
            reason,
            message: String::new(),
        }
    }

    /// One that fails.
    pub fn fails(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            works: false,
            reason,
            message: message.into(),
        }
    }
}

impl Conveniences {
    /// Remembers how a convenience is. Returns whether that is news.
    pub fn set(&self, about: ConditionType, is: Convenience) -> bool {
        self.lock().insert(about, is.clone()) != Some(is)
    }

    /// Why a convenience fails, while it does.
    pub fn problem(&self, about: ConditionType) -> Option<String> {
        let all = self.lock();
        let found = all.get(&about).filter(|found| !found.works);
        found.map(|found| found.message.clone())
    }

    /// All that are known.
    pub fn all(&self) -> BTreeMap<ConditionType, Convenience> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConditionType, Convenience>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
