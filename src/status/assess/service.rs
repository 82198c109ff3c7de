//! Whether an object is meant to carry traffic.

use jiff::Timestamp;

use super::Facts;
use crate::document::ConditionType as About;
use crate::status::Conditions;

/// Whether an object is meant to carry traffic, and what keeps it from that. A pause is a fact of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// It is.
    Enabled,
    /// `adminState: Disabled`
    Disabled,
    /// `adminState: Pending`
    PendingReview,
    /// `adminState: Absent`, or no document.
    Absent,
    /// `mesh.enabled: false` in the configuration.
    MeshDisabled,
    /// The peer is this router.
    OwnNode,
    /// Maintenance has closed external sessions.
    ClosedByMaintenance,
    /// Its routes are drained, which closes no session.
    Drained {
        /// Whether the whole router is in maintenance, and since when; else the session alone is drained.
        maintenance: Option<Option<Timestamp>>,
        /// Whether BIRD has loaded the drain.
        loaded: bool,
    },
}

/// Returns what a pause does, with its reason.
pub fn paused(why: &str) -> String {
    format!("paused, so the agent observes and writes nothing: {why}")
}

/// Sets the condition for whether the object is meant to carry traffic.
pub(super) fn in_service(facts: &Facts<'_>, conditions: &mut Conditions<'_>) {
    let mut off = |reason: &str, message: &str, action: &str| {
        conditions.set(About::InService, false, reason, message);
        conditions.act(action);
    };
    if let Some(why) = facts.object.paused {
        let file = facts.object.path;
        return off(
            "Paused",
            &paused(why),
            &format!("set paused: false in overrides/{file}.yaml, or delete the file"),
        );
    }
    let author = match facts.object.operator_owned {
        true => "its document",
        false => "the Control Plane",
    };
    match facts.object.service {
        Service::Enabled => conditions.set(About::InService, true, "Enabled", ""),
        Service::Disabled => off(
            "Disabled",
            "its adminState is Disabled",
            &format!("set adminState: Enabled in {author} or in an override"),
        ),
        Service::PendingReview => off(
            "PendingReview",
            "it waits for approval: its adminState is Pending",
            &format!("approve it: {author} then sets adminState: Enabled"),
        ),
        Service::Absent => off(
            "Absent",
            "it is to be removed: its adminState is Absent, or it has no document",
            "wait until the agent has removed it",
        ),
        Service::MeshDisabled => off(
            "MeshDisabled",
            "mesh.enabled is false in the configuration, so the agent configures no mesh tunnel",
            "set mesh.enabled: true in the configuration",
        ),
        Service::OwnNode => off(
            "OwnNode",
            "its node id is this router's own, so the agent connects to no peer",
            "correct spec.nodeId, or node.id in the configuration",
        ),
        Service::ClosedByMaintenance => off(
            "ClosedByMaintenance",
            "the router is in maintenance for longer than maintenance.disableAfter, so external sessions are closed",
            "`moenet-agent maintenance stop` opens them",
        ),
        Service::Drained {
            maintenance,
            loaded,
        } => {
            let (message, action) = drained(maintenance, loaded);
            off("Drained", &message, action);
        }
    }
}

fn drained(maintenance: Option<Option<Timestamp>>, loaded: bool) -> (String, &'static str) {
    let state = if loaded { "drained" } else { "to be drained" };
    let lead = format!("{state} (graceful shutdown, RFC 8326): ");
    match maintenance {
        Some(since) => {
            let since = since.map(|since| format!(" since {since}"));
            (
                format!(
                    "{lead}the router is in maintenance{}",
                    since.unwrap_or_default()
                ),
                "`moenet-agent maintenance stop` ends the drain",
            )
        }
        None => (
            format!("{lead}its bgp.drained is true"),
            "set bgp.drained: false to end the drain",
        ),
    }
}
