use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::Listen;
use crate::intervals::CONFIGURED_MAX;
use crate::model::InterfaceName;

/// A duration: a number of seconds, or `30s`, `5m`, `1h`, `2d`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

impl Interval {
    /// Creates an interval of N seconds.
    pub fn seconds<const N: u64>() -> Self {
        Self(Duration::from_secs(N))
    }

    /// Returns the duration.
    pub fn get(self) -> Duration {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let split = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().ok()?;
        let duration = match unit.trim() {
            "ms" => Duration::from_millis(number),
            "" | "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        (duration > Duration::ZERO && duration <= CONFIGURED_MAX).then_some(Self(duration))
    }
}

/// A number, or a text that may be a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = NumberOrText::deserialize(d)?.text();
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "invalid duration {text:?}: use seconds or 30s, 5m, 1h, 2d, greater than 0"
            ))
        })
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Interval".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"], "minimum": 1, "pattern": "^[0-9]+ *(ms|s|m|h|d)?$",
            "description": "A duration: seconds, or 30s, 5m, 1h, 2d.", "examples": [60, "5m"]
        })
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 24368))
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listen".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "description": "host:port, :port for every address, or unix:/path.",
            "default": "127.0.0.1:24368", "examples": ["unix:/run/moenet-agent/api.sock"]
        })
    }
}

/// Most removals within `guard.window` without approval (docs/contract/safety.md#rule-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRemovals {
    /// A percentage of the objects of a kind, and at least 1.
    Percent(u8),
    /// A number.
    Number(u32),
}

impl Default for MaxRemovals {
    fn default() -> Self {
        Self::Percent(30)
    }
}

impl MaxRemovals {
    /// Returns how many of `total` objects may be removed within the window.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Percent(percent) => (total * usize::from(percent) / 100).max(1),
            Self::Number(number) => usize::try_from(number).unwrap_or(usize::MAX),
        }
    }
}

impl<'de> Deserialize<'de> for MaxRemovals {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = NumberOrText::deserialize(d)?.text();
        let percent = text
            .strip_suffix('%')
            .map(|number| number.trim().parse().ok().filter(|p| *p <= 100));
        let parsed = match percent {
            Some(percent) => percent.map(Self::Percent),
            None => text.parse().ok().map(Self::Number),
        };
        parsed.ok_or_else(|| {
            serde::de::Error::custom(format!(
                "invalid limit {text:?}: use a number, or a percentage such as 30%"
            ))
        })
    }
}

impl JsonSchema for MaxRemovals {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MaxRemovals".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%?$",
            "description": "A number, or a percentage of the objects of a kind.", "default": "30%"
        })
    }
}

/// A WireGuard implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The kernel's if available, else a userspace one.
    #[default]
    Auto,
    /// The kernel's.
    Kernel,
    /// A userspace one.
    Userspace,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// On a terminal for people, under systemd as fields of the journal, else logfmt.
    #[default]
    Text,
    /// Flat JSON objects.
    Json,
}

/// The default loopback interface.
#[expect(
    clippy::expect_used,
    reason = "a constant that is a valid name; a test reads it"
)]
pub(super) fn dummy0() -> InterfaceName {
    "dummy0".parse().expect("dummy0 is a valid interface name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("30", 30),
            ("30s", 30),
            ("5m", 300),
            ("1h", 3600),
            ("2d", 2 * 86400),
            ("5 m", 300),
        ] {
            assert_eq!(
                Interval::parse(text).unwrap().get().as_secs(),
                seconds,
                "{text}"
            );
        }
        for text in ["", "0", "-1", "1w", "h", "99999999999d"] {
            assert!(Interval::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn at_least_three_may_go() {
        assert_eq!(MaxRemovals::default().of(1), 1);
        assert_eq!(MaxRemovals::default().of(8), 2);
        assert_eq!(MaxRemovals::default().of(100), 30);
        assert_eq!(MaxRemovals::Number(0).of(100), 0);
    }

    #[test]
    fn an_empty_host_means_every_address() {
        let listen: Listen = ":24368".parse().unwrap();
        assert_eq!(listen, Listen::Tcp("[::]:24368".parse().unwrap()));
        assert!("unix:relative".parse::<Listen>().is_err());
        assert_eq!(dummy0().as_str(), "dummy0");
    }
}
