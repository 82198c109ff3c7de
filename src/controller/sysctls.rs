use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::conveniences::Convenience;
use crate::intervals::SYSCTL_PAUSE;
use crate::model::InterfaceName;
use crate::observed::kernel::{KernelView, Sysctl};
use crate::plan::action::KernelAction;
use crate::plan::{Action, Step};

/// Largest number of sysctls that the condition names.
const NAMED: usize = 3;

type Which = (Option<InterfaceName>, Sysctl);

/// Sysctls that could not be set. A container or a hardened unit has a read-only `/proc/sys`: tunnels and sessions
/// are configured regardless.
#[derive(Debug, Default)]
pub struct Sysctls(Mutex<BTreeMap<Which, Failed>>);

#[derive(Debug, Clone)]
struct Failed {
    /// The step and the kernel's error.
    what: String,
    retry: Instant,
}

/// Returns the sysctl that a step sets.
fn which(step: &Step) -> Option<Which> {
    match &step.action {
        Action::Kernel(KernelAction::SetSysctl { interface, key, .. }) => {
            Some((interface.clone(), *key))
        }
        _ => None,
    }
}

impl Sysctls {
    /// Returns whether a step sets a sysctl that recently could not be set.
    pub(super) fn leaves_alone(&self, step: &Step, now: Instant) -> bool {
        which(step).is_some_and(|which| self.0.lock().get(&which).is_some_and(|f| now < f.retry))
    }

    /// Records that a step failed, when it sets a sysctl; `None` for any other step. Returns whether the failure is
    /// new.
    pub(super) fn failed(&self, step: &Step, error: &str, now: Instant) -> Option<bool> {
        let failed = Failed {
            what: format!("{}: {error}", step.action),
            retry: now + SYSCTL_PAUSE,
        };
        let what = failed.what.clone();
        let before = self.0.lock().insert(which(step)?, failed);
        Some(before.is_none_or(|before| before.what != what))
    }

    /// Records that a step ran.
    pub(super) fn done(&self, step: &Step) {
        if let Some(which) = which(step) {
            self.0.lock().remove(&which);
        }
    }

    /// Returns the state of the sysctls of existing links.
    pub(super) fn state(&self, kernel: &KernelView) -> Convenience {
        let mut all = self.0.lock();
        all.retain(|(link, _), _| link.as_ref().is_none_or(|l| kernel.links.contains_key(l)));
        if all.is_empty() {
            return Convenience::works("Set");
        }
        let named: Vec<_> = all.values().take(NAMED).map(|f| f.what.as_str()).collect();
        let more = all.len() - named.len();
        let rest = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        Convenience::fails("NotSet", named.join("; ") + &rest)
    }
}
