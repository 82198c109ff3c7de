//! WireGuard of the kernel, over one kept socket.
//!
//! Messages hold keys, and errors of the crates may hold whole messages in their text: only the error number or the
//! kind is passed on, and no message is ever printed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;

use futures::StreamExt as _;
use genetlink::{GenetlinkError, GenetlinkHandle};
use ipnet::IpNet;
use jiff::Timestamp;
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use rtnetlink::packet_core::{Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use rustix::io::Errno;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use super::connection::{Connection, Reply, collect, dump, ended};
use crate::model::{Port, PresharedKey, PublicKey};
use crate::observed::kernel::{self, WireGuard};
use crate::plan::action::{PeerPatch, WireGuardPatch};
use crate::util::sorted::Sorted as _;

/// Size of the peers in one message, in bytes: an attribute is at most 64 KiB long.
const MAX_PEERS: usize = 32 * 1024;

/// The devices of the kernel.
pub(super) struct Devices {
    connection: Connection<GenetlinkHandle>,
    /// The kernel answers EBUSY to a second dump on one socket while the first runs, and a device is read by a dump.
    reading: tokio::sync::Mutex<()>,
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            connection: Connection::new(open),
            reading: tokio::sync::Mutex::default(),
        }
    }
}

fn open(runtime: &Runtime) -> io::Result<(GenetlinkHandle, AbortHandle)> {
    let (mut connection, handle, _) = genetlink::new_connection()?;
    // Without these the end of an answer and the end of a failing connection look the same.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    Ok((handle, runtime.spawn(connection).abort_handle()))
}

impl Devices {
    /// Reads the configuration of a link.
    pub(super) async fn get(&self, index: u32) -> io::Result<WireGuard> {
        let _turn = self.reading.lock().await;
        let device = vec![WireguardAttribute::IfIndex(index)];
        let read = || self.exchange(WireguardCmd::GetDevice, device.clone(), NLM_F_DUMP);
        let parts = dump(read).await?.into_iter();
        Ok(from_device(parts.flat_map(|part| part.payload.attributes)))
    }

    /// Changes the configuration of a link.
    pub(super) async fn set(&self, index: u32, patch: &WireGuardPatch) -> io::Result<()> {
        for change in changes(index, patch)? {
            self.exchange(WireguardCmd::SetDevice, change, NLM_F_ACK)
                .await?;
        }
        Ok(())
    }

    async fn exchange(
        &self,
        cmd: WireguardCmd,
        attributes: Vec<WireguardAttribute>,
        flags: u16,
    ) -> io::Result<Reply<GenlMessage<WireguardMessage>>> {
        let message = WireguardMessage { cmd, attributes };
        let request = NetlinkMessage::from(GenlMessage::from_payload(message));
        let again = request.clone();
        let exchanged = self
            .connection
            .exchange(|handle| converse(handle, request, flags));
        match exchanged.await {
            // The module was loaded again, and has another number than this connection knows.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                self.connection.disconnect();
                let exchanged = self
                    .connection
                    .exchange(|handle| converse(handle, again, flags));
                exchanged.await
            }
            exchanged => exchanged,
        }
    }
}

/// Sends one request and collects the answer.
async fn converse(
    mut handle: GenetlinkHandle,
    mut request: NetlinkMessage<GenlMessage<WireguardMessage>>,
    flags: u16,
) -> io::Result<Reply<GenlMessage<WireguardMessage>>> {
    request.header.flags = NLM_F_REQUEST | flags;
    let answers = handle.request(request).await.map_err(silent)?;
    collect(answers.map(|answer| answer.map_err(|_| io::ErrorKind::InvalidData.into()))).await
}

/// Returns the number of an error, without its text.
fn silent(error: GenetlinkError) -> io::Error {
    match error {
        GenetlinkError::NetlinkError(error) => match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.kind().into(),
        },
        GenetlinkError::ProtocolError(_) => ended(),
        _ => io::ErrorKind::InvalidData.into(),
    }
}

fn from_device(attributes: impl Iterator<Item = WireguardAttribute>) -> WireGuard {
    let mut device = WireGuard::default();
    let mut peers = Vec::new();
    for attribute in attributes {
        match attribute {
            WireguardAttribute::PublicKey(key) if key != [0; 32] => {
                device.public_key = Some(PublicKey::new(key));
            }
            WireguardAttribute::ListenPort(port) => device.listen_port = Port::new(port),
            WireguardAttribute::Peers(part) => peers.extend(part),
            _ => {}
        }
    }
    device.peers = merged(peers.into_iter().filter_map(from_peer));
    device
}

