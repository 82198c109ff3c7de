use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::FieldError;
use super::super::body::open;
use super::super::read::{Read, prose, read, read_rest};
use super::mesh::decode_ibgp;
use super::shapes::{BirdConfig, Digits, Policy, PolicyNode, RpkiServer as Server};
use super::symbols;
use crate::document::{Limits, Location, OwnPrefixes, RoutingPolicySpec, Rpki, RpkiServer};
use crate::model::{AddressRange, Bandwidth};
use crate::wire::{PolicyItem, RejectedField, WireError};

/// Fields that do not decode. The policy is used without them (docs/contract/safety.md#rule-11).
type Bad = Vec<RejectedField>;

/// The fields without which no policy is used, since the filters depend on them.
const NEEDED: [&str; 4] = [
    "node",
    "policy.dn42Ipv4Prefix",
    "policy.dn42Ipv6Prefix",
    RPKI_SERVERS,
];

const RPKI_SERVERS: &str = "policy.rpkiServers";

const EXTRA_RANGES: &str = "policy.extraRanges";

const BANDWIDTH: &str = "node.bandwidth";

const BANDWIDTH_COMMUNITY: &str = "node.bandwidthCommunity";

/// Fields of the document's specification as JSON pointers, by the fields from which they come.
const POINTERS: [(&str, &str); 15] = [
    ("node.type", "/nodeType"),
    ("node.continentLc", "/location/continent"),
    ("node.subregionLc", "/location/subregion"),
    ("node.regionCode", "/location/regionCode"),
    ("node.regionCommunity", "/location/regionCommunity"),
    ("node.country", "/location/country"),
    (BANDWIDTH, "/location/bandwidth"),
    (BANDWIDTH_COMMUNITY, "/location/bandwidth"),
    (EXTRA_RANGES, "/extraRanges"),
    ("policy.rejectUnknownRoa", "/rpki/rejectUnknown"),
    ("policy.ebgpImportLimit", "/limits/ebgpImport"),
    ("policy.ebgpExportLimit", "/limits/ebgpExport"),
    ("policy.ibgpImportLimit", "/limits/ibgpImport"),
    ("policy.ibgpExportLimit", "/limits/ibgpExport"),
    ("policy.asPathMaxLen", "/limits/asPathMaxLen"),
];

/// Reads `GET bird-config` (docs/contract/node-policy-mesh.md#policy). `node` may be missing, `policy` may not.
///
/// A bad field disables only that field and never the filters. Only a bad own prefix, and a list of RPKI servers
/// without a valid one, invalidate the policy: without them the filters would accept more than requested.
///
/// # Errors
/// The body has no `policy`, or a field that the filters depend on breaks a rule; the error names the field.
pub fn decode_policy(body: &[u8]) -> Result<PolicyItem, WireError> {
    let body = Value::Object(open(body, "policy", false)?);
    let (config, mut errors) = read_rest::<BirdConfig>(&body);
    let needed = |error: &FieldError| NEEDED.contains(&error.field.as_str());
    if let Some(place) = errors.iter().position(needed) {
        return Err(errors.swap_remove(place).into());
    }
    let Some(config) = config else {
        return Err(WireError::Missing { key: "policy" });
    };
    let mut bad: Bad = errors.into_iter().map(rejected).collect();
    let (node, policy) = (config.node.unwrap_or_default(), config.policy);
    let mut notes = Vec::new();
    let spec = RoutingPolicySpec {
        node_type: node.node_type.unwrap_or_default(),
        location: location(node, &mut notes, &mut bad),
        prefixes: prefixes(&policy)?,
        extra_ranges: items(EXTRA_RANGES, policy.extra_ranges.as_deref(), &mut bad),
        rpki: Rpki {
            servers: servers(policy.rpki_servers.as_deref(), &mut bad)?,
            reject_unknown: policy.reject_unknown_roa,
        },
        limits: limits(&policy),
    };
    Ok(PolicyItem {
        config_hash: prose(config.config_hash),
        asn: policy.dn42_as.map(|asn| asn.0),
        spec,
        ibgp: config.ibgp_peers.map(|peers| decode_ibgp(&peers)),
        notes,
        bad,
    })
}

