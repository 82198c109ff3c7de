use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::body::open;
use super::super::read::{Read, or, prose, read, read_rest, required};
use super::{of_item, repeated, shapes};
use crate::document::v1::rules::positive_or_none;
use crate::document::{IbgpPeerSpec, MeshPeerSpec};
use crate::model::{AdminState, InterfaceName, ObjectName, Uid};
use crate::wire::{FieldError, Listing, PeerItem, Rejected, WireError};

/// Reads `GET mesh` (docs/contract/node-policy-mesh.md#mesh).
///
/// # Errors
/// The body is not a whole list.
pub fn decode_mesh(body: &[u8]) -> Result<Listing<PeerItem<MeshPeerSpec>>, WireError> {
    const LIST: &str = "peers";
    let map = open(body, LIST, true)?;
    let values: &[Value] = map
        .get(LIST)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice);
    Ok(decode_peers(LIST, values, mesh_peer))
}

/// Reads the `ibgpPeers` of `GET bird-config`.
pub(super) fn decode_ibgp(values: &[Value]) -> Listing<PeerItem<IbgpPeerSpec>> {
    decode_peers("ibgpPeers", values, ibgp_peer)
}

fn mesh_peer(peer: shapes::MeshPeer) -> Read<PeerItem<MeshPeerSpec>> {
    let name = name(peer.name, peer.node_name.as_ref(), peer.node_id)?;
    let spec = MeshPeerSpec {
        admin_state: AdminState::Enabled,
        node_id: peer.node_id,
        interface: peer.interface,
        endpoint: peer.endpoint,
        public_key: required("publicKey", peer.public_key)?,
        listen_port: peer.listen_port.map(|port| port.0),
        mtu: peer.mtu.map(|mtu| mtu.0),
        loopback_ipv4: peer.loopback_ipv4,
        loopback_ipv6: peer.loopback_ipv6,
        is_rr: peer.is_rr,
        link_local: peer.link_local,
        uuid: peer.uuid,
    };
    Ok(PeerItem { name, spec })
}

fn ibgp_peer(peer: shapes::IbgpPeer) -> Read<PeerItem<IbgpPeerSpec>> {
    let name = name(peer.name, peer.node_name.as_ref(), peer.node_id)?;
    let spec = IbgpPeerSpec {
        admin_state: AdminState::Enabled,
        node_id: peer.node_id,
        loopback_ipv4: peer.loopback_ipv4,
        loopback_ipv6: peer.loopback_ipv6,
        is_rr: peer.is_rr.unwrap_or(false),
    };
    if spec.loopback_ipv4.is_none() && spec.loopback_ipv6.is_none() {
        return Err(FieldError::new(
            "loopbackIpv6",
            "is missing, and so is loopbackIpv4: BGP has no neighbour",
        ));
    }
    Ok(PeerItem { name, spec })
}

/// Returns the given name, else `node<id>`. A text that is no valid file name is sanitised.
fn name(name: Option<String>, node_name: Option<&Value>, node_id: u16) -> Read<ObjectName> {
    let text = or(prose(name), "nodeName", node_name)?;
    Ok(given_name(text).unwrap_or_else(|| default_name(node_id)))
}

fn default_name(node_id: u16) -> ObjectName {
    ObjectName::sanitised(&format!("node{node_id}"))
}

fn given_name(text: Option<String>) -> Option<ObjectName> {
    let text = prose(text)?;
    Some(
        text.parse()
            .unwrap_or_else(|_| ObjectName::sanitised(&text)),
    )
}

/// The fields of a peer that are read first, whether or not the rest is valid.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    #[serde(deserialize_with = "positive_or_none")]
    node_id: Option<u16>,
    name: Option<String>,
    node_name: Option<String>,
    uuid: Option<Uid>,
    interface: Option<InterfaceName>,
}

impl Head {
    fn name(&self) -> Option<ObjectName> {
        given_name(self.name.clone())
            .or_else(|| given_name(self.node_name.clone()))
            .or_else(|| self.node_id.map(default_name))
    }
}

fn decode_peers<P: DeserializeOwned, S>(
    list: &str,
    values: &[Value],
    item: fn(P) -> Read<PeerItem<S>>,
) -> Listing<PeerItem<S>> {
    let heads: Vec<Head> = values
        .iter()
        .map(|value| read_rest(value).0.unwrap_or_default())
        .collect();
    let ids = repeated(heads.iter().map(|head| head.node_id));
    let identified = heads.iter().filter(|head| head.node_id.is_some());
    let names = repeated(identified.map(Head::name));
    let mut listing = Listing {
        items: Vec::new(),
        rejected: Vec::new(),
        complete: ids.is_empty() && heads.iter().all(|head| head.node_id.is_some()),
    };
    for (index, (value, head)) in values.iter().zip(heads).enumerate() {
        let unique = unique_id(&head, &ids);
        let read = unique.and_then(|()| read(value).and_then(item));
        match read.and_then(|item| unique_name(item, &names)) {
            Ok(item) => listing.items.push(item),
            Err(error) => listing
                .rejected
                .push(reject(head, of_item(list, index, error))),
        }
    }
    listing
}

fn unique_id(head: &Head, repeated: &BTreeSet<u16>) -> Read<()> {
    match head.node_id.filter(|id| repeated.contains(id)) {
        None => Ok(()),
        Some(id) => Err(FieldError::new(
            "nodeId",
            format!("{id} is also used by another peer; both are ignored"),
        )),
    }
}

fn unique_name<S>(item: PeerItem<S>, repeated: &BTreeSet<ObjectName>) -> Read<PeerItem<S>> {
    if repeated.contains(&item.name) {
        let message = format!(
            "{} is also used by another peer; rename one of them",
            item.name
        );
        return Err(FieldError::new("name", message));
    }
    Ok(item)
}

fn reject(head: Head, error: FieldError) -> Rejected {
    Rejected {
        node_id: head.node_id,
        name: head.name(),
        uid: head.uuid,
        status: None,
        interface: head.interface,
        field: error.field,
        message: error.message,
        // The Control Plane has no status for a mesh peer or an internal neighbour.
        reportable: false,
    }
}
