use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::shared::SharedVariables;
use super::some;
use crate::document::RpkiServer;
use crate::model::{Endpoint, NodeType};
use crate::observed::bird::Provided;
use crate::render::input::{DEFAULT_IMPORT_LIMIT, DEFAULT_MAX_PATH};
use crate::render::{BaseInput, Features, place};
use crate::util::sorted::Sorted as _;

/// The variables of every template.
#[derive(Debug, Serialize)]
pub(in crate::render) struct Base<'a> {
    bird: Features,
    router: Node<'a>,
    own: Own,
    location: Place,
    pub(in crate::render) limits: Bounds,
    rpki: Validation,
    has_policy: bool,
    drained: bool,
    operator: Provided,
    loopback_interface: &'a str,
    #[serde(flatten)]
    shared: SharedVariables<'a>,
}

/// The router.
#[derive(Debug, Serialize)]
struct Node<'a> {
    name: &'a str,
    id: u16,
    asn: u32,
    router_id: Ipv4Addr,
    loopback_ipv4: Option<Ipv4Addr>,
    loopback_ipv6: Option<Ipv6Addr>,
    reflector: bool,
}

/// The networks of this router: the announced prefix, and all prefixes that external neighbours may not announce.
#[derive(Debug, Serialize)]
struct Own {
    ipv4: Option<Ipv4Net>,
    ipv6: Option<Ipv6Net>,
    refused_ipv4: Vec<IpNet>,
    refused_ipv6: Vec<IpNet>,
}

/// The location of the router.
#[derive(Debug, Serialize)]
struct Place {
    continent: Option<u32>,
    neighbouring: Vec<u32>,
    region: Option<u32>,
    region_community: Option<u16>,
    country_community: Option<u16>,
    mbit: Option<u32>,
}

/// Limits with their defaults.
#[derive(Debug, Clone, Copy, Serialize)]
pub(in crate::render) struct Bounds {
    pub(super) ebgp_import: u32,
    pub(super) ebgp_export: Option<u32>,
    ibgp_import: Option<u32>,
    ibgp_export: Option<u32>,
    max_path: u32,
}

/// Route origin validation.
#[derive(Debug, Serialize)]
struct Validation {
    active: bool,
    reject_unknown: bool,
    cached_ipv4: bool,
    cached_ipv6: bool,
    servers: Vec<Server>,
}

/// An RPKI cache.
#[derive(Debug, Serialize)]
struct Server {
    protocol: String,
    host: String,
    address: IpAddr,
    port: u16,
}

impl<'a> Base<'a> {
    pub(in crate::render) fn new(input: &BaseInput<'a>) -> Self {
        let reflector = input.policy.node_type == NodeType::Rr;
        let router = input.router;
        Self {
            bird: input.features,
            router: Node {
                name: &router.name,
                id: router.id,
                asn: router.asn.get(),
                router_id: router.router_id,
                loopback_ipv4: router.loopback_ipv4,
                loopback_ipv6: router.loopback_ipv6,
                reflector,
            },
            own: own(input),
            location: location(input),
            limits: limits(input),
            rpki: validation(input),
            has_policy: input.has_policy,
            drained: input.drained,
            operator: input.provided,
            loopback_interface: input.loopback_interface,
            shared: SharedVariables::new(input.shared, reflector),
        }
    }
}

