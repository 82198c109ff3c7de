//! Keys, port and peers of a WireGuard link. One step per link for all differences, so that the kernel
//! never has half of a change; the reason lists every difference.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::Timestamp;

use super::action::{KernelAction, PeerPatch, WireGuardPatch};
use super::wanted::{ObjectObservation, WantedTunnel, WantedWireGuard};
use super::{Drift, Refusal, Step};
use crate::model::{Port, PresharedKey, PrivateKey, PublicKey, RouterKey};
use crate::observed::kernel::{HANDSHAKE_FRESH_SECONDS, Link, WireGuard, WireGuardPeer};

/// Returns all prefixes: every source is allowed from a peer; the agent installs no routes for it, BGP does.
fn allowed_ips() -> BTreeSet<IpNet> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    BTreeSet::from([
        ipnet::Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        ipnet::Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    ])
}

/// Rejects the configuration of a link without a private key while the router's is missing.
///
/// # Errors
/// With the reason why the key is missing.
pub(super) fn check_key(wanted: &WantedTunnel, link: Option<&Link>) -> Result<(), Refusal> {
    let key = wanted.wireguard.as_ref().map(|wireguard| &wireguard.key);
    let has_key = link
        .and_then(|link| link.wireguard.as_ref())
        .is_some_and(|wireguard| wireguard.public_key.is_some());
    match key.and_then(RouterKey::missing) {
        Some(why) if !has_key => Err(Refusal {
            field: "wireguard.privateKeyPath",
            reason: why.to_owned(),
        }),
        _ => Ok(()),
    }
}

pub(super) fn compare(
    wanted: &WantedTunnel,
    link: Option<&Link>,
    view: &ObjectObservation<'_>,
) -> Option<Step> {
    let want = wanted.wireguard.as_ref()?;
    let none = WireGuard::default();
    let have = link
        .and_then(|link| link.wireguard.as_ref())
        .unwrap_or(&none);
    let mut drifts = Vec::new();
    let patch = WireGuardPatch {
        private_key: private_key(want, have, &mut drifts),
        listen_port: listen_port(want, have, &mut drifts),
        release_port: want.release_port,
        remove_peers: removed_peers(want, have, view, &mut drifts),
        peers: peer(want, have, view, &mut drifts).into_iter().collect(),
    };
    let because = Drift::joined("tunnel", drifts)?;
    Some(Step::kernel(
        KernelAction::ConfigureWireGuard {
            interface: wanted.interface.clone(),
            patch,
        },
        because,
    ))
}

fn private_key(
    want: &WantedWireGuard,
    have: &WireGuard,
    drifts: &mut Vec<Drift>,
) -> Option<PrivateKey> {
    // While the private key is missing, the kernel keeps the one it has.
    let RouterKey::Available { private, public } = &want.key else {
        return None;
    };
    if have.public_key == Some(*public) {
        return None;
    }
    let shown = have
        .public_key
        .map_or("none".to_owned(), |key| key.to_string());
    drifts.push(Drift::new("tunnel.ourKey", public, shown));
    Some(private.clone())
}

fn listen_port(want: &WantedWireGuard, have: &WireGuard, drifts: &mut Vec<Drift>) -> Option<Port> {
    if have.listen_port == Some(want.listen_port) {
        return None;
    }
    if want.release_port {
        let shown = have
            .listen_port
            .map_or("any".to_owned(), |port| port.to_string());
        drifts.push(Drift::new(
            "tunnel.listenPort",
            "any free port for the moment",
            shown,
        ));
        return None;
    }
    let shown = have
        .listen_port
        .map_or("any".to_owned(), |port| port.to_string());
    drifts.push(Drift::new("tunnel.listenPort", want.listen_port, shown));
    Some(want.listen_port)
}

fn removed_peers(
    want: &WantedWireGuard,
    have: &WireGuard,
    view: &ObjectObservation<'_>,
    drifts: &mut Vec<Drift>,
) -> Vec<PublicKey> {
    let mut removed: Vec<_> = have
        .peers
        .keys()
        .filter(|key| **key != want.peer)
        .copied()
        .collect();
    drifts.extend(removed.iter().map(|key| Drift::surplus("tunnel.peer", key)));
    if let Some(endpoint) = forgotten_endpoint(want, have, view) {
        drifts.push(Drift::surplus("tunnel.endpoint", endpoint));
        removed.push(want.peer);
    }
    removed
}

