//! WireGuard of the kernel, through `wireguard-control`. Everything here blocks.
//!
//! Errors of that crate may hold whole messages in their text, including keys: only the error number
//! or the kind is passed on. Its `Debug` shows keys too, so none of its values is ever printed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use wireguard_control::{Backend, Device, DeviceUpdate, Key, PeerConfigBuilder, PeerInfo};

use crate::model::{InterfaceName, Port, PresharedKey, PublicKey};
use crate::observed::kernel::{WireGuard, WireGuardPeer};
use crate::plan::action::{PeerPatch, WireGuardPatch};

/// Reads the configuration of a link.
pub(super) fn get(interface: &InterfaceName) -> io::Result<WireGuard> {
    Device::get(&foreign_name(interface)?, Backend::Kernel)
        .map(|device| from_device(&device))
        .map_err(silent)
}

/// Changes the configuration of a link, which must exist: the crate would create it, without a mark.
pub(super) fn set(interface: &InterfaceName, patch: &WireGuardPatch) -> io::Result<()> {
    update(patch)
        .apply(&foreign_name(interface)?, Backend::Kernel)
        .map_err(silent)
}

fn foreign_name(interface: &InterfaceName) -> io::Result<wireguard_control::InterfaceName> {
    interface.as_str().parse().map_err(io::Error::from)
}

fn silent(error: io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn from_device(device: &Device) -> WireGuard {
    let public_key = device.public_key.as_ref().map(|key| PublicKey::new(key.0));
    WireGuard {
        public_key: public_key.filter(|key| *key.bytes() != [0; 32]),
        listen_port: device.listen_port.and_then(Port::new),
        peers: merged(device.peers.iter().map(from_peer)),
    }
}

/// Merges repeated peers. A peer whose allowed IPs do not fit one message comes again in the next, with only its key
/// and
/// the remaining ones (`WGPEER_A_ALLOWEDIPS` in linux/wireguard.h); the crate lists it twice then.
fn merged(
    peers: impl Iterator<Item = (PublicKey, WireGuardPeer)>,
) -> BTreeMap<PublicKey, WireGuardPeer> {
    let mut merged: BTreeMap<PublicKey, WireGuardPeer> = BTreeMap::new();
    for (key, peer) in peers {
        match merged.entry(key) {
            Entry::Vacant(place) => drop(place.insert(peer)),
            Entry::Occupied(mut first) => first.get_mut().allowed_ips.extend(peer.allowed_ips),
        }
    }
    merged
}

fn from_peer(info: &PeerInfo) -> (PublicKey, WireGuardPeer) {
    let config = &info.config;
    let canonical =
        |endpoint: SocketAddr| SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
    let allowed = config
        .allowed_ips
        .iter()
        .filter_map(|ip| Some(IpNet::new(ip.address, ip.cidr).ok()?.trunc()));
    let peer = WireGuardPeer {
        preshared_key: config
            .preshared_key
            .as_ref()
            .map(|key| PresharedKey::new(key.0)),
        endpoint: config.endpoint.map(canonical),
        keepalive: config.persistent_keepalive_interval,
        allowed_ips: allowed.collect(),
        last_handshake: info
            .stats
            .last_handshake_time
            .and_then(|at| Timestamp::try_from(at).ok()),
        rx_bytes: info.stats.rx_bytes,
        tx_bytes: info.stats.tx_bytes,
    };
    (PublicKey::new(config.public_key.0), peer.normalised())
}

fn update(patch: &WireGuardPatch) -> DeviceUpdate {
    let mut update = DeviceUpdate::new();
    if let Some(key) = &patch.private_key {
        update = update.set_private_key(Key(*key.expose()));
    }
    if let Some(port) = patch.listen_port {
        update = update.set_listen_port(port.get());
    }
    if patch.release_port {
        update = update.set_listen_port(0);
    }
    for key in &patch.remove_peers {
        update = update.remove_peer_by_key(&Key(*key.bytes()));
    }
    patch
        .peers
        .iter()
        .map(peer_update)
        .fold(update, DeviceUpdate::add_peer)
}

fn peer_update(patch: &PeerPatch) -> PeerConfigBuilder {
    let mut peer = PeerConfigBuilder::new(&Key(*patch.public_key.bytes()));
    match &patch.preshared_key {
        Some(Some(key)) => peer = peer.set_preshared_key(Key(*key.expose())),
        Some(None) => peer = peer.unset_preshared_key(),
        None => {}
    }
    if let Some(endpoint) = patch.endpoint {
        peer = peer.set_endpoint(endpoint);
    }
    if let Some(seconds) = patch.keepalive {
        peer = peer.set_persistent_keepalive_interval(seconds.unwrap_or(0));
    }
    if let Some(allowed) = &patch.allowed_ips {
        peer = peer.replace_allowed_ips();
        peer = allowed.iter().fold(peer, |peer, net| {
            peer.add_allowed_ip(net.addr(), net.prefix_len())
        });
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_crate_loses_its_text() {
        let error = silent(io::Error::new(
            io::ErrorKind::InvalidInput,
            "PresharedKey([1, 2])",
        ));
        assert!(!error.to_string().contains("PresharedKey"));
        assert_eq!(
            silent(io::Error::from_raw_os_error(98)).raw_os_error(),
            Some(98)
        );
    }

    #[test]
    fn peer_split_over_two_messages_keeps_all_allowed_ips() {
        let peer = |net: &str, keepalive| WireGuardPeer {
            allowed_ips: [net.parse().unwrap()].into(),
            keepalive,
            ..Default::default()
        };
        let key = PublicKey::new([1; 32]);
        let parts = [
            (key, peer("10.0.0.0/8", Some(25))),
            (key, peer("fd00::/8", None)),
        ];
        let peer = &merged(parts.into_iter())[&key];
        assert_eq!((peer.allowed_ips.len(), peer.keepalive), (2, Some(25)));
    }

    #[test]
    fn unset_and_untouched_are_different_requests() {
        let untouched = PeerPatch {
            public_key: PublicKey::new([1; 32]),
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            allowed_ips: None,
        };
        let unset = PeerPatch {
            preshared_key: Some(None),
            keepalive: Some(None),
            ..untouched.clone()
        };
        let key = Key([1; 32]);
        assert!(peer_update(&untouched) == PeerConfigBuilder::new(&key));
        let expected = PeerConfigBuilder::new(&key)
            .unset_preshared_key()
            .unset_persistent_keepalive();
        assert!(peer_update(&unset) == expected);
    }
}
