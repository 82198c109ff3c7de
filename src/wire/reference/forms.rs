//! Fields of the dialect whose forms or rules are not those of their types.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::super::read::read;
use crate::model::{Extension, Invalid, PresharedKey, PublicKey, Secret, shown};

/// Reads a text with a rule of its own.
pub(super) fn text<'de, D: Deserializer<'de>, T>(
    d: D,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    let parsed = text.map(|text| parse(&text)).transpose();
    parsed.map_err(D::Error::custom)
}

fn address<A: FromStr>(
    text: &str,
    suffix: &str,
    family: &str,
    is_special: impl Fn(&A) -> bool,
) -> Result<A, Invalid> {
    let address = text.strip_suffix(suffix).unwrap_or(text).parse().ok();
    address
        .filter(|address| !is_special(address))
        .ok_or_else(|| {
            let text = shown(text);
            Invalid(format!(
                "must be the {family} address of a host, not {text}"
            ))
        })
}

/// Reads the IPv4 address of a host; a `/32` is dropped.
pub(super) fn ipv4<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Ipv4Addr>, D::Error> {
    let is_special = |a: &Ipv4Addr| {
        a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_broadcast()
    };
    text(d, |text| address(text, "/32", "IPv4", is_special))
}

/// Reads the IPv6 address of a host; a `/128` is dropped.
pub(super) fn ipv6<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Ipv6Addr>, D::Error> {
    let is_special = |a: &Ipv6Addr| a.is_unspecified() || a.is_loopback() || a.is_multicast();
    text(d, |text| address(text, "/128", "IPv6", is_special))
}

/// Reads a public key. The error of the model shows a text that is not base64; here that may be a secret.
pub(super) fn public_key<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PublicKey>, D::Error> {
    const RULE: &str = "invalid public key: use 32 bytes in base64 (44 characters)";
    text(d, |text| text.parse().map_err(|_| Invalid::new(RULE)))
}

pub(super) fn preshared_key<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<PresharedKey>, D::Error> {
    text(d, PresharedKey::from_base64)
}

/// Reads a BGP password (RFC 2385): at most 80 printable bytes. Blanks around it count. The error never shows it.
pub(super) fn password<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Secret<String>>, D::Error> {
    let is_password = |text: &String| {
        (1..=80).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    };
    match Value::deserialize(d)? {
        Value::Null => Ok(None),
        Value::String(text) if is_password(&text) => Ok(Some(Secret::new(text))),
        _ => Err(D::Error::custom(
            "must be a text of 1..80 printable ASCII characters",
        )),
    }
}

/// Reads the extensions from an array of words, or from one text with commas.
pub(super) fn extensions<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<BTreeSet<Extension>>, D::Error> {
    let words = match Value::deserialize(d)? {
        Value::String(text) => {
            let words = text.split(',').map(str::trim);
            words.filter(|word| !word.is_empty()).collect()
        }
        other => other,
    };
    read(&words).map_err(|error| D::Error::custom(error.message))
}
