use std::str::FromStr as _;

use serde_json::Value;

use super::super::FieldError;
use super::super::body::open;
use super::super::scalar::{Fields, Read};
use super::mesh::decode_ibgp;
use super::symbols;
use crate::document::{Limits, Location, OwnPrefixes, RoutingPolicySpec, Rpki, RpkiServer};
use crate::model::{AddressRange, Bandwidth, Host, Invalid, NodeType, shown};
use crate::wire::{PolicyItem, RejectedField, WireError};

/// Fields that do not decode. The policy is used without them (docs/contract/safety.md#rule-11).
type Bad = Vec<RejectedField>;

/// Reads `GET bird-config` (docs/contract/node-policy-mesh.md#policy). `node` may be missing, `policy` may not.
///
/// A bad field disables only that field and never the filters. Only a bad own prefix, and a list of RPKI servers
/// without a valid one, invalidate the policy: without them the filters would accept more than requested.
///
/// # Errors
/// The body has no `policy`, or a field that the filters depend on breaks a rule; the error names the field.
pub fn decode_policy(body: &[u8]) -> Result<PolicyItem, WireError> {
    let map = open(body, "policy", false)?;
    let root = Fields::new(&map);
    let Some(policy) = root.object("policy")? else {
        return Err(WireError::Missing { key: "policy" });
    };
    let (mut notes, mut bad) = (Vec::new(), Bad::new());
    let node = root.object("node")?;
    let spec = RoutingPolicySpec {
        node_type: node
            .as_ref()
            .and_then(|node| optional(node_type(node).map(Some), "/nodeType", &mut bad))
            .unwrap_or_default(),
        location: node
            .as_ref()
            .map(|node| location(node, &mut notes, &mut bad))
            .unwrap_or_default(),
        prefixes: OwnPrefixes {
            ipv4: prefix(&policy, "dn42Ipv4Prefix")?,
            ipv6: prefix(&policy, "dn42Ipv6Prefix")?,
        },
        extra_ranges: extra_ranges(&policy, &mut bad),
        rpki: Rpki {
            servers: servers(&policy, &mut bad)?,
            reject_unknown: optional(
                policy.flag("rejectUnknownRoa"),
                "/rpki/rejectUnknown",
                &mut bad,
            ),
        },
        limits: limits(&policy, &mut bad),
    };
    Ok(PolicyItem {
        config_hash: optional(root.prose("configHash"), "", &mut bad),
        asn: optional(policy.number("dn42As"), "", &mut bad),
        spec,
        ibgp: optional(root.array("ibgpPeers"), "", &mut bad).map(|peers| decode_ibgp(peers)),
        notes,
        bad,
    })
}

/// Returns the value of a field, or `None` and adds a field that does not decode to `bad`. `spec` is the JSON
/// pointer of the field in the document, empty when it has none.
fn optional<T>(read: Read<Option<T>>, spec: &'static str, bad: &mut Bad) -> Option<T> {
    match read {
        Ok(value) => value,
        Err(error) => {
            bad.push(RejectedField {
                field: error.field,
                message: error.message,
                spec,
            });
            None
        }
    }
}

fn node_type(node: &Fields<'_>) -> Read<NodeType> {
    match node.text("type")?.as_deref() {
        None | Some("edge") => Ok(NodeType::Edge),
        Some("rr") => Ok(NodeType::Rr),
        Some("client") => Ok(NodeType::Client),
        Some(other) => Err(node.wrong(
            "type",
            format!("must be edge, rr or client, not {}", shown(other)),
        )),
    }
}

fn location(node: &Fields<'_>, notes: &mut Vec<String>, bad: &mut Bad) -> Location {
    let subregion = |text: &str| symbols::region("LC_REGION_", text);
    let region = |text: &str| symbols::region("DN42_REGION_", text);
    let continent = symbol(node, "continentLc", symbols::continent);
    let code = node.within("regionCode", 0, u64::from(u32::MAX));
    Location {
        continent: optional(continent, "/location/continent", bad),
        subregion: optional(
            symbol(node, "subregionLc", subregion),
            "/location/subregion",
            bad,
        ),
        region_code: optional(code, "/location/regionCode", bad),
        region_community: optional(
            symbol(node, "regionCommunity", region),
            "/location/regionCommunity",
            bad,
        ),
        country: optional(node.within("country", 1, 999), "/location/country", bad),
        bandwidth: bandwidth(node, notes, bad),
    }
}

fn symbol<T>(
    node: &Fields<'_>,
    key: &str,
    read: impl Fn(&str) -> Result<T, Invalid>,
) -> Read<Option<T>> {
    let parse = |text: String| read(text.trim()).map_err(|Invalid(why)| node.wrong(key, why));
    node.text(key)?.map(parse).transpose()
}

