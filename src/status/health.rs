//! Health of the whole agent, and the reasons why it is not `ok` (docs/contract/local-api.md#health).

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::document::{Condition, ConditionStatus, ConditionType};
use crate::intervals::PASS_MAX;

/// Consecutive failed fetches of a list that degrade the agent.
const LIST_FAILURES: u32 = 3;

/// State of the whole agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The observed state matches the desired state.
    Ok,
    /// The agent works, and an operator should look at the reasons.
    Degraded,
    /// The agent cannot do its work.
    Failed,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        })
    }
}

/// Facts that determine the health.
#[derive(Debug, Default)]
pub struct HealthFacts {
    /// Time since the last finished pass.
    pub since_pass: Duration,
    /// Objects whose reconcile has run for longer than [`PASS_MAX`].
    pub stuck: Vec<String>,
    /// Why the kernel cannot be read.
    pub kernel: Option<String>,
    /// Why the committer cannot use BIRD's files.
    pub committer: Option<String>,
    /// Why BIRD does not answer.
    pub bird: Option<String>,
    /// Why the state directory cannot be used.
    pub state_directory: Option<String>,
    /// Whether the router is drained.
    pub drained: bool,
    pub held: Vec<String>,
    /// Fetches of lists: name, consecutive failures, last error.
    pub lists: Vec<(String, u32, String)>,
    /// Objects and their failing conditions.
    pub conditions: Vec<(String, Condition)>,
}

/// Returns whether a condition shows a problem. A held change is a problem while it is `True`; an object out of service
/// is intended.
pub fn is_bad(condition: &Condition) -> bool {
    let wrong = match condition.condition_type {
        ConditionType::InService => return false,
        ConditionType::RemovalHeld | ConditionType::ChangeHeld => ConditionStatus::True,
        _ => ConditionStatus::False,
    };
    condition.status == wrong
}

/// Returns whether the agent cannot do its work while this condition of node or policy is bad: it configures no tunnel or no
/// session. While another one is bad it can, and an operator should look at the reason.
pub(crate) fn stops_work(about: ConditionType) -> bool {
    matches!(
        about,
        ConditionType::Accepted
            | ConditionType::TunnelConfigured
            | ConditionType::BirdConfigured
            | ConditionType::KeyAvailable
            | ConditionType::StateDirectoryUnique
    )
}

impl HealthFacts {
    /// Returns the health and its reasons, the worst first.
    pub fn judge(&self) -> (Health, Vec<String>) {
        let failed = self.failed();
        let mut reasons = self.degraded();
        let health = match (failed.is_empty(), reasons.is_empty()) {
            (false, _) => Health::Failed,
            (true, false) => Health::Degraded,
            (true, true) => Health::Ok,
        };
        reasons.splice(0..0, failed);
        (health, reasons)
    }

    fn failed(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.since_pass > PASS_MAX {
            reasons.push(format!(
                "no pass has finished for {} s; restart the agent and report this",
                self.since_pass.as_secs()
            ));
        }
        let kernel = self.kernel.iter();
        reasons.extend(kernel.map(|why| format!("the kernel cannot be read: {why}")));
        let committer = self.committer.iter();
        reasons.extend(committer.map(|why| format!("BIRD's files cannot be used: {why}")));
        reasons
    }

    fn degraded(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.bird.iter().cloned().collect();
        let directory = self.state_directory.iter();
        reasons.extend(directory.map(|why| {
            format!("the state directory cannot be used, so the current configuration stays: {why}")
        }));
        if self.drained {
            reasons.push(
                "the router is drained; `moenet-agent maintenance stop` ends the drain".to_owned(),
            );
        }
        let stuck = self.stuck.iter();
        reasons.extend(stuck.map(|object| {
            format!(
                "{object}: reconcile has not ended for {} s",
                PASS_MAX.as_secs()
            )
        }));
        reasons.extend(self.held.iter().cloned());
        let lists = self
            .lists
            .iter()
            .filter(|(_, failures, _)| *failures >= LIST_FAILURES);
        reasons.extend(lists.map(|(name, failures, error)| {
            format!("fetch of {name} failed {failures} times in a row: {error}")
        }));
        let bad = self
            .conditions
            .iter()
            .filter(|(_, condition)| is_bad(condition));
        reasons.extend(bad.map(|(object, condition)| condition_text(object, condition)));
        reasons
    }
}

