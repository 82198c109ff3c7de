use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::AdminState;

/// The status of a session as a number (docs/contract/session.md#status-codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum WireStatus {
    /// Manually disabled. As a report: the session is gone.
    Disabled = 0,
    /// Running normally.
    Active = 1,
    /// Cannot be configured; the agent keeps trying.
    Error = 2,
    /// Awaiting approval.
    PendingReview = 3,
    /// Ready for the agent.
    QueuedForSetup = 4,
    /// Marked for removal.
    QueuedForDelete = 5,
}

impl WireStatus {
    /// All statuses, in the order of their numbers from 0.
    pub const ALL: [Self; 6] = [
        Self::Disabled,
        Self::Active,
        Self::Error,
        Self::PendingReview,
        Self::QueuedForSetup,
        Self::QueuedForDelete,
    ];

    pub fn number(self) -> u8 {
        self as u8
    }

    /// Returns the name in the reference.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disabled => "DISABLED",
            Self::Active => "ACTIVE",
            Self::Error => "ERROR",
            Self::PendingReview => "PENDING_REVIEW",
            Self::QueuedForSetup => "QUEUED_FOR_SETUP",
            Self::QueuedForDelete => "QUEUED_FOR_DELETE",
        }
    }

    /// Returns the status of a number, if it has one.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Returns the administrative state.
    pub fn admin_state(self) -> AdminState {
        match self {
            Self::Disabled => AdminState::Disabled,
            Self::Active | Self::Error | Self::QueuedForSetup => AdminState::Enabled,
            Self::PendingReview => AdminState::Pending,
            Self::QueuedForDelete => AdminState::Absent,
        }
    }

    /// Returns whether the agent may answer this status with ACTIVE or ERROR. For the other statuses that would
    /// overwrite an administrator's decision: a session marked for removal would be enabled again.
    pub fn takes_error(self) -> bool {
        self.admin_state() == AdminState::Enabled
    }
}

impl Serialize for WireStatus {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for WireStatus {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(d)?;
        Self::from_number(number)
            .ok_or_else(|| D::Error::custom(format!("{number} is unknown; a status is 0..5")))
    }
}

impl schemars::JsonSchema for WireStatus {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SessionStatus".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let numbers = Self::ALL.map(Self::number);
        schemars::json_schema!({"type": "integer", "enum": numbers, "description": "The status of a session."})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference() {
        for (number, status) in (0..).zip(WireStatus::ALL) {
            assert_eq!(u64::from(status.number()), number);
            assert_eq!(WireStatus::from_number(number), Some(status));
        }
        assert_eq!(WireStatus::from_number(6), None);
        assert_eq!(WireStatus::QueuedForDelete.number(), 5);
    }
}
