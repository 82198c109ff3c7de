use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{FieldError, Router};
use crate::document::BgpSessionSpec;
use crate::model::{
    AdminState, Asn, Endpoint, Extension, InterfaceName, LinkLocal, Mtu, ObjectName, PeeringPolicy,
    Port, PresharedKey, PublicKey, Secret, TunnelType, Uid,
};
use crate::plan::kernel_view::Address;

/// What the agent's configuration decides for every session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Seconds between keepalives, 0 for none (`wireguard.persistentKeepaliveInterval`).
    pub keepalive: u16,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { keepalive: 25 }
    }
}

/// The contents of the files in `secrets/` that a specification names, by those names.
pub type Secrets = BTreeMap<String, Secret<String>>;

/// A peering as it is to be: everything resolved but the endpoint's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub name: ObjectName,
    /// What marks its link.
    pub uid: Uid,
    /// What the administrator wants of it.
    pub admin_state: AdminState,
    /// The peer's AS number.
    pub asn: Asn,
    /// Text for humans; hostile.
    pub description: String,
    /// The tunnel.
    pub tunnel: Tunnel,
    /// The addresses of the tunnel's link, all of them.
    pub addresses: BTreeSet<Address>,
    /// The BGP sessions: one, or one for each address family.
    pub neighbours: Vec<Neighbour>,
    /// What the neighbour is to us.
    pub policy: PeeringPolicy,
    /// Hops to the neighbour, when it is not on the link.
    pub multihop: Option<u8>,
    /// The password of the BGP session (RFC 2385).
    pub password: Option<Secret<String>>,
    /// Prefixes taken, for each family; none means the policy's.
    pub import_limit: Option<u32>,
    /// Prefixes announced before a warning; none means the policy's.
    pub export_limit: Option<u32>,
    /// Drained on its own.
    pub drained: bool,
}

/// The tunnel of a peering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// How it is carried.
    pub kind: TunnelType,
    /// The link's name.
    pub interface: InterfaceName,
    /// The link's MTU.
    pub mtu: Mtu,
    /// Our UDP port, for WireGuard.
    pub listen_port: Option<Port>,
    /// The peer's key, for WireGuard.
    pub peer: Option<PublicKey>,
    /// The preshared key.
    pub preshared_key: Option<PresharedKey>,
    /// Where the peer listens.
    pub endpoint: Option<Endpoint>,
    /// Seconds between keepalives.
    pub keepalive: Option<u16>,
    /// Our outer address, for GRE.
    pub local_address: Option<IpAddr>,
    /// Whether an unmarked WireGuard link of this name is taken over.
    pub adopt: bool,
}

/// One BGP session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Name of the protocol in BIRD.
    pub protocol: String,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Our address towards it; pinned, since a second link-local address breaks the session.
    pub source: IpAddr,
    /// Whether IPv4 routes are exchanged.
    pub ipv4: bool,
    /// Whether IPv6 routes are exchanged.
    pub ipv6: bool,
    /// Whether IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

