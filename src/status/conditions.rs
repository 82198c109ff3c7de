use jiff::Timestamp;

use super::action::next_action;
use crate::document::{Condition, ConditionStatus, ConditionType};
use crate::observed::bird::BirdProblem;

/// Collects conditions, and keeps the time of the last transition for unchanged ones.
#[derive(Debug)]
pub struct Conditions<'a> {
    before: &'a [Condition],
    now: Timestamp,
    found: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts a new list, compared with the previous one.
    pub fn new(before: &'a [Condition], now: Timestamp) -> Self {
        Self {
            before,
            now,
            found: Vec::new(),
        }
    }

    /// Adds a condition that is true or false.
    pub fn set(
        &mut self,
        about: ConditionType,
        holds: bool,
        reason: &str,
        message: impl Into<String>,
    ) {
        let status = if holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        self.push(about, status, reason, message.into());
    }

    /// Returns whether the previous list had this condition.
    pub fn had(&self, about: ConditionType) -> bool {
        let mut before = self.before.iter();
        before.any(|condition| condition.condition_type == about)
    }

    /// Adds a condition that fails because of a problem with BIRD.
    pub fn problem(&mut self, about: ConditionType, problem: BirdProblem) {
        self.set(about, false, problem.reason, problem.message);
        self.act(problem.action);
    }

    /// Adds a condition whose state is unknown.
    pub fn unknown(&mut self, about: ConditionType, reason: &str, message: impl Into<String>) {
        self.push(about, ConditionStatus::Unknown, reason, message.into());
    }

    /// Replaces the next action of the condition that was added last.
    pub fn act(&mut self, action: impl Into<String>) {
        if let Some(last) = self.found.last_mut() {
            last.next_action = Some(action.into());
        }
    }

    fn push(
        &mut self,
        about: ConditionType,
        status: ConditionStatus,
        reason: &str,
        message: String,
    ) {
        let same = self
            .before
            .iter()
            .find(|c| c.condition_type == about && c.status == status);
        self.found.push(Condition {
            condition_type: about,
            status,
            reason: reason.to_owned(),
            message,
            next_action: next_action(about, status, reason).map(str::to_owned),
            last_transition_time: same.map_or(self.now, |condition| condition.last_transition_time),
        });
    }

    /// Returns the conditions, to add to their next actions.
    pub(super) fn all_mut(&mut self) -> &mut [Condition] {
        &mut self.found
    }

    /// Returns the list.
    pub fn into_vec(self) -> Vec<Condition> {
        self.found
    }

    /// Returns whether a condition in the list is true.
    pub fn holds(&self, about: ConditionType) -> bool {
        self.found
            .iter()
            .any(|c| c.condition_type == about && c.status == ConditionStatus::True)
    }

    /// Returns whether a condition in the list is false.
    pub fn fails(&self, about: ConditionType) -> bool {
        self.found
            .iter()
            .any(|c| c.condition_type == about && c.status == ConditionStatus::False)
    }
}
