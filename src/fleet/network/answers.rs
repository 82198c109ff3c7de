//! The answers of each router, in the form of the API.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::finding::Finding;
use super::topology::{Named, is_reflector, link};
use super::{MeshKeys, Network};
use crate::document::{Location, parse_value};
use crate::model::{Endpoint, ObjectName, Port, PublicKey, Uid};

impl Network {
    /// Returns `GET config` of a router; `None` for an unknown one.
    pub fn config(&self, name: &ObjectName) -> Option<Map<String, Value>> {
        let router = self.routers.get(name)?;
        let node = object(json!({
            "id": router.id,
            "name": name,
            "region": router.region,
            "asn": self.spec.asn,
            "loopbackIpv4": self.loopback_ipv4(router),
            "loopbackIpv6": self.loopback_ipv6(router),
            "linkLocal": router.link_local,
        }));
        Some(Map::from_iter([("node".to_owned(), Value::Object(node))]))
    }

    /// Returns `GET mesh` of a router; `None` for an unknown one. A peer whose key is unknown has none in the list: its
    /// agent rejects the peer and keeps the tunnel that it may have. A list without the peer would remove that tunnel.
    pub fn mesh(&self, name: &ObjectName, keys: &MeshKeys) -> Option<Map<String, Value>> {
        let own = self.named(name)?;
        let peers = self.tunnel_peers(own).map(|peer| {
            let key = peer.1.mesh.public_key;
            let key = key.or_else(|| keys.get(&peer.1.id).copied());
            self.mesh_peer(own, peer, key)
        });
        Some(Map::from_iter([("peers".to_owned(), peers.collect())]))
    }

    fn mesh_peer(&self, own: Named<'_>, peer: Named<'_>, key: Option<PublicKey>) -> Value {
        let (here, there) = (link(own.1, peer.0), link(peer.1, own.0));
        let mtu = here
            .and_then(|link| link.mtu)
            .or(there.and_then(|link| link.mtu));
        let interface = here.and_then(|link| link.interface.as_ref());
        Value::Object(object(json!({
            "nodeId": peer.1.id,
            "name": peer.0,
            "endpoint": self.endpoint(own, peer),
            "publicKey": key,
            "listenPort": self.listen_port(own, peer),
            "mtu": mtu.or(self.spec.mesh.mtu),
            "interface": interface,
            "loopbackIpv4": self.loopback_ipv4(peer.1),
            "loopbackIpv6": self.loopback_ipv6(peer.1),
            "isRr": is_reflector(peer.1).then_some(true),
            "linkLocal": peer.1.link_local,
            "uuid": tunnel_uid(own.1.id, peer.1.id),
        })))
    }

    /// Returns the port on which a router listens for a peer: the given one, else the sum of the base and the
    /// peer's id.
    pub(super) fn listen_port(&self, own: Named<'_>, peer: Named<'_>) -> Option<Port> {
        let derived = || {
            self.spec
                .mesh
                .port_base
                .checked_add(peer.1.id)
                .and_then(Port::new)
        };
        link(own.1, peer.0)
            .and_then(|link| link.listen_port)
            .or_else(derived)
    }

    /// Returns where a router calls a peer: the given endpoint, else the peer's address and its port for this router.
    pub(super) fn endpoint(&self, own: Named<'_>, peer: Named<'_>) -> Option<Endpoint> {
        let given = link(own.1, peer.0).and_then(|link| link.endpoint.clone());
        given.or_else(|| {
            Some(Endpoint {
                host: peer.1.address.clone()?,
                port: self.listen_port(peer, own)?,
            })
        })
    }

    /// Returns `GET bird-config` of a router without its hash; `None` for an unknown one.
    pub fn bird_config(&self, name: &ObjectName) -> Option<Map<String, Value>> {
        let own = self.named(name)?;
        let mut policy = object(json!({
            "dn42As": self.spec.asn,
            "dn42Ipv4Prefix": self.spec.prefixes.ipv4,
            "dn42Ipv6Prefix": self.spec.prefixes.ipv6,
        }));
        policy.extend(self.spec.policy.clone());
        policy.extend(own.1.policy.clone());
        let peers: Vec<Value> = self
            .ibgp_peers(own)
            .map(|peer| self.ibgp_peer(peer))
            .collect();
        let answer = json!({"node": self.policy_node(own), "policy": policy, "ibgpPeers": peers});
        Some(object(answer))
    }

    fn ibgp_peer(&self, peer: Named<'_>) -> Value {
        Value::Object(object(json!({
            "nodeId": peer.1.id,
            "nodeName": peer.0,
            "loopbackIpv4": self.loopback_ipv4(peer.1),
            "loopbackIpv6": self.loopback_ipv6(peer.1),
            "isRr": is_reflector(peer.1),
        })))
    }

    fn policy_node(&self, own: Named<'_>) -> Map<String, Value> {
        let (name, router) = own;
        let region = router.region.as_ref();
        let region = region.and_then(|region| self.spec.regions.get(region));
        let Location {
            continent,
            subregion,
            region_code,
            region_community,
            country,
            bandwidth,
        } = &router.location;
        let subregion = subregion.or(region.and_then(|region| region.subregion));
        let community = region_community.or(region.and_then(|region| region.region_community));
        let continent = continent.or(region.and_then(|region| region.continent));
        let bandwidth = router.bandwidth.or(*bandwidth);
        object(json!({
            "id": router.id,
            "name": name,
            "type": router.node_type,
            "bandwidth": bandwidth.or(region.and_then(|region| region.bandwidth)),
            "regionCode": region_code.or(region.and_then(|region| region.region_code)),
            "continentLc": continent.map(|name| format!("LC_ORIGIN_{name}")),
            "subregionLc": subregion.map(|name| format!("LC_REGION_{name}")),
            // DN42's regions are the same as those of our large communities.
            "regionCommunity": community.or(subregion).map(|name| format!("DN42_REGION_{name}")),
            "country": country.or(region.and_then(|region| region.country)),
        }))
    }
}

/// A tunnel between two routers, with its identity in reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub one: ObjectName,
    pub other: ObjectName,
    pub uuid: Uid,
}

impl Network {
    /// Returns each tunnel once.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        let mut found = Vec::new();
        for own in self.routers() {
            for peer in self.tunnel_peers(own).filter(|peer| peer.0 > own.0) {
                let uuid = tunnel_uid(own.1.id, peer.1.id);
                found.extend(uuid.map(|uuid| Tunnel {
                    one: own.0.clone(),
                    other: peer.0.clone(),
                    uuid,
                }));
            }
        }
        found
    }
}

/// Returns the session in a file.
///
/// # Errors
/// The file is no mapping; a list without its session would remove it.
pub fn session(path: &str, text: &str) -> Result<Value, Finding> {
    let session: Result<Map<String, Value>, _> = parse_value(text);
    session
        .map(Value::Object)
        .map_err(|error| Finding::syntax(path.as_ref(), error))
}

/// Returns the identity of a tunnel in reports, the same on both sides.
fn tunnel_uid(one: u16, other: u16) -> Option<Uid> {
    let (low, high) = (one.min(other), one.max(other));
    format!("mesh-{low}-{high}").parse().ok()
}

/// Returns the fields that have a value.
fn object(value: impl Serialize) -> Map<String, Value> {
    let mut fields = match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    fields.retain(|_, value| !value.is_null());
    fields
}
