//! What is wrong with an object, root cause first: its conditions that need an action, and the probes that failed.

use serde::Serialize;

use super::is_bad;
use crate::document::{Condition, ConditionStatus, ConditionType, StatusBody};

/// Conditions and probes in the order of cause and effect: this router comes before the peer.
const ORDER: [&str; 17] = [
    "Accepted",
    "InService",
    "RemovalHeld",
    "agent",
    "EndpointResolved",
    "dns",
    "EndpointRouted",
    "route",
    "TunnelConfigured",
    "endpoint",
    "HandshakeRecent",
    "handshake",
    "BabelAdjacent",
    "BirdConfigured",
    "ping",
    "WithinLimits",
    "BgpEstablished",
];

/// Conditions and probes that show a fault of this router.
const OWN_SIDE: [&str; 4] = ["EndpointResolved", "dns", "EndpointRouted", "route"];

/// One cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The type of the condition, or the name of the probe.
    pub about: String,
    /// The reason, as a word for programs.
    pub reason: String,
    /// The observation.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_action: Option<String>,
}

/// A probe that failed.
pub(crate) struct FailedProbe {
    pub(crate) cause: Cause,
    /// The condition that says the same.
    pub(crate) restates: Option<ConditionType>,
}

/// Returns the causes, root cause first.
pub(crate) fn causes(status: &StatusBody, failed: Vec<FailedProbe>) -> Vec<Cause> {
    let conditions = status.conditions.iter().filter(|it| needs_action(it));
    let mut causes: Vec<Cause> = conditions.map(of_condition).collect();
    causes.extend(last_error(status, &causes));
    let is_known = |about: ConditionType| {
        let mut conditions = status.conditions.iter();
        conditions.any(|condition| condition.condition_type == about && needs_action(condition))
    };
    let failed = failed.into_iter();
    let failed = failed.filter(|probe| !probe.restates.is_some_and(is_known));
    causes.extend(failed.map(|probe| probe.cause));
    let place = |cause: &Cause| ORDER.iter().position(|about| *about == cause.about);
    causes.sort_by_key(|cause| place(cause).unwrap_or(ORDER.len()));
    // BIRD that does not answer is the same message for its configuration and for the session.
    causes.dedup_by(|later, earlier| !later.message.is_empty() && later.message == earlier.message);
    blame_own_side_first(&mut causes);
    causes
}

/// Returns whether a condition belongs to the causes. A status of an earlier build has no next actions.
fn needs_action(condition: &Condition) -> bool {
    let out_of_service = condition.condition_type == ConditionType::InService
        && condition.status == ConditionStatus::False;
    is_bad(condition) || out_of_service || condition.next_action.is_some()
}

fn of_condition(condition: &Condition) -> Cause {
    Cause {
        about: format!("{:?}", condition.condition_type),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        next_action: condition.next_action.clone(),
    }
}

/// Returns the last error, if no condition has it.
fn last_error(status: &StatusBody, causes: &[Cause]) -> Option<Cause> {
    let error = status.last_error.as_ref()?;
    let has = |cause: &Cause| !cause.message.is_empty() && error.contains(&cause.message);
    (!causes.iter().any(has)).then(|| Cause {
        about: "lastError".to_owned(),
        reason: "Failed".to_owned(),
        message: error.clone(),
        next_action: None,
    })
}

/// Removes what to ask the peer, while packets do not leave this router: no peer is to blame for that.
fn blame_own_side_first(causes: &mut [Cause]) {
    let is_own = |cause: &Cause| OWN_SIDE.contains(&cause.about.as_str());
    if causes.iter().any(is_own) {
        let of_peer = |cause: &&mut Cause| {
            matches!(
                cause.about.as_str(),
                "HandshakeRecent" | "handshake" | "BgpEstablished"
            )
        };
        let blamed = causes.iter_mut().filter(of_peer);
        blamed.for_each(|cause| cause.next_action = None);
    }
}

/// Returns whether the object works: its BGP sessions are up, or, without any, its peer answers.
pub(crate) fn is_up(status: &StatusBody) -> bool {
    let state = |about: ConditionType| {
        let mut conditions = status.conditions.iter();
        let found = conditions.find(|condition| condition.condition_type == about);
        found.map(|condition| condition.status == ConditionStatus::True)
    };
    state(ConditionType::BgpEstablished)
        .or_else(|| state(ConditionType::HandshakeRecent))
        .or_else(|| state(ConditionType::TunnelConfigured))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(about: ConditionType, reason: &str, message: &str) -> Condition {
        Condition {
            condition_type: about,
            status: ConditionStatus::False,
            reason: reason.to_owned(),
            message: message.to_owned(),
            next_action: Some("ask the peer".to_owned()),
            last_transition_time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn silent() -> StatusBody {
        StatusBody {
            conditions: vec![
                condition(ConditionType::HandshakeRecent, "Never", "never"),
                condition(ConditionType::BgpEstablished, "NotEstablished", "down"),
            ],
            ..StatusBody::default()
        }
    }

    fn failed(name: &str, reason: &str) -> FailedProbe {
        let cause = Cause {
            about: name.to_owned(),
            reason: reason.to_owned(),
            message: "it failed".to_owned(),
            next_action: Some("look at this router".to_owned()),
        };
        FailedProbe {
            cause,
            restates: None,
        }
    }

    fn reasons(causes: &[Cause]) -> Vec<&str> {
        causes.iter().map(|cause| cause.reason.as_str()).collect()
    }

    #[test]
    fn own_side_comes_first_and_does_not_blame_the_peer() {
        let causes = causes(&silent(), vec![failed("route", "NoRoute")]);
        assert_eq!(reasons(&causes), ["NoRoute", "Never", "NotEstablished"]);
        let actions: Vec<_> = causes
            .iter()
            .map(|cause| cause.next_action.as_deref())
            .collect();
        assert_eq!(actions, [Some("look at this router"), None, None]);
    }

    #[test]
    fn answers_of_the_network_come_before_the_handshake() {
        let probes = vec![
            failed("ping", "NeighbourSilent"),
            failed("endpoint", "PortClosed"),
        ];
        let causes = causes(&silent(), probes);
        let wanted = ["PortClosed", "Never", "NeighbourSilent", "NotEstablished"];
        assert_eq!(reasons(&causes), wanted);
        assert_eq!(causes[1].next_action.as_deref(), Some("ask the peer"));
    }

    #[test]
    fn probe_that_restates_a_condition_is_one_cause() {
        let probe = || FailedProbe {
            restates: Some(ConditionType::HandshakeRecent),
            ..failed("handshake", "Stale")
        };
        let found = causes(&silent(), vec![probe()]);
        assert_eq!(reasons(&found), ["Never", "NotEstablished"]);
        let found = causes(&StatusBody::default(), vec![probe()]);
        assert_eq!(reasons(&found), ["Stale"]);
    }

    #[test]
    fn error_without_condition_is_a_cause() {
        let status = |error: &str| StatusBody {
            last_error: Some(error.to_owned()),
            ..silent()
        };
        assert_eq!(causes(&status("kernel said: never"), Vec::new()).len(), 2);
        assert_eq!(reasons(&causes(&status("other"), Vec::new()))[2], "Failed");
    }

    #[test]
    fn one_message_is_one_cause() {
        let mut status = silent();
        for condition in &mut status.conditions {
            condition.message = "BIRD is not running".to_owned();
        }
        assert_eq!(reasons(&causes(&status, Vec::new())), ["Never"]);
    }
}
