use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{FieldError, Router};
use crate::document::BgpSessionSpec;
use crate::model::{
    Address, AdminState, Asn, Endpoint, Extension, InterfaceName, LinkLocal, Mtu, ObjectName,
    PeerIpv6, PeeringPolicy, Port, PresharedKey, PublicKey, Secret, TunnelType, Uid,
};
use crate::util::sorted::Sorted as _;

/// Values from the agent's configuration that apply to every session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Seconds between keepalives, 0 to disable them (`wireguard.persistentKeepaliveInterval`).
    pub keepalive: u16,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { keepalive: 25 }
    }
}

/// The contents of the files in `secrets/` that a specification names, by file name.
pub type Secrets = BTreeMap<String, Secret<String>>;

/// A resolved peering: everything except the address of the endpoint's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub name: ObjectName,
    /// The uid that marks its link.
    pub uid: Uid,
    pub admin_state: AdminState,
    /// The peer's AS number.
    pub asn: Asn,
    /// Text for humans; untrusted.
    pub description: String,
    pub tunnel: Tunnel,
    /// All addresses of the tunnel's link.
    pub addresses: BTreeSet<Address>,
    /// The BGP sessions: one, or one for each address family.
    pub neighbours: Vec<Neighbour>,
    /// The business relation to the neighbour.
    pub policy: PeeringPolicy,
    /// Hops to the neighbour, when it is not on the link.
    pub multihop: Option<u8>,
    /// The password of the BGP session (RFC 2385).
    pub password: Option<Secret<String>>,
    /// Largest number of imported prefixes, for each family; `None` means the policy's.
    pub import_limit: Option<u32>,
    /// Number of exported prefixes at which a warning begins; `None` means the policy's.
    pub export_limit: Option<u32>,
    /// Whether this session alone is drained.
    pub drained: bool,
}

/// The tunnel of a peering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub kind: TunnelType,
    /// The link's name.
    pub interface: InterfaceName,
    /// The link's MTU.
    pub mtu: Mtu,
    /// The agent's UDP port, for WireGuard.
    pub listen_port: Option<Port>,
    /// The peer's key, for WireGuard.
    pub peer: Option<PublicKey>,
    pub preshared_key: Option<PresharedKey>,
    /// The address on which the peer listens.
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives.
    pub keepalive: Option<u16>,
    /// The local outer address, for GRE.
    pub local_address: Option<IpAddr>,
    /// Whether the agent takes over an unmarked WireGuard link of this name.
    pub adopt: bool,
}

/// One BGP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Name of the protocol in BIRD.
    pub protocol: String,
    pub address: IpAddr,
    /// The local address towards it; pinned, since a second link-local address breaks the session.
    pub source: IpAddr,
    /// Whether IPv4 routes are exchanged.
    pub ipv4: bool,
    /// Whether IPv6 routes are exchanged.
    pub ipv6: bool,
    /// Whether IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

/// Returns the interface of a session whose document names none.
pub(crate) fn default_interface(asn: impl fmt::Display) -> String {
    format!("wg_{asn}")
}

impl BgpSessionSpec {
    /// Returns the specification with every default filled in: the content of `applied/`, and the input of
    /// [`Session::resolve`].
    #[must_use]
    pub fn filled(&self, router: &Router, defaults: &Defaults) -> Self {
        let mut spec = self.clone();
        spec.description
            .get_or_insert_with(|| format!("AS{}", self.asn));
        let tunnel = &mut spec.tunnel;
        tunnel.interface = tunnel
            .interface
            .take()
            .or_else(|| default_interface(self.asn).parse().ok());
        tunnel.mtu.get_or_insert(Mtu::DEFAULT);
        if tunnel.tunnel_type == TunnelType::Wireguard {
            tunnel
                .listen_port
                .get_or_insert(self.asn.conventional_port());
            tunnel
                .persistent_keepalive
                .get_or_insert(defaults.keepalive);
        }
        let address = &mut spec.address;
        address.local_link_local.get_or_insert(router.link_local);
        if address.peer_ipv4.is_some() {
            address.local_ipv4 = address.local_ipv4.or(router.loopback_ipv4);
        }
        if address.peer_ipv6.is_some() {
            let loopback = || {
                router
                    .loopback_ipv6
                    .and_then(|address| address.to_string().parse().ok())
            };
            address.local_ipv6 = address.local_ipv6.or_else(loopback);
        }
        spec.bgp
            .extensions
            .get_or_insert_with(|| BTreeSet::from([Extension::MpBgp, Extension::ExtendedNexthop]));
        spec
    }
}