/// Returns the endpoint of the peer if it was removed from the document and does not answer. WireGuard can forget an
/// endpoint only together with its peer, which is then added again.
fn forgotten_endpoint(
    want: &WantedWireGuard,
    have: &WireGuard,
    view: &ObjectObservation<'_>,
) -> Option<std::net::SocketAddr> {
    let peer = have.peers.get(&want.peer)?;
    let taken_out =
        !want.calls && view.endpoint_changed && !is_fresh(peer.last_handshake, view.now);
    peer.endpoint.filter(|_| taken_out)
}

fn peer(
    want: &WantedWireGuard,
    have: &WireGuard,
    view: &ObjectObservation<'_>,
    drifts: &mut Vec<Drift>,
) -> Option<PeerPatch> {
    let before = drifts.len();
    let forgotten = forgotten_endpoint(want, have, view).is_some();
    let known = have.peers.get(&want.peer).filter(|_| !forgotten);
    if known.is_none() && !forgotten {
        drifts.push(Drift::missing("tunnel.publicKey", want.peer));
    }
    let none = WireGuardPeer::default();
    let have = known.map_or(&none, |known| &**known);
    let patch = PeerPatch {
        public_key: want.peer,
        preshared_key: preshared_key(want, have, drifts),
        endpoint: endpoint(have, view, drifts),
        keepalive: keepalive(want, have, drifts),
        allowed_ips: allowed(have, drifts),
    };
    (drifts.len() > before).then_some(patch)
}

fn preshared_key(
    want: &WantedWireGuard,
    have: &WireGuardPeer,
    drifts: &mut Vec<Drift>,
) -> Option<Option<PresharedKey>> {
    if want.preshared_key == have.preshared_key {
        return None;
    }
    let word = |key: &Option<PresharedKey>, there: &'static str| {
        if key.is_some() { there } else { "none" }
    };
    let (new, old) = (
        word(&want.preshared_key, "changed"),
        word(&have.preshared_key, "another"),
    );
    drifts.push(Drift::new("tunnel.presharedKey", new, old));
    Some(want.preshared_key.clone())
}

/// Compares the endpoint. It is drift only if WireGuard has no better information: the endpoint was set again, is
/// not set yet, or the peer has been silent for longer than its keys live.
fn endpoint(
    have: &WireGuardPeer,
    view: &ObjectObservation<'_>,
    drifts: &mut Vec<Drift>,
) -> Option<std::net::SocketAddr> {
    let want = view.resolved?;
    let applies = have.endpoint.is_none()
        || view.endpoint_changed
        || !is_fresh(have.last_handshake, view.now);
    if have.endpoint == Some(want) || !applies {
        return None;
    }
    let shown = have
        .endpoint
        .map_or("none".to_owned(), |endpoint| endpoint.to_string());
    drifts.push(Drift::new("tunnel.endpoint", want, shown));
    Some(want)
}

/// Returns whether the peer has answered within the life of a session's keys. A handshake far in the future comes
/// from a clock that was corrected since, and is ignored.
fn is_fresh(last_handshake: Option<Timestamp>, now: Timestamp) -> bool {
    last_handshake
        .is_some_and(|at| (now.as_second() - at.as_second()).abs() < HANDSHAKE_FRESH_SECONDS)
}

fn keepalive(
    want: &WantedWireGuard,
    have: &WireGuardPeer,
    drifts: &mut Vec<Drift>,
) -> Option<Option<u16>> {
    if want.keepalive == have.keepalive {
        return None;
    }
    let shown =
        |seconds: Option<u16>| seconds.map_or("none".to_owned(), |seconds| format!("{seconds} s"));
    drifts.push(Drift::new(
        "tunnel.persistentKeepalive",
        shown(want.keepalive),
        shown(have.keepalive),
    ));
    Some(want.keepalive)
}

fn allowed(have: &WireGuardPeer, drifts: &mut Vec<Drift>) -> Option<BTreeSet<IpNet>> {
    let want = allowed_ips();
    if have.allowed_ips == want {
        return None;
    }
    let shown = |nets: &BTreeSet<IpNet>| {
        let list: Vec<_> = nets.iter().map(ToString::to_string).collect();
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(" ")
        }
    };
    drifts.push(Drift::new(
        "tunnel.allowedIps",
        shown(&want),
        shown(&have.allowed_ips),
    ));
    Some(want)
}
