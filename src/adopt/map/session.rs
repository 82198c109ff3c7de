//! One WireGuard interface with its sessions, as a document.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::keys::OtherKey;
use super::{Adopted, Running};
use crate::adopt::report::{Outcome, Place};
use crate::document::{AddressSpec, BgpSessionSpec, BgpSpec, Document, TunnelSpec};
use crate::effective::expressed_addresses;
use crate::model::{
    Address, AdminState, Asn, Endpoint, Extension, InterfaceName, Invalid, Mtu, ObjectName,
    PublicKey,
};
use crate::observed::bird::{Bgp, Protocol};
use crate::observed::kernel::{Link, WireGuardPeer};
use crate::observed::mark::Mark;
use crate::util::sorted::Sorted as _;

/// Why an interface is not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAdopted {
    #[error("it {0}")]
    Marked(Mark),
    #[error("no running BGP session uses it")]
    NoSession,
    #[error("its WireGuard configuration cannot be read: {0}")]
    Unread(String),
    #[error(
        "a file that configures it is not UTF-8, so what it sets is not known; convert it, for example with `iconv -t UTF-8`"
    )]
    Undecoded(Place),
    #[error("a document holds an interface with exactly one peer")]
    Peers,
    #[error("its sessions have different neighbour ASNs")]
    Asns,
    #[error("protocol {0} has no single neighbour address")]
    NoNeighbour(String),
    #[error(transparent)]
    Key(#[from] OtherKey),
    #[error("{0}")]
    LocalAs(String),
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl NotAdopted {
    /// Returns the place of the fault, if it is in a file.
    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Self::Undecoded(place) => Some(place.clone()),
            _ => None,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Marked(_) | Self::NoSession => Outcome::Left,
            _ => Outcome::Unsupported,
        }
    }
}

/// Returns the document of one WireGuard interface and its sessions.
pub(super) fn adopted(
    running: Running<'_>,
    interface: &InterfaceName,
    link: &Link,
    sessions: &[(&Protocol, &Bgp)],
) -> Result<Adopted, NotAdopted> {
    let (key, peer) = only_peer(link)?;
    let mut files = running.files_of(interface);
    if let Some(place) = files.find_map(|file| file.undecoded.clone()) {
        return Err(NotAdopted::Undecoded(place));
    }
    running.key.check(interface, link)?;
    let mut others = sessions.iter().filter_map(|it| running.other_as(*it));
    if let Some(why) = others.next() {
        return Err(NotAdopted::LocalAs(why));
    }
    let name: ObjectName = interface.as_str().parse()?;
    let secret = peer.preshared_key.as_ref();
    let tunnel = TunnelSpec {
        interface: Some(interface.clone()),
        adopt: true,
        mtu: Some(Mtu::try_from(u64::from(link.mtu))?),
        listen_port: link.listen_port(),
        public_key: Some(*key),
        endpoint: endpoint(running, interface, peer),
        persistent_keepalive: Some(peer.keepalive.unwrap_or_default()),
        preshared_key_file: secret.map(|_| format!("secrets/{name}.psk")),
        ..TunnelSpec::default()
    };
    let bgp = BgpSpec {
        extensions: Some(extensions(sessions)),
        import_limit: import_limit(sessions),
        ..BgpSpec::default()
    };
    let spec = BgpSessionSpec {
        admin_state: AdminState::Enabled,
        asn: asn(sessions)?,
        description: description(sessions),
        tunnel,
        address: addresses(link, sessions)?,
        bgp,
    };
    Ok(Adopted {
        document: Document::new(name, None, 0, spec),
        preshared_key: secret.cloned(),
        over: None,
    })
}

/// Returns the only peer of an unmarked interface.
fn only_peer(link: &Link) -> Result<(&PublicKey, &WireGuardPeer), NotAdopted> {
    if link.mark != Mark::None {
        return Err(NotAdopted::Marked(link.mark.clone()));
    }
    if let Some(unread) = &link.unread {
        return Err(NotAdopted::Unread(unread.why.clone()));
    }
    let wireguard = link.wireguard.iter();
    let mut peers = wireguard.flat_map(|wireguard| &wireguard.peers);
    match (peers.next(), peers.next()) {
        (Some((key, peer)), None) => Ok((key, &**peer)),
        _ => Err(NotAdopted::Peers),
    }
}

/// Returns the ASN that all sessions have as the neighbour's.
fn asn(sessions: &[(&Protocol, &Bgp)]) -> Result<Asn, NotAdopted> {
    let mut asns = sessions.iter().filter_map(|(_, bgp)| bgp.neighbor_as);
    let asn = asns.next().ok_or(NotAdopted::NoSession)?;
    if asns.any(|other| other != asn) {
        return Err(NotAdopted::Asns);
    }
    Ok(Asn::try_from(u64::from(asn))?)
}

fn description(sessions: &[(&Protocol, &Bgp)]) -> Option<String> {
    let mut all = sessions.iter();
    all.find_map(|(protocol, _)| protocol.description.clone())
}

