//! Encodes the agent's posts (docs/contract/control-plane.md#posts).

use std::str::FromStr;

use schemars::{JsonSchema, Schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::WireStatus;
use crate::document::whole;
use crate::model::{PublicKey, Uid};

/// The body of `POST heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The agent's version.
    pub version: String,
    /// Seconds since the agent started.
    #[serde(deserialize_with = "count")]
    #[schemars(extend("maximum" = COUNT_MAX))]
    pub uptime: u64,
    /// The agent's WireGuard public key.
    #[serde(
        default,
        deserialize_with = "exact_key",
        skip_serializing_if = "Option::is_none"
    )]
    pub mesh_public_key: Option<PublicKey>,
    /// Whether the router is drained; an addition to the API, left out when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<bool>,
    /// The number of changes that wait for an operator of the router; an addition, left out when it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<u64>,
    /// The newest lists that became documents, by their endpoints: the text of each answer's `moenet-list`; an addition,
    /// left out when no answer had it. Anything but texts by their names is ignored.
    #[schemars(with = "Value")]
    #[serde(
        default,
        deserialize_with = "texts",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub lists: BTreeMap<String, String>,
}

/// Reads texts by name; a value of another type, as of another kind of agent, as none.
fn texts<'de, D: Deserializer<'de>>(reader: D) -> Result<BTreeMap<String, String>, D::Error> {
    let value = Value::deserialize(reader)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// The body of `POST drain`, an addition to the API: a router asks before it drains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DrainWish {
    /// Whether it drains even if a budget of the network forbids it.
    pub force: bool,
}

/// The largest number that every JSON library represents exactly (RFC 8259, section 6).
const COUNT_MAX: u64 = (1 << 53) - 1;

/// Reads a whole number in any form that JSON has for it: `7`, `7.0`.
fn count<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let number = Value::Number(serde_json::Number::deserialize(d)?);
    let count = whole(&number).filter(|count| *count <= COUNT_MAX);
    count.ok_or_else(|| D::Error::custom(format!("must be 0..{COUNT_MAX}, not {number}")))
}

/// Reads a public key in the one form that agents write.
fn exact_key<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PublicKey>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else {
        return Ok(None);
    };
    let key: PublicKey = text.parse().map_err(D::Error::custom)?;
    match key.to_string() == text {
        true => Ok(Some(key)),
        false => Err(D::Error::custom(format!("write the public key as {key}"))),
    }
}

/// The body of `POST report`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// One item a session.
    #[schemars(transform = read_alone)]
    pub sessions: Vec<SessionReport>,
}

/// Describes that an item that breaks a rule is left out alone.
fn read_alone(list: &mut Schema) {
    if let Some(item) = list.remove("items") {
        let other = "Any other item is left out, and named in `rejected` of the answer.";
        let items = json!({"anyOf": [item, {"description": other}]});
        list.insert("items".to_owned(), items);
    }
}

/// The state of one session (docs/contract/session.md#report-states).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionReport {
    /// The session's identity.
    pub uuid: Uid,
    /// Round-trip time to the peer in milliseconds; `null` when unknown.
    #[serde(default, serialize_with = "milliseconds")]
    pub rtt_ms: Option<f64>,
    /// The share of echoes to the peer that were lost, 0 to 1; an addition to the API, left out when unknown.
    #[serde(
        default,
        serialize_with = "thousandths",
        skip_serializing_if = "Option::is_none"
    )]
    pub loss: Option<f64>,
    /// Routes imported, of both address families.
    #[serde(default, deserialize_with = "count")]
    #[schemars(extend("maximum" = COUNT_MAX))]
    pub routes_imported: u64,
    /// Routes exported, of both address families.
    #[serde(default, deserialize_with = "count")]
    #[schemars(extend("maximum" = COUNT_MAX))]
    pub routes_exported: u64,
    /// The state of the BGP session.
    #[serde(default)]
    pub state: PeerState,
}

/// The state of a BGP session, in the words of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    Established,
    Active,
    Connect,
    Idle,
    OpenSent,
    OpenConfirm,
    #[default]
    Down,
}

impl PeerState {
    /// Returns the word of the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Active => "active",
            Self::Connect => "connect",
            Self::Idle => "idle",
            Self::OpenSent => "opensent",
            Self::OpenConfirm => "openconfirm",
            Self::Down => "down",
        }
    }
}

impl FromStr for PeerState {
    type Err = std::convert::Infallible;
    /// Parses a state in any letter case; an unknown state is [`PeerState::Down`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "established" => Self::Established,
            "active" => Self::Active,
            "connect" => Self::Connect,
            "idle" => Self::Idle,
            "opensent" => Self::OpenSent,
            "openconfirm" => Self::OpenConfirm,
            _ => Self::Down,
        })
    }
}

/// Writes a time with a precision of a tenth of a millisecond, and a whole number without a fraction.
fn milliseconds<S: Serializer>(rtt: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
    match rtt
        .filter(|rtt| rtt.is_finite() && *rtt >= 0.0)
        .map(|rtt| (rtt * 10.0).round() / 10.0)
    {
        None => s.serialize_none(),
        Some(rtt) if rtt.fract() == 0.0 => s.serialize_u64(rtt as u64),
        Some(rtt) => s.serialize_f64(rtt),
    }
}

fn thousandths<S: Serializer>(share: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
    share.map(|share| (share * 1e3).round() / 1e3).serialize(s)
}

/// The body of `POST modify`: a session's change of status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Modify {
    /// The session's uuid.
    pub uuid: Uid,
    /// 0 (gone), 1 (configured) or 2 (cannot be configured).
    #[schemars(with = "u8", extend("enum" = [0, 1, 2]))]
    pub status: WireStatus,
    /// The reason why it cannot be configured; `null` otherwise.
    pub error: Option<String>,
}
