use std::fmt;

use ipnet::{Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::document::{Kind, Spec};
use crate::model::{AddressRange, Bandwidth, Endpoint, Host, NodeType, Port};

/// Filters, limits, RPKI and classes (`GET bird-config`). What is missing or zero on
/// the wire is absent here, and what is absent has a safe default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutingPolicySpec {
    /// The node's role in the backbone.
    #[serde(default)]
    pub node_type: NodeType,
    /// Where the node is, for communities and cold potato.
    #[serde(default)]
    pub location: Location,
    /// Our own prefixes: originated here, refused from outside.
    #[serde(default)]
    pub prefixes: OwnPrefixes,
    /// Ranges that addresses of peers and loopbacks may be in, beside link-local addresses, ULA, 172.20.0.0/14
    /// and 10.0.0.0/8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["2001:db8:42::/48"])]
    pub extra_ranges: Vec<AddressRange>,
    /// Route origin validation.
    #[serde(default)]
    pub rpki: Rpki,
    /// Limits that protect us and our neighbours.
    #[serde(default)]
    pub limits: Limits,
}

impl Spec for RoutingPolicySpec {
    const KIND: Kind = Kind::RoutingPolicy;

    fn minimal() -> Value {
        json!({})
    }

    fn patch_example() -> Option<Value> {
        Some(json!({"limits": {"ebgpImport": 20000}}))
    }
}

/// Where the node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Continent, for large community `(our ASN, 1, continent)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continent: Option<Continent>,
    /// Subregion of the continent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subregion: Option<Region>,
    /// Our own number of the region, for large community `(our ASN, 2, region code)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 101)]
    pub region_code: Option<u32>,
    /// DN42's region, for community `(64511, 41..57)` on our own routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_community: Option<Region>,
    /// ISO 3166-1 numeric country code, for community `(64511, 1000 + code)` on our own routes.
    #[serde(
        default,
        deserialize_with = "super::rules::country",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 999), example = 392)]
    pub country: Option<u16>,
    /// Bandwidth of the node's uplink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

/// Our own prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnPrefixes {
    /// IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        regex(pattern = "^[0-9.]+/[0-9]{1,2}$"),
        example = "172.23.105.176/28"
    )]
    pub ipv4: Option<Ipv4Net>,
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<String>",
        regex(pattern = "^[0-9a-fA-F:.]+/[0-9]{1,3}$"),
        example = "fd48:4da8:420::/48"
    )]
    pub ipv6: Option<Ipv6Net>,
}

/// Route origin validation (RFC 6811).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rpki {
    /// Caches that speak RPKI-to-Router (RFC 8210); all are used.
    #[serde(default)]
    pub servers: Vec<RpkiServer>,
    /// Whether routes without a ROA are refused. Default: yes as soon as there is a server or a cached
    /// table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject_unknown: Option<bool>,
}

/// A cache that speaks RPKI-to-Router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RpkiServer {
    /// Name or address.
    #[schemars(example = "rpki.example.dn42")]
    pub host: Host,
    /// TCP port.
    pub port: Port,
}

impl RpkiServer {
    /// Returns the address on which it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// Limits that protect us and our neighbours; each applies to each address family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Prefixes taken from an external neighbour; more are blocked. Default: 9000.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), extend("default" = 9000))]
    pub ebgp_import: Option<u32>,
    /// Prefixes announced to an external neighbour before a warning. Default: none.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), example = 100)]
    pub ebgp_export: Option<u32>,
    /// Prefixes taken from an internal neighbour. Default: none.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), example = 50000)]
    pub ibgp_import: Option<u32>,
    /// Prefixes announced to an internal neighbour before a warning. Default: none.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), example = 50000)]
    pub ibgp_export: Option<u32>,
    /// Longest AS path taken from an external neighbour. Default: 10.
    #[serde(
        default,
        deserialize_with = "super::rules::positive_or_none",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1), extend("default" = 10))]
    pub as_path_max_len: Option<u32>,
}

/// A continent, as our large communities number it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Continent {
    /// Asia.
    As,
    /// North America.
    Na,
    /// Europe.
    Eu,
    /// Oceania.
    Oc,
    /// Elsewhere.
    Other,
}

/// A region, as DN42's communities number it (BGP communities, regions 41..57).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Region {
    Eu,
    NaE,
    NaC,
    NaW,
    CentralAmerica,
    SaE,
    SaW,
    AfN,
    AfS,
    AsS,
    AsSe,
    AsE,
    Oc,
    Antarctica,
    AsN,
    AsW,
    AsC,
}

impl Continent {
    /// All continents.
    pub const ALL: [Self; 5] = [Self::As, Self::Na, Self::Eu, Self::Oc, Self::Other];

    /// Returns the number in large community `(our ASN, 1, number)`.
    pub fn number(self) -> u32 {
        match self {
            Self::As => 1,
            Self::Na => 2,
            Self::Eu => 3,
            Self::Oc => 4,
            Self::Other => 5,
        }
    }
}

impl Region {
    /// All regions, in the order of their numbers from 41.
    pub const ALL: [Self; 17] = [
        Self::Eu,
        Self::NaE,
        Self::NaC,
        Self::NaW,
        Self::CentralAmerica,
        Self::SaE,
        Self::SaW,
        Self::AfN,
        Self::AfS,
        Self::AsS,
        Self::AsSe,
        Self::AsE,
        Self::Oc,
        Self::Antarctica,
        Self::AsN,
        Self::AsW,
        Self::AsC,
    ];

    /// Returns the number in community `(64511, number)`.
    pub fn number(self) -> u16 {
        41 + self as u16
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for Continent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_the_numbers_of_dn42() {
        for (region, number, name) in [
            (Region::Eu, 41, "EU"),
            (Region::NaE, 42, "NA_E"),
            (Region::AsE, 52, "AS_E"),
            (Region::AsC, 57, "AS_C"),
        ] {
            assert_eq!(
                (region.number(), region.to_string().as_str()),
                (number, name)
            );
        }
        assert!(
            Region::ALL
                .iter()
                .zip(41..)
                .all(|(region, number)| region.number() == number)
        );
    }
}