fn own(input: &BaseInput<'_>) -> Own {
    let prefixes = &input.policy.prefixes;
    let (ipv4, ipv6) = (
        prefixes.ipv4.map(|net| net.trunc()),
        prefixes.ipv6.map(|net| net.trunc()),
    );
    // Loopback addresses may be outside the announced prefixes, and are rejected from external neighbours anyway.
    let v4 = input
        .router
        .loopback_ipv4
        .map(|a| IpNet::from(IpAddr::V4(a)));
    let v6 = input
        .router
        .loopback_ipv6
        .map(|a| IpNet::from(IpAddr::V6(a)));
    let neighbours = input
        .shared
        .ibgp
        .iter()
        .map(|neighbour| IpNet::from(neighbour.address));
    let prefixes = ipv4.map(IpNet::V4).into_iter().chain(ipv6.map(IpNet::V6));
    let all: std::collections::BTreeSet<IpNet> =
        prefixes.chain(v4).chain(v6).chain(neighbours).sorted_set();
    let (refused_ipv4, refused_ipv6) = all.into_iter().partition(|net| net.addr().is_ipv4());
    Own {
        ipv4,
        ipv6,
        refused_ipv4,
        refused_ipv6,
    }
}

fn location(input: &BaseInput<'_>) -> Place {
    let at = &input.policy.location;
    Place {
        continent: at.continent.map(|continent| continent.number()),
        neighbouring: at.continent.map(place::neighbouring).unwrap_or_default(),
        region: place::region(at),
        region_community: at.region_community.map(|region| region.number()),
        country_community: at.country.map(|code| 1000 + code),
        mbit: at
            .bandwidth
            .map(|bandwidth| u32::try_from(bandwidth.mbit()).unwrap_or(u32::MAX)),
    }
}

fn limits(input: &BaseInput<'_>) -> Bounds {
    let from = &input.policy.limits;
    Bounds {
        ebgp_import: some(from.ebgp_import).unwrap_or(DEFAULT_IMPORT_LIMIT),
        ebgp_export: some(from.ebgp_export),
        ibgp_import: some(from.ibgp_import),
        ibgp_export: some(from.ibgp_export),
        max_path: some(from.as_path_max_len).unwrap_or(DEFAULT_MAX_PATH),
    }
}

fn validation(input: &BaseInput<'_>) -> Validation {
    let cached = |ipv6| input.roa.is_some_and(|table| table.has(ipv6));
    let mut servers: Vec<Server> = Vec::new();
    for server in &input.policy.rpki.servers {
        let Some(server) = rpki_server(server, input.rpki) else {
            continue;
        };
        if servers
            .iter()
            .all(|other| other.protocol != server.protocol)
        {
            servers.push(server);
        }
    }
    Validation {
        active: input.validates_origins(),
        reject_unknown: input.rejects_unknown(),
        cached_ipv4: cached(false),
        cached_ipv6: cached(true),
        servers,
    }
}

/// Returns a server. A server whose name is not resolved yet is left out: BIRD would look it up itself, with a blocking
/// call of `getaddrinfo` in its main loop. With a name server that never answers, 2.0.12, 2.17 and
/// 2.20 hung for 10 s out of every 10 s, and 3.1 and 3.4 for 10 s at a `configure`; BGP sessions
/// went down by their hold time on all five (measured, one server, glibc's defaults).
fn rpki_server(server: &RpkiServer, known: &BTreeMap<Endpoint, IpAddr>) -> Option<Server> {
    let endpoint = server.endpoint();
    let address = endpoint
        .address()
        .map(|address| address.ip())
        .or_else(|| known.get(&endpoint).copied())?;
    Some(Server {
        protocol: rpki_protocol(server),
        host: server.host.to_string(),
        address,
        port: server.port.get(),
    })
}

/// Returns the protocol name of a server. It is derived from the server, not from its position in the list: otherwise
/// removing the first server would rename, and so restart, all others, and their ROAs would be lost. It is not derived
/// from the address either, which may change.
pub fn rpki_protocol(server: &RpkiServer) -> String {
    let host = server.host.to_string();
    let bare: String = host
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let name = match bare.len() {
        0..=40 => bare,
        // Long names are cut; a checksum keeps them unique.
        _ => format!("{}_{:08x}", &bare[..31], checksum(&host)),
    };
    format!("moe_rpki_{name}_{}", server.port)
}

/// FNV-1a, which is the same on every machine and in every release, unlike std's hashers.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum: u32, byte| {
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
