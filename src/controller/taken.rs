//! The steps that were taken and are not yet in the history.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::planning::Key;
use crate::plan::{Drift, Step};

/// How many steps of one object wait at most. An object that never settles takes the same few for ever.
const MANY: usize = 1000;

/// A step that was taken, as it is told: without what it carried, which may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenStep {
    /// The change.
    pub action: String,
    /// Its reason.
    pub because: Drift,
}

impl From<&Step> for TakenStep {
    fn from(step: &Step) -> Self {
        Self {
            action: step.action.to_string(),
            because: step.because.clone(),
        }
    }
}

impl std::fmt::Display for TakenStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.action, self.because)
    }
}

/// Steps by the object that they were taken for, until what they led to is in force and goes into the
/// history. That may be rounds later: when BIRD is down, when the kernel refused the last one.
#[derive(Debug, Default)]
pub struct Taken(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<Key, Vec<TakenStep>>,
    /// All of them, for a pass that reports what it did.
    kept: Option<BTreeMap<Key, Vec<TakenStep>>>,
}

impl Taken {
    /// Keeps all steps from now on, for [`Taken::all`].
    pub fn keep(&self) {
        self.lock().kept = Some(BTreeMap::new());
    }

    /// Notes a step. `false`: it waits already, as one that several objects take together does.
    pub fn note(&self, key: &Key, step: impl Into<TakenStep>) -> bool {
        let step = step.into();
        let mut state = self.lock();
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

    /// The steps that wait for an object; they wait no longer.
    pub fn take(&self, key: &Key) -> Vec<TakenStep> {
        self.lock().waiting.remove(key).unwrap_or_default()
    }

    /// All steps since [`Taken::keep`].
    pub fn all(&self) -> BTreeMap<Key, Vec<TakenStep>> {
        self.lock().kept.clone().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;

    #[test]
    fn a_step_waits_once_until_it_is_taken() {
        let (taken, key) = (Taken::default(), Key::Router);
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