/// Returns one condition as one line.
pub fn condition_text(object: &str, condition: &Condition) -> String {
    let Condition {
        condition_type,
        status,
        reason,
        message,
        next_action,
        ..
    } = condition;
    let mut text = format!("{object}: {condition_type:?}={status:?} ({reason})");
    if !message.is_empty() {
        text += &format!(": {message}");
    }
    if let Some(action) = next_action {
        text += &format!(" → {action}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(condition_type: ConditionType, status: ConditionStatus) -> Condition {
        Condition {
            condition_type,
            status,
            reason: "Because".to_owned(),
            message: "a message".to_owned(),
            next_action: None,
            last_transition_time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[track_caller]
    fn expect(facts: &HealthFacts, health: Health, reason: &str) {
        let (found, reasons) = facts.judge();
        assert_eq!(found, health, "{reasons:?}");
        assert!(
            reasons.iter().any(|text| text.contains(reason)),
            "{reasons:?}"
        );
    }

    #[test]
    fn nothing_wrong_is_ok() {
        let facts = HealthFacts {
            since_pass: PASS_MAX,
            lists: vec![("sessions".into(), LIST_FAILURES - 1, "e".into())],
            conditions: vec![
                (
                    "a".into(),
                    condition(ConditionType::Accepted, ConditionStatus::True),
                ),
                (
                    "b".into(),
                    condition(ConditionType::Accepted, ConditionStatus::Unknown),
                ),
                (
                    "c".into(),
                    condition(ConditionType::RemovalHeld, ConditionStatus::False),
                ),
            ],
            ..HealthFacts::default()
        };
        assert_eq!(facts.judge(), (Health::Ok, Vec::new()));
    }

    #[test]
    fn no_pass_for_a_minute_is_failed() {
        let facts = HealthFacts {
            since_pass: PASS_MAX + Duration::from_secs(1),
            ..HealthFacts::default()
        };
        expect(&facts, Health::Failed, "no pass has finished for 61 s");
    }

    #[test]
    fn unusable_kernel_or_committer_is_failed() {
        let facts = HealthFacts {
            kernel: Some("netlink: EPERM".into()),
            drained: true,
            ..HealthFacts::default()
        };
        expect(&facts, Health::Failed, "netlink: EPERM");
        expect(&facts, Health::Failed, "drained");
        let facts = HealthFacts {
            committer: Some("read /etc/bird: not a directory".into()),
            ..HealthFacts::default()
        };
        expect(&facts, Health::Failed, "not a directory");
    }

    #[test]
    fn each_degrading_fact_is_degraded_and_named() {
        let drained = HealthFacts {
            drained: true,
            ..HealthFacts::default()
        };
        expect(&drained, Health::Degraded, "maintenance stop");
        let held = HealthFacts {
            held: vec!["removal of sessions/wg_1 is held".into()],
            ..HealthFacts::default()
        };
        expect(&held, Health::Degraded, "is held");
        let list = HealthFacts {
            lists: vec![("mesh".into(), LIST_FAILURES, "not JSON".into())],
            ..HealthFacts::default()
        };
        expect(
            &list,
            Health::Degraded,
            "mesh failed 3 times in a row: not JSON",
        );
        let bird = HealthFacts {
            bird: Some("BIRD is not running (/run/bird.ctl)".into()),
            ..HealthFacts::default()
        };
        expect(&bird, Health::Degraded, "/run/bird.ctl");
        let directory = HealthFacts {
            state_directory: Some("write x: No space left on device".into()),
            ..HealthFacts::default()
        };
        expect(&directory, Health::Degraded, "No space left");
        let stuck = HealthFacts {
            stuck: vec!["sessions/wg_2".into()],
            ..HealthFacts::default()
        };
        expect(&stuck, Health::Degraded, "sessions/wg_2");
    }

    #[test]
    fn a_false_condition_and_a_held_removal_are_degraded() {
        for (condition_type, status) in [
            (ConditionType::HandshakeRecent, ConditionStatus::False),
            (ConditionType::RemovalHeld, ConditionStatus::True),
        ] {
            let facts = HealthFacts {
                conditions: vec![("sessions/wg_1".into(), condition(condition_type, status))],
                ..HealthFacts::default()
            };
            expect(&facts, Health::Degraded, "sessions/wg_1: ");
        }
    }
}
