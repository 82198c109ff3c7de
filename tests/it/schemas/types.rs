//! Whatever text a type takes, it writes a text that means the same and that its schema allows.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use moenet_agent::model::{
    Bandwidth, Endpoint, InterfaceName, LinkLocal, ObjectName, PeerIpv6, PublicKey, Uid,
};
use proptest::prelude::*;
use schemars::JsonSchema;

fn holds<T>(text: &str) -> Result<(), TestCaseError>
where
    T: FromStr + Display + Debug + PartialEq + JsonSchema + serde::Serialize,
{
    let Ok(value) = text.parse::<T>() else {
        return Ok(());
    };
    let written = value.to_string();
    prop_assert_eq!(
        written.parse::<T>().ok(),
        Some(value),
        "{} reads back as another",
        written
    );
    let schema = schemars::schema_for!(T).to_value();
    let validator = jsonschema::validator_for(&schema).unwrap();
    prop_assert!(
        validator.is_valid(&written.clone().into()),
        "the schema refuses {written}"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names(text in r"[A-Za-z0-9_.\-é/ ]{0,50}") {
        holds::<InterfaceName>(&text)?;
        holds::<ObjectName>(&text)?;
        holds::<Uid>(&text)?;
    }

    #[test]
    fn sanitised_names_are_names(text in r"\PC{0,80}") {
        holds::<ObjectName>(ObjectName::sanitised(&text).as_str())?;
    }

    #[test]
    fn bandwidths(text in r"[0-9]{1,7}(\.[0-9]{0,3})?[MmGg]") {
        holds::<Bandwidth>(&text)?;
    }

    #[test]
    fn addresses(a in any::<u128>(), near in any::<u64>()) {
        let link_local = std::net::Ipv6Addr::from((0xfe80u128 << 112) | u128::from(near));
        for address in [std::net::Ipv6Addr::from(a), link_local, std::net::Ipv4Addr::from(near as u32).to_ipv6_mapped()] {
            holds::<PeerIpv6>(&address.to_string())?;
            holds::<LinkLocal>(&address.to_string())?;
            holds::<LinkLocal>(&format!("{address}/64"))?;
        }
    }

    #[test]
    fn endpoints(host in r"([A-Za-z0-9_\-]{1,5}\.){0,3}[a-z]{1,4}\.?|[0-9]{1,3}(\.[0-9]{1,3}){3}", port in any::<u16>(), v6 in any::<u128>()) {
        holds::<Endpoint>(&format!("{host}:{port}"))?;
        holds::<Endpoint>(&format!("[{}]:{port}", std::net::Ipv6Addr::from(v6)))?;
    }

    #[test]
    fn keys(bytes in any::<[u8; 32]>()) {
        holds::<PublicKey>(&PublicKey::new(bytes).to_string())?;
    }
}
