//! A change on its way, for people.

use jiff::Timestamp;
use serde::Serialize;

use super::record::FleetRecord;
use crate::model::ObjectName;

/// How far a change of the network has come, and which routers may drain.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RolloutView {
    /// The wave that is observed, from 1; absent without a change on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wave: Option<usize>,
    pub(crate) waves: Vec<Vec<ObjectName>>,
    /// When this wave began, or the change was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
    /// Why the newest description was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) taken_back: Option<String>,
    /// The routers that may drain.
    pub(crate) drains: Vec<ObjectName>,
}

impl RolloutView {
    pub(in crate::fleet) fn of(record: FleetRecord) -> Self {
        let drains = record.drains.into_keys().collect();
        match (record.ongoing, record.refused) {
            (Some(ongoing), _) => Self {
                wave: Some(ongoing.wave + 1),
                waves: ongoing.waves,
                since: Some(ongoing.since),
                taken_back: None,
                drains,
            },
            (None, Some(refused)) => Self {
                since: Some(refused.at),
                taken_back: Some(refused.why),
                drains,
                ..Self::default()
            },
            (None, None) => Self {
                drains,
                ..Self::default()
            },
        }
    }
}
