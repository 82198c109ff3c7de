use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::body::open;
use super::super::scalar::{Fields, Read};
use super::{not_an_object, repeated};
use crate::document::{IbgpPeerSpec, MeshPeerSpec};
use crate::model::{AdminState, ObjectName};
use crate::wire::{Listing, PeerItem, Rejected, WireError};

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
    Ok(decode_peers(LIST, values, mesh_spec))
}

/// Reads the `ibgpPeers` of `GET bird-config`.
pub(super) fn decode_ibgp(values: &[Value]) -> Listing<PeerItem<IbgpPeerSpec>> {
    decode_peers("ibgpPeers", values, ibgp_spec)
}

fn mesh_spec(fields: &Fields<'_>, node_id: u16) -> Read<MeshPeerSpec> {
    Ok(MeshPeerSpec {
        admin_state: AdminState::Enabled,
        node_id,
        interface: fields.parsed("interface")?,
        endpoint: fields.parsed("endpoint")?,
        public_key: fields.required("publicKey", fields.parsed("publicKey")?)?,
        listen_port: fields.number("listenPort")?,
        mtu: fields.number("mtu")?,
        loopback_ipv4: fields.ipv4("loopbackIpv4")?,
        loopback_ipv6: fields.ipv6("loopbackIpv6")?,
        is_rr: fields.flag("isRr")?,
        link_local: fields.parsed("linkLocal")?,
        uuid: fields.parsed("uuid")?,
    })
}

fn ibgp_spec(fields: &Fields<'_>, node_id: u16) -> Read<IbgpPeerSpec> {
    let spec = IbgpPeerSpec {
        admin_state: AdminState::Enabled,
        node_id,
        loopback_ipv4: fields.ipv4("loopbackIpv4")?,
        loopback_ipv6: fields.ipv6("loopbackIpv6")?,
        is_rr: fields.flag("isRr")?.unwrap_or(false),
    };
    if spec.loopback_ipv4.is_none() && spec.loopback_ipv6.is_none() {
        return Err(fields.wrong(
            "loopbackIpv6",
            "and loopbackIpv4 are missing: BGP has no neighbour",
        ));
    }
    Ok(spec)
}

/// The fields of a peer that are read first, whether or not the rest is valid.
struct Head {
    node_id: Option<u16>,
    name: Option<ObjectName>,
}

impl Head {
    fn read(value: &Value) -> Self {
        let empty = Map::new();
        let fields = Fields::new(value.as_object().unwrap_or(&empty));
        let node_id = node_id(&fields).ok();
        Self {
            node_id,
            name: node_id.and_then(|id| name(&fields, id).ok()),
        }
    }
}

fn node_id(fields: &Fields<'_>) -> Read<u16> {
    fields.required("nodeId", fields.within("nodeId", 1, 65_535)?)
}

fn name(fields: &Fields<'_>, node_id: u16) -> Read<ObjectName> {
    Ok(given_name(fields)?.unwrap_or_else(|| ObjectName::sanitised(&format!("node{node_id}"))))
}

/// Returns the given name; `name` and `nodeName` are the same field. A text that is no valid file name is
/// sanitised.
fn given_name(fields: &Fields<'_>) -> Read<Option<ObjectName>> {
    let text = match fields.prose("name")? {
        Some(text) => Some(text),
        None => fields.prose("nodeName")?,
    };
    Ok(text.map(|text| {
        text.parse()
            .unwrap_or_else(|_| ObjectName::sanitised(&text))
    }))
}

fn decode_peers<S>(
    list: &str,
    values: &[Value],
    spec: fn(&Fields<'_>, u16) -> Read<S>,
) -> Listing<PeerItem<S>> {
    let heads: Vec<Head> = values.iter().map(Head::read).collect();
    let ids: BTreeSet<u16> = repeated(heads.iter().map(|head| head.node_id))
        .into_iter()
        .collect();
    let names: BTreeSet<ObjectName> = repeated(heads.iter().map(|h| h.name.clone()))
        .into_iter()
        .collect();
    let complete = ids.is_empty() && heads.iter().all(|head| head.node_id.is_some());
    let mut listing = Listing {
        items: Vec::new(),
        rejected: Vec::new(),
        complete,
    };
    for (index, (value, head)) in values.iter().zip(&heads).enumerate() {
        let item = peer(list, index, value, &ids, &names, spec);
        match item {
            Ok(item) => listing.items.push(item),
            Err(error) => listing.rejected.push(reject(value, head, error)),
        }
    }
    listing
}

fn peer<S>(
    list: &str,
    index: usize,
    value: &Value,
    ids: &BTreeSet<u16>,
    names: &BTreeSet<ObjectName>,
    spec: fn(&Fields<'_>, u16) -> Read<S>,
) -> Read<PeerItem<S>> {
    let Value::Object(map) = value else {
        return Err(not_an_object(list, index, value));
    };
    let fields = Fields::new(map);
    let node_id = node_id(&fields)?;
    if ids.contains(&node_id) {
        return Err(fields.wrong(
            "nodeId",
            format!("{node_id} is also used by another peer; both are ignored"),
        ));
    }
    let name = name(&fields, node_id)?;
    if names.contains(&name) {
        return Err(fields.wrong(
            "name",
            format!("{name} is also used by another peer; rename one of them"),
        ));
    }
    let spec = spec(&fields, node_id)?;
    Ok(PeerItem { name, spec })
}

fn reject(value: &Value, head: &Head, error: super::FieldError) -> Rejected {
    let empty = Map::new();
    let fields = Fields::new(value.as_object().unwrap_or(&empty));
    Rejected {
        uid: fields.parsed("uuid").ok().flatten(),
        node_id: head.node_id,
        name: head
            .name
            .clone()
            .or_else(|| given_name(&fields).ok().flatten()),
        status: None,
        interface: fields.parsed("interface").ok().flatten(),
        field: error.field,
        message: error.message,
        // The Control Plane has no status for a mesh peer or an internal neighbour.
        reportable: false,
    }
}
