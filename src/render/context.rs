//! What a template sees. These names are an interface: operators write templates against them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::input::{DEFAULT_IMPORT_LIMIT, DEFAULT_MAX_PATH};
use super::{BaseInput, Features, LinkClass, RenderError, place};
use crate::document::RpkiServer;
use crate::effective::{Neighbour, Session};
use crate::model::{AdminState, InterfaceName, NodeType, PeeringPolicy};

/// What every template sees.
#[derive(Debug, Serialize)]
pub(super) struct Base<'a> {
    bird: Features,
    router: Node<'a>,
    own: Own,
    location: Place,
    limits: Bounds,
    rpki: Validation<'a>,
    drained: bool,
    loopback_interface: &'a str,
    mesh_interfaces: &'a [InterfaceName],
    ibgp: Vec<Internal<'a>>,
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

/// What is ours: the prefix we announce, and all that nobody outside may.
#[derive(Debug, Serialize)]
struct Own {
    ipv4: Option<Ipv4Net>,
    ipv6: Option<Ipv6Net>,
    refused_ipv4: Vec<IpNet>,
    refused_ipv6: Vec<IpNet>,
}

/// Where we are.
#[derive(Debug, Serialize)]
struct Place {
    continent: Option<u32>,
    neighbouring: Vec<u32>,
    region: Option<u32>,
    region_community: Option<u16>,
    country_community: Option<u16>,
    mbit: Option<u32>,
}

/// Limits with their defaults; 0 stands for none where there is no default.
#[derive(Debug, Serialize)]
struct Bounds {
    ebgp_import: u32,
    ebgp_export: Option<u32>,
    ibgp_import: Option<u32>,
    ibgp_export: Option<u32>,
    max_path: u32,
}

/// Route origin validation.
#[derive(Debug, Serialize)]
struct Validation<'a> {
    active: bool,
    reject_unknown: bool,
    cached_ipv4: bool,
    cached_ipv6: bool,
    servers: Vec<Server<'a>>,
}

/// An RPKI cache.
#[derive(Debug, Serialize)]
struct Server<'a> {
    protocol: String,
    host: &'a str,
    is_address: bool,
    port: u16,
}

/// An internal neighbour.
#[derive(Debug, Serialize)]
struct Internal<'a> {
    protocol: &'a str,
    name: &'a str,
    address: IpAddr,
    source: IpAddr,
    over_ipv6: bool,
    client: bool,
}

/// What the template of a session sees besides.
#[derive(Debug, Serialize)]
pub(super) struct Peering<'a> {
    #[serde(flatten)]
    base: Base<'a>,
    session: Peer<'a>,
    link: Link,
}

/// A session.
#[derive(Debug, Serialize)]
struct Peer<'a> {
    name: &'a str,
    asn: u32,
    description: &'a str,
    interface: &'a str,
    policy: String,
    relation: &'static str,
    announce_all: bool,
    disabled: bool,
    drained: bool,
    multihop: Option<u8>,
    link_protocol: String,
    password: Option<&'a str>,
    import_limit: u32,
    export_limit: Option<u32>,
    neighbours: Vec<Side<'a>>,
}

/// One BGP session of it.
#[derive(Debug, Serialize)]
struct Side<'a> {
    protocol: &'a str,
    address: IpAddr,
    source: IpAddr,
    ipv4: bool,
    ipv6: bool,
    extended_next_hop: bool,
}

/// The classes of the link; 0 is unknown.
#[derive(Debug, Serialize)]
struct Link {
    latency: u8,
    bandwidth: u8,
    crypto: u8,
    link_type: u8,
    loss: u8,
    mbit: u32,
}

impl<'a> Base<'a> {
    pub(super) fn new(input: &BaseInput<'a>) -> Self {
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
            drained: input.drained,
            loopback_interface: input.loopback_interface,
            mesh_interfaces: input.mesh_interfaces,
            ibgp: internal(input, reflector),
        }
    }
}

fn own(input: &BaseInput<'_>) -> Own {
    let prefixes = &input.policy.prefixes;
    let (ipv4, ipv6) = (prefixes.ipv4.map(|net| net.trunc()), prefixes.ipv6.map(|net| net.trunc()));
    // Loopback addresses may lie outside our prefixes, and are refused from outside all the same.
    let v4 = input.router.loopback_ipv4.map(|a| IpNet::from(IpAddr::V4(a)));
    let v6 = input.router.loopback_ipv6.map(|a| IpNet::from(IpAddr::V6(a)));
    let neighbours = input.ibgp.iter().map(|neighbour| IpNet::from(neighbour.address));
    let prefixes = ipv4.map(IpNet::V4).into_iter().chain(ipv6.map(IpNet::V6));
    let all: std::collections::BTreeSet<IpNet> = prefixes.chain(v4).chain(v6).chain(neighbours).collect();
    let (refused_ipv4, refused_ipv6) = all.into_iter().partition(|net| net.addr().is_ipv4());
    Own { ipv4, ipv6, refused_ipv4, refused_ipv6 }
}

