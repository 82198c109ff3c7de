use std::fmt;
use std::net::IpAddr;

use super::action::KernelAction;
use super::bird::Effect;
use super::firewall::FirewallAction;
use super::kernel_view::Sysctl;
use crate::model::InterfaceName;

/// One change, of the kernel, of the firewall or of BIRD's configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// A change of the kernel.
    Kernel(KernelAction),
    /// A change of our table in nftables.
    Firewall(FirewallAction),
    /// Write a session's file for BIRD.
    WriteFragment {
        /// The session's name, which is the file's.
        name: String,
        /// The whole text. It may hold a password, so it is not printed.
        text: String,
        /// What loading it does to the session.
        effect: Effect,
    },
    /// Remove a session's file.
    RemoveFragment {
        /// The session's name, which is the file's.
        name: String,
    },
    /// Write a file that all sessions share.
    WriteBase {
        /// The file, below BIRD's directory.
        path: String,
        /// The whole text.
        text: String,
        /// What loading it does to sessions.
        effect: Effect,
    },
    /// Remove a file that all sessions shared.
    RemoveBase {
        /// The file, below BIRD's directory.
        path: String,
    },
    /// Have BIRD load what is on disk.
    LoadBird,
    /// Enable a protocol that a command disabled.
    EnableProtocol {
        /// Its name.
        name: String,
    },
}

/// Without the texts, which may hold passwords.
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
            Self::LoadBird => f.write_str("have BIRD load its configuration"),
            Self::EnableProtocol { name } => write!(f, "enable BIRD protocol {name}"),
        }
    }
}

/// Why a step is needed: the field, what is wanted and what is there. Secrets show as "changed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// What differs, as `tunnel.mtu`.
    pub field: &'static str,
    /// What is wanted.
    pub want: String,
    /// What is there.
    pub have: String,
}

impl Drift {
    /// A drift between two values that can be shown.
    pub fn new(field: &'static str, want: impl fmt::Display, have: impl fmt::Display) -> Self {
        Self {
            field,
            want: want.to_string(),
            have: have.to_string(),
        }
    }

    /// A drift of something that must be there and is not.
    pub fn missing(field: &'static str, want: impl fmt::Display) -> Self {
        Self::new(field, want, "nothing")
    }

    /// A drift of something that is there and must not be.
    pub fn surplus(field: &'static str, have: impl fmt::Display) -> Self {
        Self::new(field, "nothing", have)
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: want {}, have {}", self.field, self.want, self.have)
    }
}

/// One change and its reason. The log line, the audit entry and the plan on screen come from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The change.
    pub action: Action,
    /// Its reason.
    pub because: Drift,
}

impl Step {
    /// A change of the kernel and its reason.
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

/// Why an object cannot be put into force, though its document is valid: something that is not ours is
/// in the way. Nothing is touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refusal {
    /// The field that would have to change.
    pub field: &'static str,
    /// What is in the way, and what to do.
    pub reason: String,
}

/// What the controller would do for one object now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// What has to happen first: another object moves, or a link can be read. The rest of the plan follows then.
    pub waits: Option<String>,
}

impl Plan {
    /// Nothing to do before another object has moved.
    pub fn waiting(waits: String) -> Self {
        Self {
            steps: Vec::new(),
            waits: Some(waits),
        }
    }

    /// What is left to do, as texts.
    pub fn remaining(&self) -> Vec<String> {
        let steps = self.steps.iter().map(ToString::to_string);
        steps.chain(self.waits.clone()).collect()
    }

    /// Whether there is nothing to do now.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The sysctls of all links together that the plan changes.
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

    /// The link that the plan makes. `applied/` names it before the first step is taken and until the
    /// last one is done, so that a link which a crash leaves without its mark is known again
    /// ([`TunnelView::creating`](super::TunnelView)). A link of ours that is replaced by one of another
    /// kind is made anew too, so "was absent" is not enough to tell.
    pub fn creates(&self) -> Option<&InterfaceName> {
        self.steps.iter().find_map(|step| match &step.action {
            Action::Kernel(KernelAction::CreateLink { interface, .. }) => Some(interface),
            _ => None,
        })
    }

    /// The addresses that the plan adds to `lo`. A record names them before the first step runs, since an address
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