impl Session {
    /// Resolves a filled specification.
    ///
    /// # Errors
    /// The field that is missing or contradicts another, and what to do.
    pub fn resolve(
        name: &ObjectName,
        uid: &Uid,
        spec: &BgpSessionSpec,
        router: &Router,
        secrets: &Secrets,
    ) -> Result<Self, FieldError> {
        own_asn(spec, router)?;
        Ok(Self {
            name: name.clone(),
            uid: uid.clone(),
            admin_state: spec.admin_state,
            asn: spec.asn,
            description: spec.description.clone().unwrap_or_default(),
            tunnel: tunnel(spec, router, secrets)?,
            addresses: addresses(spec)?,
            neighbours: neighbours(name, spec)?,
            policy: spec.bgp.policy,
            multihop: spec.bgp.multihop,
            password: password(spec, secrets)?,
            import_limit: spec.bgp.import_limit,
            export_limit: spec.bgp.export_limit,
            drained: spec.bgp.drained,
        })
    }

    /// Returns every reason for which [`Session::resolve`] refuses a specification, the one of its error first.
    pub fn problems(
        name: &ObjectName,
        spec: &BgpSessionSpec,
        router: &Router,
        secrets: &Secrets,
    ) -> Vec<FieldError> {
        let found = [
            own_asn(spec, router).err(),
            public_key(spec, router).err(),
            outer_addresses(spec).err(),
            interface(spec).err(),
            preshared_key(spec.tunnel.preshared_key_file.as_deref(), secrets).err(),
            link_local(spec).err(),
            ipv4(spec).err(),
            ipv6(spec).err(),
            neighbours(name, spec).err(),
            password(spec, secrets).err(),
        ];
        found.into_iter().flatten().collect()
    }
}

/// Refuses the AS number of this router.
fn own_asn(spec: &BgpSessionSpec, router: &Router) -> Result<(), FieldError> {
    if spec.asn != router.asn {
        return Ok(());
    }
    let reason = format!(
        "AS{} is the node's own; internal neighbours come with bird-config",
        spec.asn
    );
    Err(FieldError::new("spec.asn", reason))
}

/// Returns the peer's key, for WireGuard.
fn public_key(spec: &BgpSessionSpec, router: &Router) -> Result<Option<PublicKey>, FieldError> {
    const FIELD: &str = "spec.tunnel.publicKey";
    let key = spec.tunnel.public_key;
    if spec.tunnel.tunnel_type != TunnelType::Wireguard {
        return Ok(None);
    }
    if key.is_none() {
        let reason = "the peer's WireGuard public key is required";
        return Err(FieldError::new(FIELD, reason));
    }
    if key == router.public_key {
        let reason = "this is the key of this router, not the peer's";
        return Err(FieldError::new(FIELD, reason));
    }
    Ok(key)
}

/// Checks the outer addresses of GRE tunnels.
fn outer_addresses(spec: &BgpSessionSpec) -> Result<(), FieldError> {
    let from = &spec.tunnel;
    if from.tunnel_type == TunnelType::Wireguard {
        return Ok(());
    }
    if from.endpoint.is_none() {
        let reason = "a GRE tunnel needs the neighbour's outer address";
        return Err(FieldError::new("spec.tunnel.endpoint", reason));
    }
    let v4 = from.tunnel_type == TunnelType::Gre;
    let local = from.local_address.map(|local| local.to_canonical());
    if let Some(local) = local.filter(|local| local.is_ipv4() != v4) {
        let reason = format!("{local} is of the wrong family for {}", from.tunnel_type);
        return Err(FieldError::new("spec.tunnel.localAddress", reason));
    }
    Ok(())
}

fn interface(spec: &BgpSessionSpec) -> Result<InterfaceName, FieldError> {
    spec.tunnel.interface.clone().ok_or_else(|| {
        FieldError::new(
            "spec.tunnel.interface",
            "no interface name; set tunnel.interface",
        )
    })
}

