use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::document::{Kind, Spec};
use crate::model::{Asn, LinkLocal};

/// Who this router is (`GET config`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Number of the router in its network, 1..65535.
    #[serde(deserialize_with = "super::rules::positive")]
    #[schemars(range(min = 1), example = 1)]
    pub id: u16,
    /// This router's AS number.
    pub asn: Asn,
    /// The router's place, as free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "ap-northeast")]
    pub region: Option<String>,
    /// The loopback IPv4 address; the router id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "172.23.105.177")]
    pub loopback_ipv4: Option<Ipv4Addr>,
    /// The loopback IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = "fd48:4242:420::1")]
    pub loopback_ipv6: Option<Ipv6Addr>,
    /// This router's side of every tunnel. Default: `fe80::<last four digits of the ASN>:<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_local: Option<LinkLocal>,
}

impl Spec for NodeSpec {
    const KIND: Kind = Kind::Node;

    fn minimal() -> Value {
        json!({"id": 1, "asn": 4_242_420_000u32})
    }

    fn patch_example() -> Option<Value> {
        Some(json!({"linkLocal": "fe80::998:1"}))
    }
}

impl NodeSpec {
    /// Returns the link-local address of this router in every tunnel.
    pub fn link_local(&self) -> LinkLocal {
        self.link_local
            .unwrap_or_else(|| LinkLocal::derived(self.asn, self.id))
    }

    /// Returns the BGP identifier (RFC 6286): the IPv4 loopback, else `10.255.x.y` derived from the node id.
    pub fn router_id(&self) -> Ipv4Addr {
        let [high, low] = self.id.to_be_bytes();
        self.loopback_ipv4
            .unwrap_or_else(|| Ipv4Addr::new(10, 255, high, low))
    }
}
