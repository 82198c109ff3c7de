//! Parses the symbolic names of the routing policy (docs/contract/node-policy-mesh.md#symbolic-names).

use serde::Deserializer;

use super::forms::text;
use crate::document::{Continent, Region};
use crate::model::{Bandwidth, Invalid, shown};

/// Names in use besides the names of `Region`.
const ALIASES: [(&str, Region); 19] = [
    ("EUROPE", Region::Eu),
    ("C_AMERICA", Region::CentralAmerica),
    ("AMERICA_C", Region::CentralAmerica),
    ("CA", Region::CentralAmerica),
    ("SA_C", Region::CentralAmerica),
    ("OCEANIA", Region::Oc),
    ("PACIFIC", Region::Oc),
    ("PACIFIC_OCEANIA", Region::Oc),
    ("AQ", Region::Antarctica),
    ("AN", Region::Antarctica),
    ("C_ASIA", Region::AsC),
    ("ASIA_C", Region::AsC),
    ("CENTRAL_ASIA", Region::AsC),
    ("ASIA_S", Region::AsS),
    ("ASIA_SE", Region::AsSe),
    ("ASIA_E", Region::AsE),
    ("ASIA_N", Region::AsN),
    ("ASIA_W", Region::AsW),
    ("AFRICA_N", Region::AfN),
];

/// Parses a continent such as `LC_ORIGIN_AS`.
fn continent(text: &str) -> Result<Continent, Invalid> {
    let name = text.strip_prefix("LC_ORIGIN_");
    let known = name.and_then(|name| Continent::ALL.into_iter().find(|c| c.to_string() == name));
    known.ok_or_else(|| {
        Invalid(format!(
            "must be LC_ORIGIN_ and one of AS, NA, EU, OC, OTHER, not {}",
            shown(text)
        ))
    })
}

/// Parses a region such as `LC_REGION_AS_E`, with this prefix.
fn region(prefix: &str, text: &str) -> Result<Region, Invalid> {
    let known = text.strip_prefix(prefix).and_then(region_named);
    known.ok_or_else(|| {
        let all: Vec<String> = Region::ALL.iter().map(Region::to_string).collect();
        Invalid(format!(
            "must be {prefix} and one of {}, not {}",
            all.join(", "),
            shown(text)
        ))
    })
}

fn region_named(name: &str) -> Option<Region> {
    let alias = || {
        ALIASES
            .into_iter()
            .find(|(alias, _)| *alias == name)
            .map(|(_, region)| region)
    };
    Region::ALL
        .into_iter()
        .find(|region| region.to_string() == name)
        .or_else(alias)
}

/// Reads `continentLc`.
pub(super) fn read_continent<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Continent>, D::Error> {
    text(d, continent)
}

/// Reads `subregionLc`.
pub(super) fn read_subregion<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Region>, D::Error> {
    text(d, |text| region("LC_REGION_", text))
}

/// Reads `regionCommunity`.
pub(super) fn read_community<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Region>, D::Error> {
    text(d, |text| region("DN42_REGION_", text))
}

/// Reads `bandwidthCommunity`.
pub(super) fn read_bandwidth<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Bandwidth>, D::Error> {
    text(d, bandwidth_class)
}

/// Parses `DN42_BW_1G_PLUS`, and returns the lowest bandwidth of the class.
fn bandwidth_class(text: &str) -> Result<Bandwidth, Invalid> {
    let name = text
        .strip_prefix("DN42_BW_")
        .and_then(|rest| rest.strip_suffix("_PLUS"));
    let parse = |name: &str| match name.strip_suffix('K') {
        Some(_) if name == "100K" => "0.1M".parse().ok(),
        _ => name
            .parse()
            .ok()
            .filter(|bandwidth: &Bandwidth| bandwidth.to_string() == name),
    };
    name.and_then(parse).ok_or_else(|| {
        Invalid(format!(
            "must be DN42_BW_, a bandwidth such as 100M or 1G, and _PLUS, not {}",
            shown(text)
        ))
    })
}

/// Returns DN42's class of a bandwidth, 21..25; the last begins at 1 Gbit/s.
pub(super) fn class(bandwidth: Bandwidth) -> u8 {
    match bandwidth.kbit() {
        1_000_000.. => 25,
        100_000.. => 24,
        10_000.. => 23,
        1_000.. => 22,
        _ => 21,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_its_symbol() {
        for known in Region::ALL {
            assert_eq!(
                region("DN42_REGION_", &format!("DN42_REGION_{known}")),
                Ok(known)
            );
        }
        assert_eq!(
            region("DN42_REGION_", "DN42_REGION_OCEANIA"),
            Ok(Region::Oc)
        );
        assert_eq!(
            region("DN42_REGION_", "DN42_REGION_C_ASIA"),
            Ok(Region::AsC)
        );
        assert_eq!(continent("LC_ORIGIN_OTHER"), Ok(Continent::Other));
    }

    #[test]
    fn an_unknown_symbol_is_refused() {
        assert!(region("DN42_REGION_", "DN42_REGION_MARS").is_err());
        assert!(region("DN42_REGION_", "LC_REGION_AS_E").is_err());
        assert!(region("LC_REGION_", "AS_E").is_err());
        assert!(continent("LC_ORIGIN_").is_err());
        for text in [
            "DN42_BW_",
            "DN42_BW_1G",
            "DN42_BW_G_PLUS",
            "1G",
            "DN42_BW_01G_PLUS",
            "DN42_BW_5K_PLUS",
        ] {
            assert!(bandwidth_class(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bandwidth_class_has_the_number_of_dn42() {
        let classes = [
            ("100K", 21),
            ("1M", 22),
            ("10M", 23),
            ("100M", 24),
            ("1G", 25),
            ("10G", 25),
        ];
        for (name, number) in classes {
            assert_eq!(
                bandwidth_class(&format!("DN42_BW_{name}_PLUS")).map(class),
                Ok(number),
                "{name}"
            );
        }
    }
}
