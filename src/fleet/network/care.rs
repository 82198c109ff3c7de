//! The parts of `network.yaml` that protect the network from its own changes: `rollout` and `budgets`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::Interval;
use crate::model::ObjectName;

/// How a change of `network.yaml` or of files in `routers/` reaches the routers that it concerns.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutSpec {
    /// Which routers get a change, one wave after the other: names, or a percentage of the routers that the change
    /// concerns, earlier waves included. All others are the last wave.
    #[schemars(length(min = 1))]
    pub waves: Vec<Wave>,
    /// How long the routers of a wave are observed before the next wave. Default: 10m.
    #[serde(default = "Interval::seconds::<600>")]
    #[schemars(extend("default" = "10m"))]
    pub observe: Interval,
    /// What the routers of a wave must keep. If two reports of a router break a gate, the change is rolled back.
    #[serde(default)]
    pub gates: Gates,
}

/// The routers of a wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wave {
    Routers(Vec<ObjectName>),
    Share(Percent),
}

/// What a router must keep, compared with its last report before the change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gates {
    /// The share of its Established sessions. Default: 90%.
    #[schemars(extend("default" = "90%"))]
    pub established: Percent,
    /// The share of its imported routes, and of its exported ones. Default: 80%.
    #[schemars(extend("default" = "80%"))]
    pub prefixes: Percent,
    /// By how many milliseconds the mean round-trip time of its sessions may grow. Default: 50.
    #[schemars(extend("default" = 50))]
    pub rtt_ms: u32,
    /// By how many points the mean loss of its sessions may grow. Default: 5%.
    #[schemars(extend("default" = "5%"))]
    pub loss: Percent,
    /// By how many changes that wait for an operator may grow. Default: 0.
    pub held: u64,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            established: Percent(90),
            prefixes: Percent(80),
            rtt_ms: 50,
            loss: Percent(5),
            held: 0,
        }
    }
}

/// How many routers may be out of service. A router that asks before its drain is refused if one would be broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budgets {
    /// Most routers of a region that are drained or silent at one time.
    #[schemars(range(min = 1), example = 1)]
    pub out_per_region: Option<u32>,
    /// Fewest exits of the own prefixes: routers that are not drained, with an Established session that exports routes
    /// to a peer.
    #[schemars(range(min = 1), example = 2)]
    pub exits: Option<u32>,
}

/// A share in whole percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    pub(super) const ZERO: Self = Self(0);

    /// Returns the share as a fraction.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// Returns how many of `total` it is, rounded up.
    pub fn of(self, total: usize) -> usize {
        (total * usize::from(self.0)).div_ceil(100)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let number = text.strip_suffix('%').and_then(|text| text.parse().ok());
        let number = number.filter(|number| *number <= 100);
        number
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("invalid share {text:?}: write 0% to 100%")))
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9]+%$", "description": "A share, 0% to 100%.", "examples": ["10%"]
        })
    }
}

impl<'de> Deserialize<'de> for Wave {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(d)?;
        let wave = match value {
            Value::Array(_) => serde_json::from_value(value).map(Self::Routers),
            Value::String(_) => serde_json::from_value(value).map(Self::Share),
            _ => return Err(D::Error::custom("expected [ROUTER, …] or a share as 10%")),
        };
        wave.map_err(D::Error::custom)
    }
}

impl JsonSchema for Wave {
    fn schema_name() -> Cow<'static, str> {
        "Wave".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names = generator.subschema_for::<Vec<ObjectName>>();
        let share = generator.subschema_for::<Percent>();
        json_schema!({
            "anyOf": [names, share],
            "description": "Names of routers, or a share of those that the change concerns.",
            "examples": [["jp1"], "10%"]
        })
    }
}