/// Merges repeated peers. A peer whose allowed IPs do not fit one message comes again in the next, with only its key and
/// the remaining ones (`WGPEER_A_ALLOWEDIPS` in linux/wireguard.h).
fn merged(
    peers: impl Iterator<Item = (PublicKey, kernel::WireGuardPeer)>,
) -> BTreeMap<PublicKey, Box<kernel::WireGuardPeer>> {
    let mut merged: BTreeMap<_, Box<kernel::WireGuardPeer>> = BTreeMap::new();
    for (key, peer) in peers {
        match merged.entry(key) {
            Entry::Vacant(place) => drop(place.insert(peer.into())),
            Entry::Occupied(mut first) => first.get_mut().allowed_ips.extend(peer.allowed_ips),
        }
    }
    merged
}

fn from_peer(
    WireguardPeer(attributes): WireguardPeer,
) -> Option<(PublicKey, kernel::WireGuardPeer)> {
    let (mut public_key, mut peer) = (None, kernel::WireGuardPeer::default());
    for attribute in attributes {
        match attribute {
            WireguardPeerAttribute::PublicKey(key) => public_key = Some(PublicKey::new(key)),
            WireguardPeerAttribute::PresharedKey(key) => {
                peer.preshared_key = Some(PresharedKey::new(key));
            }
            WireguardPeerAttribute::Endpoint(at) => {
                peer.endpoint = Some(SocketAddr::new(at.ip().to_canonical(), at.port()));
            }
            WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = Some(seconds),
            // Zero means never.
            WireguardPeerAttribute::LastHandshake(at) if at.seconds != 0 => {
                let nanoseconds = i32::try_from(at.nano_seconds).unwrap_or_default();
                peer.last_handshake = Timestamp::new(at.seconds, nanoseconds).ok();
            }
            WireguardPeerAttribute::RxBytes(bytes) => peer.rx_bytes = bytes,
            WireguardPeerAttribute::TxBytes(bytes) => peer.tx_bytes = bytes,
            WireguardPeerAttribute::AllowedIps(nets) => {
                peer.allowed_ips = nets.into_iter().filter_map(from_allowed_ip).sorted_set();
            }
            _ => {}
        }
    }
    Some((public_key?, peer.normalised()))
}

fn from_allowed_ip(WireguardAllowedIp(attributes): WireguardAllowedIp) -> Option<IpNet> {
    let (mut address, mut length) = (None, None);
    for attribute in attributes {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(found) => address = Some(found),
            WireguardAllowedIpAttr::Cidr(found) => length = Some(found),
            _ => {}
        }
    }
    Some(IpNet::new(address?, length?).ok()?.trunc())
}

/// Returns the changes of a patch, each the attributes of one message.
///
/// # Errors
/// A peer that does not fit one message.
fn changes(index: u32, patch: &WireGuardPatch) -> io::Result<Vec<Vec<WireguardAttribute>>> {
    let mut first = vec![WireguardAttribute::IfIndex(index)];
    if let Some(key) = &patch.private_key {
        first.push(WireguardAttribute::PrivateKey(*key.expose()));
    }
    if let Some(port) = patch.listen_port {
        first.push(WireguardAttribute::ListenPort(port.get()));
    }
    if patch.release_port {
        first.push(WireguardAttribute::ListenPort(0));
    }
    let removed = patch.remove_peers.iter().map(to_removal);
    let mut changes = vec![first];
    for part in parts(removed.chain(patch.peers.iter().map(to_peer)))? {
        let peers = WireguardAttribute::Peers(part);
        match changes.as_mut_slice() {
            [first] if !has_peers(first) => first.push(peers),
            _ => changes.push(vec![WireguardAttribute::IfIndex(index), peers]),
        }
    }
    Ok(changes)
}

fn has_peers(attributes: &[WireguardAttribute]) -> bool {
    matches!(attributes.last(), Some(WireguardAttribute::Peers(_)))
}

/// Splits peers into parts that fit one message each.
fn parts(peers: impl Iterator<Item = WireguardPeer>) -> io::Result<Vec<Vec<WireguardPeer>>> {
    let mut parts: Vec<Vec<WireguardPeer>> = Vec::new();
    let mut size = MAX_PEERS;
    for peer in peers {
        // The peer's attribute has a head of its own.
        let length = peer.as_slice().buffer_len() + 4;
        if length > usize::from(u16::MAX) - 4 {
            return Err(io::Error::other(
                "a peer has more allowed IPs than one message can hold",
            ));
        }
        size += length;
        match parts.last_mut() {
            Some(part) if size <= MAX_PEERS => part.push(peer),
            _ => {
                size = length;
                parts.push(vec![peer]);
            }
        }
    }
    Ok(parts)
}

fn to_removal(key: &PublicKey) -> WireguardPeer {
    WireguardPeer(vec![
        WireguardPeerAttribute::PublicKey(*key.bytes()),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
    ])
}

