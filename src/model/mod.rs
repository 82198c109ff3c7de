//! The domain types: newtypes that are validated once, when they are parsed.
//!
//! No code outside this folder checks an AS number, an interface name or a key again. Every type
//! parses with [`std::str::FromStr`] or `TryFrom`, serialises as the text that an operator writes,
//! and carries its own JSON Schema, so that the rule, the error and the schema are in one place.

mod address;
mod asn;
mod class;
mod endpoint;
mod identity;
mod interface;
mod key;
mod kind;
mod limits;
mod name;
mod object_key;
mod plain;
mod prefix;
mod range;
mod roa;
mod router_key;
mod secret;
mod tunnel;

pub use address::Address;
pub use asn::Asn;
pub use class::ErrorClass;
pub use endpoint::{Endpoint, Host};
pub use identity::Identity;
pub use interface::InterfaceName;
pub use key::{PresharedKey, PrivateKey, PublicKey};
pub use kind::Kind;
pub use limits::{Bandwidth, Mtu, Port};
pub use name::{ObjectName, Uid};
pub use object_key::ObjectKey;
pub(crate) use plain::{plain_key, without_keys, without_secret_keys};
pub use prefix::{LinkLocal, PeerIpv6};
pub(crate) use range::{AddressRange, is_dn42};
pub use roa::RoaTable;
pub use router_key::RouterKey;
pub use secret::Secret;
pub use tunnel::{AdminState, Extension, NodeType, PeeringPolicy, TunnelType};

/// The reason why a text or number is not a value of a type. The message continues the sentence
/// after the name of the field: "`spec.tunnel.mtu`: must be between 1280 and 9000, not 70000".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// Returns an error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Returns whether a character is visible and changes nothing else on a line: no control character, and none that hides or
/// reverses text.
pub(crate) fn is_visible(c: char) -> bool {
    let invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !invisible
}

/// Returns untrusted text in the form for an error: quoted, escaped, without keys, and cut to 80
/// characters.
pub(crate) fn shown(text: &str) -> String {
    let text = without_keys(text);
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// Implements serde and JSON Schema for a type that is a text with a rule, through `Display` and
/// `FromStr`.
macro_rules! text_type {
    ($type:ty, $name:literal, $schema:tt) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

/// Implements serde and JSON Schema for a type that is a whole number with a rule, through
/// `TryFrom<u64>`.
macro_rules! number_type {
    ($type:ty, $name:literal, $schema:tt) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_u64(u64::from(self.get()))
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let number = u64::deserialize(d)?;
                Self::try_from(number).map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

pub(crate) use {number_type, text_type};