fn location(input: &BaseInput<'_>) -> Place {
    let at = &input.policy.location;
    Place {
        continent: at.continent.map(|continent| continent.number()),
        neighbouring: at.continent.map(place::neighbouring).unwrap_or_default(),
        region: place::region(at),
        region_community: at.region_community.map(|region| region.number()),
        country_community: at.country.map(|code| 1000 + code),
        mbit: at.bandwidth.map(|bandwidth| u32::try_from(bandwidth.mbit()).unwrap_or(u32::MAX)),
    }
}

/// Zero stands for "not said" on the wire, so it is read as that here too: a limit of zero would
/// take a session's routes away.
fn some(limit: Option<u32>) -> Option<u32> {
    limit.filter(|number| *number != 0)
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

fn validation<'a>(input: &BaseInput<'a>) -> Validation<'a> {
    let cached = |ipv6| input.roa.is_some_and(|table| table.has(ipv6));
    let mut servers: Vec<Server<'a>> = Vec::new();
    for server in &input.policy.rpki.servers {
        let server = rpki_server(server);
        if servers.iter().all(|other| other.protocol != server.protocol) {
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

/// A server's protocol is named for the server, not by its place in the list: else removing the first
/// one would rename, and so restart, all others, and with them go their ROAs.
fn rpki_server(server: &RpkiServer) -> Server<'_> {
    let port = server.port.get();
    let bare: String =
        server.host.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    let name = match bare.len() {
        0..=40 => bare,
        // Long names are cut; what is lost is told apart by a checksum.
        _ => format!("{}_{:08x}", &bare[..31], checksum(&server.host)),
    };
    Server {
        protocol: format!("moe_rpki_{name}_{port}"),
        host: &server.host,
        is_address: server.host.parse::<IpAddr>().is_ok(),
        port,
    }
}

/// FNV-1a, which is the same on every machine and in every release, as std's hashers are not.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn internal<'a>(input: &BaseInput<'a>, reflector: bool) -> Vec<Internal<'a>> {
    let enabled = input.ibgp.iter().filter(|neighbour| neighbour.enabled);
    let side = enabled.map(|neighbour| Internal {
        protocol: &neighbour.protocol,
        name: neighbour.name.as_str(),
        address: neighbour.address,
        source: neighbour.source,
        over_ipv6: neighbour.address.is_ipv6(),
        client: reflector && !neighbour.is_rr,
    });
    side.collect()
}

impl<'a> Peering<'a> {
    pub(super) fn new(
        session: &'a Session,
        input: &BaseInput<'a>,
        link: &LinkClass,
    ) -> Result<Self, RenderError> {
        let base = Base::new(input);
        let sides = session.neighbours.iter().map(side).collect::<Vec<_>>();
        check(session)?;
        let peer = Peer {
            name: session.name.as_str(),
            asn: session.asn.get(),
            description: &session.description,
            interface: session.tunnel.interface.as_str(),
            policy: session.policy.to_string(),
            relation: relation(session.policy),
            announce_all: matches!(session.policy, PeeringPolicy::Full | PeeringPolicy::Downstream),
            disabled: input.ebgp_disabled || session.admin_state != AdminState::Enabled,
            drained: session.drained,
            multihop: session.multihop,
            link_protocol: format!("moe_link_{}", session.name),
            password: session.password.as_ref().map(|secret| secret.expose().as_str()),
            import_limit: some(session.import_limit).unwrap_or(base.limits.ebgp_import),
            export_limit: some(session.export_limit).or(base.limits.ebgp_export),
            neighbours: sides,
        };
        Ok(Self { base, session: peer, link: classes(link) })
    }
}

/// The name of what the neighbour is to us, as `moenet/defines.conf` defines it.
fn relation(policy: PeeringPolicy) -> &'static str {
    match policy {
        PeeringPolicy::Full => "MOE_FULL",
        PeeringPolicy::Peer => "MOE_PEER",
        PeeringPolicy::Downstream => "MOE_DOWNSTREAM",
        PeeringPolicy::Upstream => "MOE_UPSTREAM",
    }
}

/// BIRD refuses a link-local neighbour that is more than a hop away, on every version.
fn check(session: &Session) -> Result<(), RenderError> {
    let link_local = |neighbour: &Neighbour| match neighbour.address {
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
        IpAddr::V4(v4) => v4.is_link_local(),
    };
    if session.multihop.is_some() && session.neighbours.iter().any(link_local) {
        let reason = "a neighbour with a link-local address is on the link; take one of the two away";
        return Err(RenderError::input("spec.bgp.multihop", reason));
    }
    Ok(())
}

fn side(neighbour: &Neighbour) -> Side<'_> {
    Side {
        protocol: &neighbour.protocol,
        address: neighbour.address,
        source: neighbour.source,
        ipv4: neighbour.ipv4,
        ipv6: neighbour.ipv6,
        extended_next_hop: neighbour.extended_next_hop,
    }
}

fn classes(link: &LinkClass) -> Link {
    Link {
        latency: link.latency.unwrap_or(0),
        bandwidth: link.bandwidth.unwrap_or(0),
        crypto: link.crypto,
        link_type: link.link_type,
        loss: link.loss.unwrap_or(0),
        mbit: link.mbit.unwrap_or(0),
    }
}
