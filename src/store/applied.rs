use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{ApiVersion, Kind, Metadata, NodeSpec, PackedSpec};
use crate::model::{InterfaceName, Port};
use crate::util::sorted::Sorted as _;

/// Applied record of one object. Written before the first step and removed after the last one, so
/// it is also the finalizer: what it names is found again after a crash at any point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppliedDocument {
    /// The document's schema version.
    pub api_version: ApiVersion,
    /// The object's kind.
    pub kind: Kind,
    /// The object, and the applied generation of its document.
    pub metadata: Metadata,
    /// The applied state.
    pub applied: AppliedBody,
}

/// The applied state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppliedBody {
    /// Every interface that is or was claimed for the object and not yet proved gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub interfaces: BTreeSet<InterfaceName>,
    /// The link that is about to be created: a crash between creating and marking it leaves an unmarked
    /// link of this name, which is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creating: Option<InterfaceName>,
    /// BIRD's protocols of the object.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(example = ["ebgp_wg_4242421080"])]
    pub protocols: BTreeSet<String>,
    /// Content of the agent's table in nftables; of the node alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<AppliedFirewall>,
    /// Sysctls of all links together that were changed, each with its value before; of the node alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, i64>,
    /// Addresses that the agent added to `lo`: it removes no others there. Of the node alone; missing in records of
    /// earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = ["172.23.105.177", "fd48:4242:420::1"])]
    pub loopback_addresses: Option<BTreeSet<IpAddr>>,
    /// The override that shaped the specification.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub overridden: Option<AppliedOverride>,
    /// The last applied effective specification. It names files in `secrets/` and holds no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Map<String, Value>>", example = serde_json::json!({"asn": 4242421080u32}))]
    pub spec: Option<PackedSpec>,
}

impl AppliedBody {
    /// Returns the addresses on `lo` that belong to the agent. A record of an earlier build has
    /// only the addresses in effect, and their interface.
    pub fn added_to_lo(&self) -> BTreeSet<IpAddr> {
        if let Some(added) = &self.loopback_addresses {
            return added.clone();
        }
        let on_lo = self.interfaces.iter().any(|name| name.as_str() == "lo");
        let spec = self.spec.as_ref().filter(|_| on_lo);
        let node = spec.and_then(|spec| spec.read::<NodeSpec>().ok());
        let Some(node) = node else {
            return BTreeSet::new();
        };
        let (v4, v6) = (
            node.loopback_ipv4.map(IpAddr::from),
            node.loopback_ipv6.map(IpAddr::from),
        );
        v4.into_iter().chain(v6).sorted_set()
    }

    /// Claims another interface instead of this one, which could not be created. Everything else stays, also on which
    /// addresses on `lo` the agent added.
    pub(crate) fn claim_instead(
        &mut self,
        before: Option<&InterfaceName>,
        interface: InterfaceName,
    ) {
        let added = self.added_to_lo();
        self.loopback_addresses = Some(added);
        if let Some(before) = before {
            self.interfaces.remove(before);
            self.creating = self.creating.take().filter(|creating| creating != before);
        }
        self.interfaces.insert(interface);
    }
}

/// Content of the agent's table in nftables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppliedFirewall {
    /// The UDP ports it accepts.
    pub ports: BTreeSet<Port>,
    /// The tunnels whose TCP connections get a fitting MSS.
    pub tunnels: BTreeSet<InterfaceName>,
}

/// The override in the applied state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppliedOverride {
    /// The operator's reason.
    #[schemars(example = "their side is on PPPoE until January")]
    pub reason: String,
    /// When it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"), example = "2027-01-31T00:00:00Z")]
    pub expires_at: Option<Timestamp>,
    /// The fields it sets, as `spec.tunnel.mtu`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["spec.tunnel.mtu"])]
    pub fields: Vec<String>,
}

impl AppliedDocument {
    /// Creates a document of the latest version.
    pub fn new(kind: Kind, metadata: Metadata, applied: AppliedBody) -> Self {
        Self {
            api_version: ApiVersion::V1,
            kind,
            metadata,
            applied,
        }
    }
}

/// The schema of the documents below `applied/`, as in `schemas/Applied.json`.
pub fn applied_schema() -> Value {
    crate::document::root_schema::<AppliedDocument>("Applied")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{parse_value, to_yaml};
    use serde_json::json;

    #[test]
    fn earlier_record_derives_lo_addresses_from_its_spec() {
        let spec = json!({"id": 1, "asn": 4242420998u64, "loopbackIpv4": "172.20.0.1"});
        let mut body = AppliedBody {
            spec: Some(PackedSpec::from(&spec)),
            ..AppliedBody::default()
        };
        assert!(body.added_to_lo().is_empty(), "not on lo");
        body.interfaces.insert("lo".parse().unwrap());
        assert_eq!(body.added_to_lo(), ["172.20.0.1".parse().unwrap()].into());
        body.loopback_addresses = Some(BTreeSet::new());
        assert!(body.added_to_lo().is_empty(), "the agent found it there");
    }

    #[test]
    fn what_is_in_effect_reads_back_as_written() {
        let spec = json!({"asn": 4242421080u64, "description": "123", "tunnel": {"endpoint": "no", "mtu": 1420}, "x": [true, "true"], "t": "2027-01-31T00:00:00Z", "n": "~"});
        let applied = AppliedBody {
            interfaces: ["wg_1".parse().unwrap()].into(),
            creating: Some("wg_2".parse().unwrap()),
            protocols: ["bgp_1".to_owned()].into(),
            firewall: Some(AppliedFirewall {
                ports: [Port::MIN].into(),
                tunnels: ["wg_1".parse().unwrap()].into(),
            }),
            sysctls: [("ipv4.rp_filter".to_owned(), 1)].into(),
            loopback_addresses: Some(["172.20.0.1".parse().unwrap()].into()),
            overridden: Some(AppliedOverride {
                reason: "y: #x".into(),
                expires_at: None,
                fields: vec!["spec.mtu".into()],
            }),
            spec: Some(PackedSpec::from(&spec)),
        };
        let metadata = Metadata {
            name: "wg_1".parse().unwrap(),
            uid: None,
            generation: 3,
        };
        let document = AppliedDocument::new(Kind::BgpSession, metadata, applied);
        let text = to_yaml(&document).unwrap();
        assert_eq!(
            parse_value::<AppliedDocument>(&text).unwrap(),
            document,
            "{text}"
        );
        assert_eq!(
            to_yaml(&parse_value::<AppliedDocument>(&text).unwrap()).unwrap(),
            text
        );
    }
}
