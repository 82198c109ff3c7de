//! What a verb does that may take long, as its progress shows it.

use super::Verb;

impl Verb {
    /// Returns what the verb does from its start; `None`: it does not end by itself, asks first, or only prints.
    pub(super) fn work(&self) -> Option<&'static str> {
        Some(match self {
            Self::Plan(_) => "planning",
            Self::Adopt(_) => "reading what runs on this router",
            Self::Apply(_) | Self::Override(_) | Self::Pause(_) | Self::Resume(_) => {
                "checking the change"
            }
            Self::Rollback(_) => "reading the history, and checking the change",
            Self::Describe(_) => "observing the object",
            Self::Wait(_) => "waiting",
            Self::Diff(_) | Self::Render(_) | Self::Validate(_) => "reading the documents",
            Self::Approve(_) => "looking for held changes",
            Self::History(_) | Self::Events(_) => "reading the history",
            Self::Doctor => "checking this host",
            Self::Status | Self::Maintenance(_) => "waiting for the agent",
            Self::Sync => "waiting for the fetch",
            Self::Restart(_) => "waiting for tunnel and session",
            Self::Fleet(fleet) => return fleet.work(),
            Self::Run
            | Self::Init(_)
            | Self::Edit(_)
            | Self::Get(_)
            | Self::Schema(_)
            | Self::Explain(_)
            | Self::ControlPlane(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::Version
            | Self::Answer(_)
            | Self::PackageFiles(_) => return None,
        })
    }
}
