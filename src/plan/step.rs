use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::action::KernelAction;
use super::bird::{Effect, Reset};
use super::drift::Drift;
use super::firewall::FirewallAction;
use crate::model::InterfaceName;
use crate::observed::kernel::Sysctl;

/// One change, of the kernel, of the firewall or of BIRD's configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    Kernel(KernelAction),
    /// A change of the agent's table in nftables.
    Firewall(FirewallAction),
    /// Writes a session's file for BIRD.
    WriteFragment {
        /// The name of the session and of its file.
        name: String,
        /// The whole text. It may hold a password, so it is not printed.
        text: Arc<str>,
        /// The effect on the session when it is loaded.
        effect: Effect,
    },
    /// Removes a session's file.
    RemoveFragment {
        /// The name of the session and of its file.
        name: String,
    },
    /// Writes a file that all sessions share.
    WriteBase {
        /// The file, below BIRD's directory.
        path: String,
        /// The whole text.
        text: Arc<str>,
        /// The effect on sessions when it is loaded.
        effect: Effect,
    },
    /// Removes a file that all sessions shared.
    RemoveBase {
        /// The file, below BIRD's directory.
        path: String,
    },
    /// Lets BIRD load the files on disk.
    LoadBird,
    /// Enables a protocol that a command disabled.
    EnableProtocol {
        name: String,
    },
}

impl Action {
    /// Returns the BGP sessions that go down for a moment, or the link whose sessions do.
    pub(crate) fn resets(&self) -> Vec<Reset> {
        match self {
            Self::WriteFragment { effect, .. } | Self::WriteBase { effect, .. } => {
                effect.resets().cloned().collect()
            }
            Self::Kernel(
                KernelAction::DeleteLink { interface, .. }
                | KernelAction::RenameLink { interface, .. },
            ) => vec![Reset::InLink(interface.to_string())],
            _ => Vec::new(),
        }
    }

    /// Returns the change of the kernel, if it is one.
    pub fn kernel(&self) -> Option<&KernelAction> {
        match self {
            Self::Kernel(action) => Some(action),
            _ => None,
        }
    }
}

/// Omits the texts, which may hold passwords.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(action) => fmt::Debug::fmt(action, f),
            other => fmt::Display::fmt(other, f),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(action) => fmt::Display::fmt(action, f),
            Self::Firewall(action) => fmt::Display::fmt(action, f),
            Self::WriteFragment { name, effect, .. } => {
                write!(f, "write BIRD session {name}{effect}")
            }
            Self::RemoveFragment { name } => write!(f, "remove BIRD session {name}"),
            Self::WriteBase { path, effect, .. } => write!(f, "write BIRD file {path}{effect}"),
            Self::RemoveBase { path } => write!(f, "remove BIRD file {path}"),
            Self::LoadBird => f.write_str("reload BIRD's configuration"),
            Self::EnableProtocol { name } => write!(f, "enable BIRD protocol {name}"),
        }
    }
}

/// One change and its reason. The log line, the audit entry and the printed plan come from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub action: Action,
    pub because: Drift,
}

impl Step {
    /// Creates a step from a change of the kernel and its reason.
    pub fn kernel(action: KernelAction, because: Drift) -> Self {
        Self {
            action: Action::Kernel(action),
            because,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.action, self.because)
    }
}

/// Reason why an object with a valid document cannot be applied: a foreign object is in the way. Nothing is
/// changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refusal {
    /// The field that would have to change.
    pub field: &'static str,
    /// The obstacle, and what to do.
    pub reason: String,
}

/// The steps that the controller would run for one object now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// The condition that must be met first: another object moves, or a link can be read. The rest of the plan follows
    /// then.
    pub waits: Option<String>,
}

/// The steps and the wait, in one line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.iter().map(ToString::to_string);
        let all: Vec<_> = steps.chain(self.waits.clone()).collect();
        f.write_str(&all.join("; "))
    }
}

impl Plan {
    /// Creates an empty plan that waits for another object.
    pub fn waiting(waits: String) -> Self {
        Self {
            steps: Vec::new(),
            waits: Some(waits),
        }
    }

    /// Returns the first step with its reason, the number of the others, and what the plan waits for.
    pub fn summary(&self) -> String {
        let first = self.steps.first().map(ToString::to_string);
        let more = self.steps.len().saturating_sub(1);
        let more = (more > 0).then(|| format!("and {more} more"));
        let all: Vec<_> = first
            .into_iter()
            .chain(more)
            .chain(self.waits.clone())
            .collect();
        all.join("; ")
    }

    /// Returns whether nothing is left to do, now or later.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty() && self.waits.is_none()
    }

    /// Returns whether there is nothing to do now.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the sysctls of all links together that the plan changes.
    pub fn host_sysctls(&self) -> impl Iterator<Item = Sysctl> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Kernel(KernelAction::SetSysctl {
                interface: None,
                key,
                ..
            }) => Some(*key),
            _ => None,
        })
    }

    /// Returns the link that the plan creates. `applied/` names it from before the first step until after the
    /// last one, so that a link which a crash leaves without its mark is recognised
    /// ([`ObjectObservation::creating`](super::ObjectObservation)). A link of the agent that is replaced by one of another
    /// kind is created again too, so "was absent" is not enough to tell.
    pub fn creates(&self) -> Option<&InterfaceName> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Kernel(KernelAction::CreateLink { interface, .. }) => Some(interface),
            _ => None,
        })
    }

    /// Returns the addresses that the plan adds to `lo`. A record names them before the first step runs, since an
    /// address
    /// carries no mark.
    pub fn adds_to_lo(&self) -> impl Iterator<Item = IpAddr> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Kernel(KernelAction::AddAddress { interface, address })
                if interface.as_str() == "lo" =>
            {
                Some(address.local.addr())
            }
            _ => None,
        })
    }
}

impl Extend<Step> for Plan {
    fn extend<I: IntoIterator<Item = Step>>(&mut self, steps: I) {
        self.steps.extend(steps);
    }
}
