//! Adopted interfaces as sessions of a Control Plane, in the words of its API.

use serde_json::{Map, Value, json};

use super::map::Adopted;
use crate::model::Uid;

/// A session that waits to be configured.
const QUEUED_FOR_SETUP: u8 = 4;

/// One item of `GET sessions`, with the fields of the running interface that the API cannot express.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetSession {
    pub item: Value,
    /// Fields of the document, as an override has them.
    pub lost: Vec<&'static str>,
}

/// Returns the session of an adopted interface. The item may hold its preshared key.
pub fn session(adopted: &Adopted, uid: &Uid) -> FleetSession {
    let spec = &adopted.document.spec;
    let (tunnel, address) = (&spec.tunnel, &spec.address);
    let mut credential = Map::new();
    if let Some(key) = tunnel.public_key {
        credential.insert("publicKey".to_owned(), key.to_string().into());
    }
    if let Some(key) = &adopted.preshared_key {
        let key = key.to_base64();
        credential.insert("presharedKey".to_owned(), key.expose().as_str().into());
    }
    let all = json!({
        "uuid": uid.as_str(),
        "asn": spec.asn.get(),
        "status": QUEUED_FOR_SETUP,
        "name": spec.description,
        "type": tunnel.tunnel_type,
        "interface": tunnel.interface,
        "listenPort": tunnel.listen_port,
        "mtu": tunnel.mtu,
        "endpoint": tunnel.endpoint,
        "ipv6LinkLocal": address.peer_link_local,
        "ipv6": address.peer_ipv6,
        "ipv4": address.peer_ipv4,
        "extensions": spec.bgp.extensions,
        "importLimit": spec.bgp.import_limit,
        "credential": credential,
    });
    let mut item = all.as_object().cloned().unwrap_or_default();
    item.retain(|_, value| !value.is_null());
    let lost = [
        ("tunnel.adopt", tunnel.adopt),
        (
            "tunnel.persistentKeepalive",
            tunnel.persistent_keepalive.is_some(),
        ),
        ("address.localLinkLocal", address.local_link_local.is_some()),
        ("address.localIpv4", address.local_ipv4.is_some()),
        ("address.localIpv6", address.local_ipv6.is_some()),
    ];
    let lost = lost.into_iter().filter(|(_, is_set)| *is_set);
    FleetSession {
        item: Value::Object(item),
        lost: lost.map(|(field, _)| field).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;
    use crate::model::PresharedKey;
    use crate::wire::reference::decode_sessions;

    #[test]
    fn written_session_is_read_as_the_same_specification() {
        let spec = json!({
            "asn": 4_242_421_001_u32,
            "description": "first peer",
            "tunnel": {
                "interface": "wg1", "adopt": true, "mtu": 1420, "listenPort": 21_001,
                "publicKey": "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
                "endpoint": "peer.example.net:51820", "persistentKeepalive": 25,
            },
            "address": {"peerLinkLocal": "fe80::1", "localIpv4": "172.20.0.1", "peerIpv4": "172.20.0.2"},
            "bgp": {"extensions": ["mp-bgp"], "importLimit": 9000},
        });
        let spec = serde_json::from_value(spec).unwrap();
        let adopted = Adopted {
            document: Document::new("wg1".parse().unwrap(), None, 0, spec),
            preshared_key: Some(PresharedKey::new([7; 32])),
            over: None,
        };
        let uid = "7d9f6a3e-0b1c-4c55-9a53-1f2f3a1c0001".parse().unwrap();
        let FleetSession { item, lost } = session(&adopted, &uid);
        assert_eq!(
            lost,
            [
                "tunnel.adopt",
                "tunnel.persistentKeepalive",
                "address.localIpv4"
            ]
        );
        let body = json!({"sessions": [item]}).to_string();
        let listing = decode_sessions(body.as_bytes()).unwrap();
        assert!(listing.rejected.is_empty(), "{:?}", listing.rejected);
        let read = &listing.items[0];
        let read_spec = read.spec.clone().unwrap();
        assert_eq!(read.preshared_key, adopted.preshared_key);
        let mut want = adopted.document.spec;
        want.tunnel.adopt = false;
        want.tunnel.persistent_keepalive = None;
        want.address.local_ipv4 = None;
        assert_eq!(read_spec, want);
    }
}
