use std::net::IpAddr;

use serde_json::Value;

use super::super::body::open;
use super::super::scalar::{FieldError, Fields, Read};
use super::mesh::decode_ibgp;
use super::symbols;
use crate::document::{Limits, Location, OwnPrefixes, RoutingPolicySpec, Rpki, RpkiServer};
use crate::model::{Bandwidth, Endpoint, Invalid, NodeType, Port, shown};
use crate::wire::{PolicyItem, WireError};

/// Reads `GET bird-config` (semantics, section 7). `node` may be missing, `policy` may not.
///
/// # Errors
/// The body has no `policy`, or a field breaks a rule, or a symbol is unknown; the field is named.
pub fn decode_policy(body: &[u8]) -> Result<PolicyItem, WireError> {
    let map = open(body, "policy", false)?;
    let root = Fields::new(&map);
    let Some(policy) = root.object("policy")? else {
        return Err(WireError::Missing { key: "policy" });
    };
    let node = root.object("node")?;
    let mut notes = Vec::new();
    let spec = RoutingPolicySpec {
        node_type: node
            .as_ref()
            .map(node_type)
            .transpose()?
            .unwrap_or_default(),
        location: node
            .as_ref()
            .map(|n| location(n, &mut notes))
            .transpose()?
            .unwrap_or_default(),
        prefixes: OwnPrefixes {
            ipv4: prefix(&policy, "dn42Ipv4Prefix")?,
            ipv6: prefix(&policy, "dn42Ipv6Prefix")?,
        },
        rpki: Rpki {
            servers: servers(&policy)?,
            reject_unknown: policy.flag("rejectUnknownRoa")?,
        },
        limits: limits(&policy)?,
    };
    Ok(PolicyItem {
        config_hash: root.prose("configHash")?,
        asn: policy.number("dn42As")?,
        spec,
        ibgp: root.array("ibgpPeers")?.map(|peers| decode_ibgp(peers)),
        notes,
    })
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

fn location(node: &Fields<'_>, notes: &mut Vec<String>) -> Read<Location> {
    Ok(Location {
        continent: symbol(node, "continentLc", symbols::continent)?,
        subregion: symbol(node, "subregionLc", |text| {
            symbols::region("LC_REGION_", text)
        })?,
        region_code: node.within("regionCode", 0, u64::from(u32::MAX))?,
        region_community: symbol(node, "regionCommunity", |text| {
            symbols::region("DN42_REGION_", text)
        })?,
        country: node.within("country", 1, 999)?,
        bandwidth: bandwidth(node, notes)?,
    })
}

fn symbol<T>(
    node: &Fields<'_>,
    key: &str,
    read: impl Fn(&str) -> Result<T, Invalid>,
) -> Read<Option<T>> {
    let parse = |text: String| read(text.trim()).map_err(|Invalid(why)| node.wrong(key, why));
    node.text(key)?.map(parse).transpose()
}

/// `bandwidth` is the value. The community is only its class, so it stands in when the value is
/// missing and is worth a note when the two contradict.
fn bandwidth(node: &Fields<'_>, notes: &mut Vec<String>) -> Read<Option<Bandwidth>> {
    let value: Option<Bandwidth> = node.parsed("bandwidth")?;
    let class = symbol(node, "bandwidthCommunity", symbols::bandwidth_class)?;
    if let (Some(value), Some(class)) = (value, class)
        && symbols::class(value) != symbols::class(class)
    {
        let field = node.path("bandwidthCommunity");
        notes.push(format!(
            "{field}: the class from {class} does not fit a bandwidth of {value}, which counts"
        ));
    }
    Ok(value.or(class))
}

/// A prefix without host bits: with them nobody can tell whether the length or the address is wrong.
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

fn limits(policy: &Fields<'_>) -> Read<Limits> {
    // Zero would block everything, which nobody means: it is as good as missing.
    let limit = |key| {
        Ok(policy
            .within(key, 0, u64::from(u32::MAX))?
            .filter(|limit: &u32| *limit > 0))
    };
    Ok(Limits {
        ebgp_import: limit("ebgpImportLimit")?,
        ebgp_export: limit("ebgpExportLimit")?,
        ibgp_import: limit("ibgpImportLimit")?,
        ibgp_export: limit("ibgpExportLimit")?,
        as_path_max_len: limit("asPathMaxLen")?,
    })
}

fn servers(policy: &Fields<'_>) -> Read<Vec<RpkiServer>> {
    let Some(items) = policy.array("rpkiServers")? else {
        return Ok(Vec::new());
    };
    items
        .iter()
        .enumerate()
        .map(|(index, item)| server(policy, index, item))
        .collect()
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
        Ok(RpkiServer {
            host: checked_host(&fields, host.trim(), port)?,
            port,
        })
    };
    read().map_err(within)
}

/// The host goes into BIRD's configuration, so it is a name or an address and nothing else.
fn checked_host(fields: &Fields<'_>, host: &str, port: Port) -> Read<String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() || format!("{host}:{port}").parse::<Endpoint>().is_ok() {
        return Ok(bare.to_owned());
    }
    Err(fields.wrong(
        "host",
        format!("must be a name or an address, not {}", shown(host)),
    ))
}