fn rejected(error: FieldError) -> RejectedField {
    let pointer = POINTERS.iter().find(|(field, _)| *field == error.field);
    RejectedField {
        spec: pointer.map_or("", |(_, pointer)| pointer),
        field: error.field,
        message: error.message,
    }
}

/// Reads the items of a list without those that break a rule.
fn items<T: DeserializeOwned>(list: &str, items: Option<&[Value]>, bad: &mut Bad) -> Vec<T> {
    let mut read_items = Vec::new();
    for (index, item) in items.into_iter().flatten().enumerate() {
        match read(item) {
            Ok(item) => read_items.push(item),
            Err(error) => bad.push(rejected(error.below(&format!("{list}[{index}]")))),
        }
    }
    read_items
}

/// Returns the valid servers. A list without a valid server is an error: without a server origins would not be
/// validated at all.
fn servers(list: Option<&[Value]>, bad: &mut Bad) -> Read<Vec<RpkiServer>> {
    let before = bad.len();
    let servers: Vec<Server> = items(RPKI_SERVERS, list, bad);
    if servers.is_empty() && bad.len() > before {
        let RejectedField { field, message, .. } = bad.swap_remove(before);
        return Err(FieldError { field, message });
    }
    let servers = servers.into_iter().map(|server| RpkiServer {
        host: server.host,
        port: server.port.0,
    });
    Ok(servers.collect())
}

fn location(node: PolicyNode, notes: &mut Vec<String>, bad: &mut Bad) -> Location {
    Location {
        bandwidth: bandwidth(&node, notes, bad),
        continent: node.continent_lc,
        subregion: node.subregion_lc,
        region_code: node.region_code.map(|code| code.0),
        region_community: node.region_community,
        country: node.country,
    }
}

/// Returns the bandwidth. `bandwidth` is the value. The community is only its class: it is used when the value is
/// missing, and a contradiction between the two adds a note.
fn bandwidth(node: &PolicyNode, notes: &mut Vec<String>, bad: &mut Bad) -> Option<Bandwidth> {
    let (value, class) = (node.bandwidth, node.bandwidth_community);
    if value.is_some() {
        // A community that does not decode has no effect while the value is known.
        let community = bad.iter_mut().find(|bad| bad.field == BANDWIDTH_COMMUNITY);
        community.into_iter().for_each(|bad| bad.spec = "");
    }
    if let (Some(value), Some(class)) = (value, class)
        && symbols::class(value) != symbols::class(class)
    {
        notes.push(format!(
            "{BANDWIDTH_COMMUNITY}: the class from {class} does not match the bandwidth {value}; using the \
             bandwidth"
        ));
    }
    value.or(class)
}

/// Returns the own prefixes, each of its address family.
fn prefixes(policy: &Policy) -> Read<OwnPrefixes> {
    let wrong = |key: &str, example: &str, range: IpNet| {
        let message = format!("must be a prefix such as {example}, not {range}");
        FieldError::new(format!("policy.{key}"), message)
    };
    let ipv4 = match policy.dn42_ipv4_prefix.map(AddressRange::net) {
        None => None,
        Some(IpNet::V4(net)) => Some(net),
        Some(other) => return Err(wrong("dn42Ipv4Prefix", "172.23.105.176/28", other)),
    };
    let ipv6 = match policy.dn42_ipv6_prefix.map(AddressRange::net) {
        None => None,
        Some(IpNet::V6(net)) => Some(net),
        Some(other) => return Err(wrong("dn42Ipv6Prefix", "fd48:4da8:420::/48", other)),
    };
    Ok(OwnPrefixes { ipv4, ipv6 })
}

fn limits(policy: &Policy) -> Limits {
    // Zero would block every route, which no operator intends: it counts as missing.
    let limit = |limit: &Option<Digits<u32>>| {
        let limit = limit.as_ref().map(|limit| limit.0);
        limit.filter(|limit| *limit > 0)
    };
    Limits {
        ebgp_import: limit(&policy.ebgp_import_limit),
        ebgp_export: limit(&policy.ebgp_export_limit),
        ibgp_import: limit(&policy.ibgp_import_limit),
        ibgp_export: limit(&policy.ibgp_export_limit),
        as_path_max_len: limit(&policy.as_path_max_len),
    }
}