fn to_peer(patch: &PeerPatch) -> WireguardPeer {
    let mut attributes = vec![WireguardPeerAttribute::PublicKey(*patch.public_key.bytes())];
    if let Some(key) = &patch.preshared_key {
        let key = key.as_ref().map_or([0; 32], |key| *key.expose());
        attributes.push(WireguardPeerAttribute::PresharedKey(key));
    }
    let endpoint = patch.endpoint.map(WireguardPeerAttribute::Endpoint);
    attributes.extend(endpoint);
    if let Some(seconds) = patch.keepalive {
        let seconds = seconds.unwrap_or_default();
        attributes.push(WireguardPeerAttribute::PersistentKeepalive(seconds));
    }
    if let Some(nets) = &patch.allowed_ips {
        let nets = nets.iter().map(to_allowed_ip).collect();
        attributes.extend([
            WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
            WireguardPeerAttribute::AllowedIps(nets),
        ]);
    }
    WireguardPeer(attributes)
}

fn to_allowed_ip(net: &IpNet) -> WireguardAllowedIp {
    let family = match net {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(net.addr()),
        WireguardAllowedIpAttr::Cidr(net.prefix_len()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untouched() -> PeerPatch {
        PeerPatch {
            public_key: PublicKey::new([1; 32]),
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            allowed_ips: None,
        }
    }

    #[test]
    fn error_of_a_crate_loses_its_text() {
        let text = "PresharedKey([1, 2])";
        let error = io::Error::new(io::ErrorKind::InvalidInput, text);
        assert!(
            !silent(GenetlinkError::NetlinkError(error))
                .to_string()
                .contains(text)
        );
        let error = io::Error::from_raw_os_error(98);
        let number = silent(GenetlinkError::NetlinkError(error)).raw_os_error();
        assert_eq!(number, Some(98));
        let error = silent(GenetlinkError::AttributeNotFound(text.to_owned()));
        assert!(!error.to_string().contains(text));
    }

    #[test]
    fn peer_split_over_two_messages_keeps_all_allowed_ips() {
        let peer = |net: &str, keepalive| {
            let nets = vec![to_allowed_ip(&net.parse().unwrap())];
            WireguardPeer(vec![
                WireguardPeerAttribute::PublicKey([1; 32]),
                WireguardPeerAttribute::PersistentKeepalive(keepalive),
                WireguardPeerAttribute::AllowedIps(nets),
            ])
        };
        let parts = [peer("10.0.0.0/8", 25), peer("fd00::/8", 0)];
        let parts = parts.map(|peer| WireguardAttribute::Peers(vec![peer]));
        let device = from_device(parts.into_iter());
        let peer = &device.peers[&PublicKey::new([1; 32])];
        assert_eq!((peer.allowed_ips.len(), peer.keepalive), (2, Some(25)));
    }

    #[test]
    fn unset_and_untouched_are_different_requests() {
        let unset = PeerPatch {
            preshared_key: Some(None),
            keepalive: Some(None),
            ..untouched()
        };
        let key = WireguardPeerAttribute::PublicKey([1; 32]);
        assert_eq!(to_peer(&untouched()).0, std::slice::from_ref(&key));
        let expected = [
            key,
            WireguardPeerAttribute::PresharedKey([0; 32]),
            WireguardPeerAttribute::PersistentKeepalive(0),
        ];
        assert_eq!(to_peer(&unset).0, expected);
    }

    #[test]
    fn many_peers_go_in_several_messages() {
        let patch = WireGuardPatch {
            listen_port: Port::new(4242),
            remove_peers: (0..2000_u16)
                .map(|number| {
                    let mut key = [0; 32];
                    key[..2].copy_from_slice(&number.to_be_bytes());
                    PublicKey::new(key)
                })
                .collect(),
            ..WireGuardPatch::default()
        };
        let changes = changes(7, &patch).unwrap();
        let peers = |change: &Vec<WireguardAttribute>| match change.last() {
            Some(WireguardAttribute::Peers(peers)) => peers.len(),
            _ => 0,
        };
        assert!(changes.len() > 1);
        assert_eq!(changes.iter().map(peers).sum::<usize>(), 2000);
        let port = WireguardAttribute::ListenPort(4242);
        assert_eq!(
            changes
                .iter()
                .filter(|change| change.contains(&port))
                .count(),
            1
        );
        for change in &changes {
            assert_eq!(change[0], WireguardAttribute::IfIndex(7));
        }
    }

    #[test]
    fn peer_larger_than_a_message_is_refused() {
        let nets = (0..4000_u32).map(|net| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + (net << 8));
            IpNet::new(address.into(), 24).unwrap()
        });
        let patch = WireGuardPatch {
            peers: vec![PeerPatch {
                allowed_ips: Some(nets.collect()),
                ..untouched()
            }],
            ..WireGuardPatch::default()
        };
        changes(7, &patch).unwrap_err();
    }
}