/// Returns the bandwidth. `bandwidth` is the value. The community is only its class: it is used when the value is
/// missing, and a contradiction between the two adds a note.
fn bandwidth(node: &Fields<'_>, notes: &mut Vec<String>, bad: &mut Bad) -> Option<Bandwidth> {
    const SPEC: &str = "/location/bandwidth";
    let value: Option<Bandwidth> = optional(node.parsed("bandwidth"), SPEC, bad);
    let class = symbol(node, "bandwidthCommunity", symbols::bandwidth_class);
    // A community that does not decode has no effect while the value is known.
    let class = optional(class, if value.is_some() { "" } else { SPEC }, bad);
    if let (Some(value), Some(class)) = (value, class)
        && symbols::class(value) != symbols::class(class)
    {
        let field = node.path("bandwidthCommunity");
        notes.push(format!(
            "{field}: the class from {class} does not match the bandwidth {value}; using the \
             bandwidth"
        ));
    }
    value.or(class)
}

/// Returns further address ranges; an item that is no prefix is skipped.
fn extra_ranges(policy: &Fields<'_>, bad: &mut Bad) -> Vec<AddressRange> {
    const KEY: &str = "extraRanges";
    let items = optional(policy.array(KEY), "/extraRanges", bad);
    let mut ranges = Vec::new();
    for (index, item) in items.into_iter().flatten().enumerate() {
        let parsed = match item {
            Value::String(text) => AddressRange::from_str(text.trim()),
            other => Err(Invalid::new(format!("must be a prefix, not {other}"))),
        };
        let range = parsed.map_err(|Invalid(why)| policy.wrong(&format!("{KEY}[{index}]"), why));
        ranges.extend(optional(range.map(Some), "", bad));
    }
    ranges
}

/// Returns a prefix without host bits: with host bits it is unknown whether the length or the address is wrong.
fn prefix<P: PrefixText>(policy: &Fields<'_>, key: &str) -> Read<Option<P>> {
    let parse = |text: String| {
        let net: P = text.trim().parse().map_err(|_| {
            policy.wrong(
                key,
                format!(
                    "must be a prefix such as {}, not {}",
                    P::EXAMPLE,
                    shown(&text)
                ),
            )
        })?;
        let whole = net.without_host_bits();
        if whole == net {
            return Ok(net);
        }
        Err(policy.wrong(
            key,
            format!("{net} has bits set after its length; did you mean {whole}?"),
        ))
    };
    policy.text(key)?.map(parse).transpose()
}

/// Both address families of a prefix.
trait PrefixText: std::str::FromStr + PartialEq + std::fmt::Display {
    const EXAMPLE: &str;
    fn without_host_bits(&self) -> Self;
}

impl PrefixText for ipnet::Ipv4Net {
    const EXAMPLE: &str = "172.23.105.176/28";
    fn without_host_bits(&self) -> Self {
        self.trunc()
    }
}

impl PrefixText for ipnet::Ipv6Net {
    const EXAMPLE: &str = "fd48:4da8:420::/48";
    fn without_host_bits(&self) -> Self {
        self.trunc()
    }
}

fn limits(policy: &Fields<'_>, bad: &mut Bad) -> Limits {
    // Zero would block every route, which no operator intends: it counts as missing.
    let mut limit = |key, spec| {
        optional(policy.within(key, 0, u64::from(u32::MAX)), spec, bad)
            .filter(|limit: &u32| *limit > 0)
    };
    Limits {
        ebgp_import: limit("ebgpImportLimit", "/limits/ebgpImport"),
        ebgp_export: limit("ebgpExportLimit", "/limits/ebgpExport"),
        ibgp_import: limit("ibgpImportLimit", "/limits/ibgpImport"),
        ibgp_export: limit("ibgpExportLimit", "/limits/ibgpExport"),
        as_path_max_len: limit("asPathMaxLen", "/limits/asPathMaxLen"),
    }
}

/// Returns the valid servers. A list without a valid server is an error: without a server origins would not be
/// validated at all.
fn servers(policy: &Fields<'_>, bad: &mut Bad) -> Read<Vec<RpkiServer>> {
    let items = policy.array("rpkiServers")?;
    let (mut servers, mut errors) = (Vec::new(), Vec::new());
    for (index, item) in items.into_iter().flatten().enumerate() {
        match server(policy, index, item) {
            Ok(server) => servers.push(server),
            Err(error) => errors.push(error),
        }
    }
    if servers.is_empty() && !errors.is_empty() {
        return Err(errors.swap_remove(0));
    }
    for error in errors {
        optional::<RpkiServer>(Err(error), "", bad);
    }
    Ok(servers)
}

fn server(policy: &Fields<'_>, index: usize, item: &Value) -> Read<RpkiServer> {
    let place = policy.path(&format!("rpkiServers[{index}]"));
    let within = |error: FieldError| FieldError {
        field: format!("{place}.{}", error.field),
        ..error
    };
    let Value::Object(map) = item else {
        let message = "must be an object with host and port".to_owned();
        return Err(FieldError {
            field: place,
            message,
        });
    };
    let fields = Fields::new(map);
    let read = || {
        let host = fields.required("host", fields.text("host")?)?;
        let port = fields.required("port", fields.number("port")?)?;
        let host = Host::from_str(host.trim()).map_err(|Invalid(why)| fields.wrong("host", why))?;
        Ok(RpkiServer { host, port })
    };
    read().map_err(within)
}