impl BgpSessionSpec {
    /// The specification with every default filled in; this is what `applied/` holds and what
    /// [`Session::resolve`] reads.
    #[must_use]
    pub fn filled(&self, router: &Router, defaults: &Defaults) -> Self {
        let mut spec = self.clone();
        spec.description
            .get_or_insert_with(|| format!("AS{}", self.asn));
        let tunnel = &mut spec.tunnel;
        tunnel.interface = tunnel
            .interface
            .take()
            .or_else(|| format!("wg_{}", self.asn).parse().ok());
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
        if spec.asn == router.asn {
            let reason = format!(
                "AS{} is our own; internal neighbours come with bird-config",
                spec.asn
            );
            return Err(FieldError::new("spec.asn", reason));
        }
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
}

fn tunnel(spec: &BgpSessionSpec, router: &Router, secrets: &Secrets) -> Result<Tunnel, FieldError> {
    let from = &spec.tunnel;
    let wireguard = from.tunnel_type == TunnelType::Wireguard;
    if wireguard && from.public_key.is_none() {
        return Err(FieldError::new(
            "spec.tunnel.publicKey",
            "the peer's WireGuard public key is required",
        ));
    }
    if wireguard && from.public_key == router.public_key {
        return Err(FieldError::new(
            "spec.tunnel.publicKey",
            "this is our own key, not the peer's",
        ));
    }
    if !wireguard && from.endpoint.is_none() {
        return Err(FieldError::new(
            "spec.tunnel.endpoint",
            "a GRE tunnel needs the neighbour's outer address",
        ));
    }
    let v4 = from.tunnel_type == TunnelType::Gre;
    if let Some(local) = from
        .local_address
        .filter(|local| !wireguard && local.is_ipv4() != v4)
    {
        let reason = format!("{local} is of the wrong family for {}", from.tunnel_type);
        return Err(FieldError::new("spec.tunnel.localAddress", reason));
    }
    let interface = from.interface.clone().ok_or_else(|| {
        FieldError::new(
            "spec.tunnel.interface",
            "there is no name for the interface; give one",
        )
    })?;
    Ok(Tunnel {
        kind: from.tunnel_type,
        interface,
        mtu: from.mtu.unwrap_or_default(),
        listen_port: from.listen_port.filter(|_| wireguard),
        peer: from.public_key.filter(|_| wireguard),
        preshared_key: preshared_key(from.preshared_key_file.as_deref(), secrets)?,
        endpoint: from.endpoint.clone(),
        keepalive: from.persistent_keepalive.filter(|seconds| *seconds != 0),
        local_address: from.local_address,
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
    // TCP MD5 keys end at 80 bytes (Linux, TCP_MD5SIG_MAXKEYLEN); BIRD's strings know no escape.
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
            format!("{file} cannot be read; put the secret there, mode 0600"),
        )
    };
    secrets.get(file).ok_or_else(missing).map(Some)
}

fn addresses(spec: &BgpSessionSpec) -> Result<BTreeSet<Address>, FieldError> {
    let from = &spec.address;
    let mut addresses = BTreeSet::new();
    if let Some(local) = from.local_link_local {
        if from.peer_link_local == Some(local)
            || from.peer_ipv6.is_some_and(|peer| peer.get() == local.get())
        {
            return Err(FieldError::new(
                "spec.address.peerLinkLocal",
                format!(
                    "the peer's address {local} is ours; one of the two sides must take another"
                ),
            ));
        }
        addresses.insert(Address::new(net(local.get().into(), 64), None));
    }
    if let Some(peer) = from.peer_ipv4 {
        let local = from.local_ipv4.ok_or_else(|| {
            FieldError::new(
                "spec.address.localIpv4",
                "needed with peerIpv4, since the node has no IPv4 loopback",
            )
        })?;
        if local == peer {
            return Err(FieldError::new(
                "spec.address.peerIpv4",
                format!("the peer's address {peer} is ours"),
            ));
        }
        addresses.insert(Address::new(net(local.into(), 32), Some(peer.into())));
    }
    if let Some(peer) = from
        .peer_ipv6
        .filter(|peer| !peer.get().is_unicast_link_local())
    {
        let local = from.local_ipv6.ok_or_else(|| {
            FieldError::new(
                "spec.address.localIpv6",
                "needed with peerIpv6, since the node has no IPv6 loopback",
            )
        })?;
        if local == peer {
            return Err(FieldError::new(
                "spec.address.peerIpv6",
                format!("the peer's address {peer} is ours"),
            ));
        }
        addresses.insert(Address::new(
            net(local.get().into(), 128),
            Some(peer.get().into()),
        ));
    }
    Ok(addresses)
}

/// A network of a length that is valid for its family, as all callers have it.
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

/// The peer's IPv6 address for BGP and ours towards it: link-local first (docs/contract/session.md#fields).
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
