//! Keeps the steps that ran and are not yet in the history.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::model::ObjectKey;
use crate::plan::{Drift, Reset, Step};

/// Largest number of waiting steps of one object. An object that never settles repeats the same few steps.
const MANY: usize = 1000;

/// A step that ran, in the form for logs and history: without its content, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedStep {
    pub action: String,
    pub because: Drift,
    /// The BGP sessions, or the link, that go down for it.
    pub resets: Vec<Reset>,
}

impl From<&Step> for LoggedStep {
    fn from(step: &Step) -> Self {
        Self {
            action: step.action.to_string(),
            because: step.because.clone(),
            resets: step.action.resets(),
        }
    }
}

impl std::fmt::Display for LoggedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.action, self.because)
    }
}

/// Steps by the object that they ran for, until their result is applied and goes into the history. That may be
/// several reconciles later: when BIRD is down, or when the kernel refused the last step.
#[derive(Debug, Default)]
pub struct StepLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<ObjectKey, Vec<LoggedStep>>,
    /// All steps, for a pass that reports them.
    kept: Option<BTreeMap<ObjectKey, Vec<LoggedStep>>>,
}

impl StepLog {
    /// Keeps all steps from now on, for [`StepLog::all`].
    pub fn keep(&self) {
        self.0.lock().kept = Some(BTreeMap::new());
    }

    /// Records a step. `false`: it is already waiting, as is a step that several objects run together.
    pub fn note(&self, key: &ObjectKey, step: impl Into<LoggedStep>) -> bool {
        let step = step.into();
        let mut state = self.0.lock();
        let waiting = state.waiting.entry(key.clone()).or_default();
        if waiting.contains(&step) {
            return false;
        }
        if waiting.len() < MANY {
            waiting.push(step.clone());
        }
        if let Some(kept) = &mut state.kept {
            kept.entry(key.clone()).or_default().push(step);
        }
        true
    }

    /// Takes the waiting steps of an object.
    pub fn take(&self, key: &ObjectKey) -> Vec<LoggedStep> {
        self.0.lock().waiting.remove(key).unwrap_or_default()
    }

    /// Returns all steps since [`StepLog::keep`].
    pub fn all(&self) -> BTreeMap<ObjectKey, Vec<LoggedStep>> {
        self.0.lock().kept.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;

    #[test]
    fn a_step_waits_once_until_it_is_taken() {
        let (taken, key) = (StepLog::default(), ObjectKey::Router);
        let step = Step {
            action: Action::LoadBird,
            because: Drift::new("bird.loaded", 1, 2),
        };
        taken.keep();
        assert!(taken.note(&key, &step) && !taken.note(&key, &step));
        assert_eq!(taken.take(&key).len(), 1);
        assert!(taken.take(&key).is_empty() && taken.note(&key, &step));
        assert_eq!(taken.all()[&key].len(), 2);
    }
}
