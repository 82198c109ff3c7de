//! When a change takes effect.

use jiff::Timestamp;

use super::{Draft, Outcome};
use crate::cli::api::Agent;
use crate::config::Config;
use crate::desired::Desired;
use crate::store::Snapshot;

/// Returns when something that was written takes effect, except for objects that wait.
pub(crate) async fn takes_effect(config: &Config, waiting: &[String]) -> String {
    let when = match Agent::find(config).await.is_running() {
        true => "the agent runs, and begins to apply this at once",
        false => "no agent answers; this takes effect when the agent starts",
    };
    let except = match waiting {
        [] => String::new(),
        waiting => format!(", except {}", waiting.join(", and ")),
    };
    format!("{when}{except}")
}

impl Draft {
    /// Returns the changed objects that are paused or held, each with the command that ends it.
    pub(super) fn waiting(&self, desired: &Desired) -> Vec<String> {
        let held = desired.held();
        let changed = self
            .changes
            .iter()
            .filter(|it| it.result != Outcome::Unchanged);
        let waiting = changed.filter_map(|change| {
            let (kind, name) = (change.place.kind, &change.place.name);
            let path = kind.path(name);
            let is_paused = |snapshot: &Snapshot| {
                let slot = snapshot.overrides.get(&(kind, name.clone()));
                let spec = slot.and_then(|slot| Some(&slot.as_ref().ok()?.document.spec));
                spec.is_some_and(|spec| spec.paused && spec.in_effect(Timestamp::now()))
            };
            if is_paused(&self.listed) && is_paused(&self.wanted.snapshot) {
                return Some(format!(
                    "{path}, which is paused (`moenet-agent resume {path}`)"
                ));
            }
            let held = held.iter().find(|held| held.key == kind.key(name))?;
            let reason = &held.reason;
            Some(format!(
                "{path}, which is held (`moenet-agent approve {path}`): {reason}"
            ))
        });
        waiting.collect()
    }
}