fn tunnel(spec: &BgpSessionSpec, router: &Router, secrets: &Secrets) -> Result<Tunnel, FieldError> {
    let from = &spec.tunnel;
    let wireguard = from.tunnel_type == TunnelType::Wireguard;
    let peer = public_key(spec, router)?;
    outer_addresses(spec)?;
    let interface = interface(spec)?;
    Ok(Tunnel {
        kind: from.tunnel_type,
        interface,
        mtu: from.mtu.unwrap_or_default(),
        listen_port: from.listen_port.filter(|_| wireguard),
        peer,
        preshared_key: preshared_key(from.preshared_key_file.as_deref(), secrets)?,
        endpoint: from.endpoint.clone(),
        keepalive: from.persistent_keepalive.filter(|seconds| *seconds != 0),
        local_address: from.local_address.map(|local| local.to_canonical()),
        adopt: from.adopt,
    })
}

fn preshared_key(
    file: Option<&str>,
    secrets: &Secrets,
) -> Result<Option<PresharedKey>, FieldError> {
    const FIELD: &str = "spec.tunnel.presharedKeyFile";
    let Some(text) = secret(FIELD, file, secrets)? else {
        return Ok(None);
    };
    let key = PresharedKey::from_base64(text.expose())
        .map_err(|error| FieldError::new(FIELD, error.to_string()))?;
    Ok(Some(key).filter(|key| !key.is_zero()))
}

fn password(
    spec: &BgpSessionSpec,
    secrets: &Secrets,
) -> Result<Option<Secret<String>>, FieldError> {
    const FIELD: &str = "spec.bgp.passwordFile";
    let Some(text) = secret(FIELD, spec.bgp.password_file.as_deref(), secrets)? else {
        return Ok(None);
    };
    let password = text.expose().trim_end_matches(['\r', '\n']);
    // TCP MD5 keys have at most 80 bytes (Linux, TCP_MD5SIG_MAXKEYLEN); BIRD's strings have no escape sequence.
    let ok = (1..=80).contains(&password.len())
        && password
            .bytes()
            .all(|b| (b' '..=b'~').contains(&b) && b != b'"');
    if !ok {
        return Err(FieldError::new(
            FIELD,
            "a password is 1..80 printable ASCII characters without \"",
        ));
    }
    Ok(Some(Secret::new(password.to_owned())))
}

fn secret<'a>(
    field: &str,
    file: Option<&str>,
    secrets: &'a Secrets,
) -> Result<Option<&'a Secret<String>>, FieldError> {
    let Some(file) = file else { return Ok(None) };
    let missing = || {
        FieldError::new(
            field,
            format!("cannot read {file}; put the secret there, mode 0600"),
        )
    };
    secrets.get(file).ok_or_else(missing).map(Some)
}

fn addresses(spec: &BgpSessionSpec) -> Result<BTreeSet<Address>, FieldError> {
    let all = [link_local(spec)?, ipv4(spec)?, ipv6(spec)?];
    Ok(all.into_iter().flatten().sorted_set())
}

/// Returns the addresses of the link that a specification expresses by itself. A family with a faulty field has none.
pub(crate) fn expressed_addresses(spec: &BgpSessionSpec) -> BTreeSet<Address> {
    let all = [link_local(spec), ipv4(spec), ipv6(spec)];
    all.into_iter()
        .filter_map(Result::ok)
        .flatten()
        .sorted_set()
}

/// Returns the local link-local address. Only the peer's address is compared with it, because a link-local address
/// belongs to its interface.
fn link_local(spec: &BgpSessionSpec) -> Result<Option<Address>, FieldError> {
    let from = &spec.address;
    let Some(local) = from.local_link_local else {
        return Ok(None);
    };
    let field = if from.peer_link_local == Some(local) {
        "spec.address.peerLinkLocal"
    } else if from.peer_ipv6.is_some_and(|peer| peer.get() == local.get()) {
        "spec.address.peerIpv6"
    } else {
        return Ok(Some(Address::new(net(local.get().into(), 64), None)));
    };
    let reason = format!(
        "the peer's address {local} is this router's; one of the two sides must take another"
    );
    Err(FieldError::new(field, reason))
}

