//! The next action of each condition: one table for the status document, `/status`, `status`, `describe` and the log.
//!
//! A place that knows more, as the object's name, replaces the action (`Conditions::act`).

use crate::document::{ConditionStatus, ConditionType};

/// Returns what an operator does about a condition; `None` where nothing is to be done.
pub fn next_action(
    about: ConditionType,
    status: ConditionStatus,
    reason: &str,
) -> Option<&'static str> {
    use ConditionStatus::{False, True, Unknown};
    use ConditionType as About;
    let held = matches!(about, About::RemovalHeld | About::ChangeHeld);
    match (status, reason) {
        (True, _) if held => Some(HELD),
        (True, "OthersDrop") => Some("add the named rule to the chain that drops"),
        (True, "AddressClash") => Some("change one of the two addresses"),
        (True, _) => None,
        (Unknown, "Waiting") => Some(IDENTITY_UNKNOWN),
        (Unknown, "NotRunning") => Some(BIRD_DOWN),
        (False, _) if !held => Some(failing(about, reason)),
        (Unknown | False, _) => None,
    }
}

/// The action for a held change.
const HELD: &str =
    "`moenet-agent approve --list` shows what is held, `moenet-agent approve NAME` approves it";

/// The action while BIRD does not answer.
pub const BIRD_DOWN: &str = "`systemctl start bird`, or correct bird.controlSocket";

/// The action while the identity of this router is unknown.
pub const IDENTITY_UNKNOWN: &str =
    "wait for the Control Plane's node configuration, or set node.id and node.asn";

/// The action while this router has no policy.
pub const POLICY_MISSING: &str = "wait for the Control Plane's policy, or write policy.yaml";

/// Returns the action of a condition that is false.
fn failing(about: ConditionType, reason: &str) -> &'static str {
    use ConditionType as About;
    match (about, reason) {
        (About::Accepted, "Clash") => {
            "`moenet-agent get` shows both objects; change or remove one of them"
        }
        (About::Accepted, _) => "fix the file; it is reloaded on save",
        (About::InService, _) => "enable the object in its document or in an override",
        (About::EndpointResolved, _) => "check the name and this host's resolver",
        (About::EndpointRouted, _) => "check the uplink and its default route: `ip route`",
        (About::TunnelConfigured, "Unread") => "check the WireGuard process of the link",
        (About::TunnelConfigured, _) => "`moenet-agent plan` shows the steps",
        (About::HandshakeRecent, _) => "ask the peer whether its WireGuard runs",
        (About::BabelAdjacent, _) => "check the tunnel, and BIRD on the peer",
        (About::BirdConfigured, "Refused" | "NotRendered") => {
            "correct the template or the document that the message names"
        }
        (About::BirdConfigured, "NotLoaded") => {
            "wait for the next load; `moenet-agent plan` shows the steps that are left"
        }
        (About::BirdConfigured, _) => "check BIRD's log and its files",
        (About::BgpEstablished, "NoProtocol") => {
            "`moenet-agent plan` shows the steps that are left"
        }
        (About::BgpEstablished, _) => "ask the peer; its log says more",
        (About::WithinLimits, _) => "if the routes are correct, raise the limit",
        (About::RemovalHeld | About::ChangeHeld, _) => HELD,
        (About::HistoryRecorded, _) => "check git and the disk of the state directory",
        (About::WorkTreeCurrent, _) => "run `git checkout main` in the state directory",
        (About::OriginsValidated, "NoServer") => "add an RPKI server to the policy",
        (About::OriginsValidated, "Collapsed") => {
            "check the RPKI servers; if they are correct, remove roa.conf from the state directory"
        }
        (About::OriginsValidated, _) => {
            "check the RPKI servers; a roa.conf in the state directory helps a cold start"
        }
        (About::TemplatesAccepted, _) => "fix the template; it is read again on save",
        (About::BirdFilesAccepted, _) => "correct and rename the quarantined files, or delete them",
        (About::BirdSupported, _) => "install a BIRD version that the agent was tested with",
        (About::FirewallConfigured, _) => {
            "check `nft list ruleset`, or set firewall.enabled: false"
        }
        (About::Forwarding, _) => "set the sysctl that the message names",
        (About::PolicyInEffect, _) => POLICY_MISSING,
        (About::KeyAvailable, _) => "put the file back; the agent reads it without a restart",
        (About::SysctlsConfigured, _) => {
            "make /proc/sys/net writable for the agent (systemd: ReadWritePaths=/proc/sys/net), or set the sysctls yourself"
        }
        (About::ApiListening, _) => "free the address, or change server.listen",
        (About::ControlPlaneSynced, _) => "check the Control Plane and controlPlane.url",
        (About::StateDirectoryUnique, _) => {
            "remove the copy; if the key was replaced on purpose, delete the file that the message names"
        }
        (About::TokensReadable, _) => "write the token into the file; the agent rereads it",
        (About::LogWritten, _) => "check the disk or the reader of the log",
    }
}