/// Returns the endpoint as a file names it, else as the kernel has it.
fn endpoint(
    running: Running<'_>,
    interface: &InterfaceName,
    peer: &WireGuardPeer,
) -> Option<Endpoint> {
    let mut files = running.files.iter();
    let of_file = files.find_map(|file| {
        let same = file.interface == interface.as_str();
        same.then(|| file.endpoint()).flatten()
    });
    of_file.or_else(|| peer.endpoint?.to_string().parse().ok())
}

/// Returns the addresses of both sides.
fn addresses(link: &Link, sessions: &[(&Protocol, &Bgp)]) -> Result<AddressSpec, NotAdopted> {
    let mut address = AddressSpec::default();
    for (protocol, bgp) in sessions {
        let neighbour = bgp.neighbour();
        let (neighbour, _) =
            neighbour.ok_or_else(|| NotAdopted::NoNeighbour(protocol.name.clone()))?;
        match neighbour {
            IpAddr::V4(v4) => address.peer_ipv4 = Some(v4),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                address.peer_link_local = v6.to_string().parse().ok();
            }
            IpAddr::V6(v6) => address.peer_ipv6 = v6.to_string().parse().ok(),
        }
    }
    let own = |is: fn(IpAddr) -> bool| own_address(link, sessions, is);
    if let Some(own) = own(|ip| ip.is_ipv4()) {
        if let IpAddr::V4(v4) = own.local.addr() {
            address.local_ipv4 = Some(v4);
        }
        if let Some(IpAddr::V4(peer)) = own.peer {
            address.peer_ipv4.get_or_insert(peer);
        }
    }
    if let Some(own) = own(is_link_local) {
        address.local_link_local = own.local.addr().to_string().parse().ok();
    }
    if let Some(own) = own(|ip| ip.is_ipv6() && !is_link_local(ip)) {
        address.local_ipv6 = own.local.addr().to_string().parse().ok();
        if let (Some(IpAddr::V6(peer)), None) = (own.peer, address.peer_ipv6) {
            address.peer_ipv6 = peer.to_string().parse().ok();
        }
    }
    Ok(address)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Returns the one address of a kind for which a document has a field: the source of a session, else one whose other
/// end is a neighbour, else one with another end, else the first.
fn own_address<'a>(
    link: &'a Link,
    sessions: &[(&Protocol, &Bgp)],
    is: fn(IpAddr) -> bool,
) -> Option<&'a Address> {
    let is_source = |own: &Address| {
        let mut sources = sessions
            .iter()
            .filter_map(|(_, bgp)| bgp.source_address.as_deref());
        sources.any(|source| source.parse() == Ok(own.local.addr()))
    };
    let leads = |peer: IpAddr| {
        let mut neighbours = sessions.iter().filter_map(|(_, bgp)| bgp.neighbour());
        neighbours.any(|(address, _)| address == peer)
    };
    let rank = |own: &&Address| {
        (
            is_source(own),
            own.peer.is_some_and(leads),
            own.peer.is_some(),
        )
    };
    let all = link.addresses.iter().filter(|own| is(own.local.addr()));
    // Of equal ones `max_by_key` returns the last.
    all.rev().max_by_key(rank)
}

/// Returns why each address of a link is lost that its document does not express exactly.
pub(super) fn surplus(link: &Link, spec: &BgpSessionSpec) -> Vec<(Address, String)> {
    let expressed = expressed_addresses(spec);
    let lost = link.addresses.difference(&expressed);
    let reason = |lost: &Address| {
        let mut kept = expressed.iter();
        let reason = match kept.find(|it| it.local.addr() == lost.local.addr()) {
            Some(kept) => format!(
                "address {lost}: the document expresses it as {kept}, so the first pass would replace it"
            ),
            None => format!(
                "address {lost} has no field in the document, so the first pass would remove it"
            ),
        };
        (*lost, reason)
    };
    lost.map(reason).collect()
}

fn has(protocol: &Protocol, family: &str) -> bool {
    let mut channels = protocol.channels.iter();
    channels.any(|channel| channel.name == family)
}

/// Returns the extensions of the running sessions.
fn extensions(sessions: &[(&Protocol, &Bgp)]) -> BTreeSet<Extension> {
    let is_v6 = |bgp: &Bgp| {
        bgp.neighbour()
            .is_some_and(|(address, _)| address.is_ipv6())
    };
    let both = |protocol: &Protocol| has(protocol, "ipv4") && has(protocol, "ipv6");
    let mp = sessions.iter().any(|(protocol, _)| both(protocol));
    let extended = sessions
        .iter()
        .any(|(protocol, bgp)| is_v6(bgp) && has(protocol, "ipv4"));
    let all = [
        (mp, Extension::MpBgp),
        (extended, Extension::ExtendedNexthop),
    ];
    all.into_iter()
        .filter_map(|(used, extension)| used.then_some(extension))
        .sorted_set()
}

/// Returns the lowest import limit of the running channels.
fn import_limit(sessions: &[(&Protocol, &Bgp)]) -> Option<u32> {
    let channels = sessions.iter().flat_map(|(protocol, _)| &protocol.channels);
    let limits =
        channels.filter_map(|channel| u32::try_from(channel.import_limit.as_ref()?.limit).ok());
    limits.filter(|limit| *limit > 0).min()
}