fn ipv4(spec: &BgpSessionSpec) -> Result<Option<Address>, FieldError> {
    let from = &spec.address;
    let Some(peer) = from.peer_ipv4 else {
        return Ok(None);
    };
    let local = from.local_ipv4.ok_or_else(|| {
        FieldError::new(
            "spec.address.localIpv4",
            "needed with peerIpv4, since the node has no IPv4 loopback",
        )
    })?;
    if local == peer {
        let reason = format!("the peer's address {peer} is this router's");
        return Err(FieldError::new("spec.address.peerIpv4", reason));
    }
    Ok(Some(Address::new(net(local.into(), 32), Some(peer.into()))))
}

fn ipv6(spec: &BgpSessionSpec) -> Result<Option<Address>, FieldError> {
    let from = &spec.address;
    let routed = |peer: &PeerIpv6| !peer.get().is_unicast_link_local();
    let Some(peer) = from.peer_ipv6.filter(routed) else {
        return Ok(None);
    };
    let local = from.local_ipv6.ok_or_else(|| {
        FieldError::new(
            "spec.address.localIpv6",
            "needed with peerIpv6, since the node has no IPv6 loopback",
        )
    })?;
    if local == peer {
        let reason = format!("the peer's address {peer} is this router's");
        return Err(FieldError::new("spec.address.peerIpv6", reason));
    }
    let local = net(local.get().into(), 128);
    Ok(Some(Address::new(local, Some(peer.get().into()))))
}

/// Returns a network. The length must be valid for the family, as it is for all callers.
fn net(address: IpAddr, length: u8) -> IpNet {
    match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, length)),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, length)),
    }
}

fn neighbours(name: &ObjectName, spec: &BgpSessionSpec) -> Result<Vec<Neighbour>, FieldError> {
    let extensions = spec.bgp.extensions.clone().unwrap_or_default();
    let v6 = peer_v6(spec);
    let v4 = spec
        .address
        .peer_ipv4
        .map(IpAddr::from)
        .zip(spec.address.local_ipv4.map(IpAddr::from));
    let protocol = format!("ebgp_{name}");
    if v6.is_none() && v4.is_none() {
        let reason = "the peer has no address; give peerLinkLocal, peerIpv6 or peerIpv4";
        return Err(FieldError::new("spec.address", reason));
    }
    if extensions.contains(&Extension::MpBgp) {
        let (address, source) = v6
            .map(|(peer, ours)| (peer.into(), ours.into()))
            .or(v4)
            .unwrap_or((Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()));
        let extended_next_hop =
            address.is_ipv6() && extensions.contains(&Extension::ExtendedNexthop);
        // Without extended next hops, IPv4 routes over an IPv6 session need an IPv4 address to point at.
        let ipv4 = address.is_ipv4() || extended_next_hop || v4.is_some();
        let ipv6 = address.is_ipv6()
            || spec.address.peer_ipv6.is_some()
            || spec.address.peer_link_local.is_some();
        return Ok(vec![Neighbour {
            protocol,
            address,
            source,
            ipv4,
            ipv6,
            extended_next_hop,
        }]);
    }
    let one = |family: &str, (address, source): (IpAddr, IpAddr)| Neighbour {
        protocol: format!("{protocol}_{family}"),
        address,
        source,
        ipv4: address.is_ipv4(),
        ipv6: address.is_ipv6(),
        extended_next_hop: false,
    };
    let v6 = v6.map(|(peer, ours)| one("v6", (peer.into(), ours.into())));
    Ok(v6
        .into_iter()
        .chain(v4.map(|pair| one("v4", pair)))
        .collect())
}

/// Returns the peer's IPv6 address for BGP and the local one towards it: link-local first
/// (docs/contract/session.md#fields).
fn peer_v6(spec: &BgpSessionSpec) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let address = &spec.address;
    let ours = address.local_link_local.map(LinkLocal::get);
    let link_local = address.peer_link_local.map(LinkLocal::get).zip(ours);
    let other = || {
        let peer = address.peer_ipv6?.get();
        let local = if peer.is_unicast_link_local() {
            ours
        } else {
            address.local_ipv6.map(|local| local.get())
        };
        Some(peer).zip(local)
    };
    link_local.or_else(other)
}
