use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::body::open;
use super::super::read::{Read, cut, or, prose, read, read_rest, required};
use super::shapes::{Credential, Digits, Session};
use super::{WireStatus, of_item, repeated};
use crate::document::{AddressSpec, BgpSessionSpec, BgpSpec, TunnelSpec};
use crate::model::{
    Asn, Endpoint, Host, InterfaceName, Invalid, LinkLocal, PeerIpv6, Port, PresharedKey, Secret,
    TunnelType, Uid, shown,
};
use crate::util::sorted::Sorted as _;
use crate::wire::{FieldError, Listing, Rejected, SessionItem, WireError};

const LIST: &str = "sessions";

/// The port of a GRE endpoint without a port. GRE has no ports, but the form of an endpoint requires one; this is
/// GRE's own protocol number, and no code reads it.
const GRE_PORT: &str = "47";

/// Reads `GET sessions` (docs/contract/session.md).
///
/// # Errors
/// The body is not a whole list.
pub fn decode_sessions(body: &[u8]) -> Result<Listing<SessionItem>, WireError> {
    let map = open(body, LIST, true)?;
    let values: &[Value] = map
        .get(LIST)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice);
    let heads: Vec<Head> = values.iter().map(Head::read).collect();
    let twice = repeated(heads.iter().map(|head| head.uuid.clone()));
    // One uuid has one status to overwrite, so all of its items must allow it.
    let unreportable = heads.iter().filter(|head| !head.takes_error());
    let unreportable = unreportable
        .filter_map(|head| head.uuid.as_ref())
        .sorted_set();
    let mut listing = Listing {
        items: Vec::new(),
        rejected: Vec::new(),
        complete: twice.is_empty() && heads.iter().all(|head| head.uuid.is_some()),
    };
    for (index, (value, head)) in values.iter().zip(&heads).enumerate() {
        match decode_item(value, head, &twice) {
            Ok(item) => listing.items.push(item),
            Err(error) => {
                let uuid = head.uuid.as_ref();
                let reportable = uuid.is_some_and(|uuid| !unreportable.contains(uuid));
                listing.rejected.push(Rejected {
                    reportable,
                    ..head.reject(of_item(LIST, index, error))
                });
            }
        }
    }
    Ok(listing)
}

/// The fields of an item that are read first, whether or not the rest is valid.
#[derive(Default, Deserialize)]
struct Head {
    uuid: Option<Uid>,
    status: Option<WireStatus>,
    asn: Option<Asn>,
    interface: Option<InterfaceName>,
}

impl Head {
    fn read(value: &Value) -> Self {
        let (head, errors) = read_rest::<Self>(value);
        let head = head.unwrap_or_default();
        let default = head
            .asn
            .filter(|_| errors.iter().all(|error| error.field != "interface"));
        Self {
            uuid: head.uuid.filter(|uuid| !uuid.is_ours()),
            interface: head.interface.or_else(|| default_interface(default?)),
            ..head
        }
    }

    fn takes_error(&self) -> bool {
        self.status.is_some_and(WireStatus::takes_error)
    }

    fn reject(&self, error: FieldError) -> Rejected {
        Rejected {
            uid: self.uuid.clone(),
            node_id: None,
            name: None,
            status: self.status,
            interface: self.interface.clone(),
            field: error.field,
            message: error.message,
            reportable: false,
        }
    }
}

/// The fields without which no session is read, not even one to remove.
#[derive(Deserialize)]
struct Identity {
    uuid: Uid,
    status: WireStatus,
}

fn decode_item(value: &Value, head: &Head, twice: &BTreeSet<Uid>) -> Read<SessionItem> {
    let Identity { uuid: uid, status } = read(value)?;
    if uid.is_ours() {
        let uid = shown(uid.as_str());
        let message = format!("{uid} is reserved for the agent's own objects");
        return Err(FieldError::new("uuid", message));
    }
    if twice.contains(&uid) {
        let message = "is also used by another session; both are ignored";
        return Err(FieldError::new("uuid", message));
    }
    let wanted = match decode_wanted(value) {
        Ok(wanted) => wanted,
        // A removal needs only the identity.
        Err(_) if status == WireStatus::QueuedForDelete => Wanted::default(),
        Err(error) => return Err(error),
    };
    Ok(SessionItem {
        uid,
        status,
        name_hint: head.interface.clone(),
        spec: wanted.spec,
        preshared_key: wanted.preshared_key,
        password: wanted.password,
    })
}

/// The specification of a session, and the secrets that its document does not contain.
#[derive(Default)]
struct Wanted {
    spec: Option<BgpSessionSpec>,
    preshared_key: Option<PresharedKey>,
    password: Option<Secret<String>>,
}

fn decode_wanted(value: &Value) -> Read<Wanted> {
    let session: Session = read(&*with_credential(value)?)?;
    let credential = session.credential.unwrap_or_default();
    let spec = BgpSessionSpec {
        admin_state: session.status.0.admin_state(),
        asn: required("asn", session.asn)?.0,
        description: description(session.description, session.name.as_ref())?,
        tunnel: TunnelSpec {
            tunnel_type: session.tunnel_type.unwrap_or_default(),
            interface: session.interface,
            listen_port: listen_port(session.listen_port, session.port.as_ref())?,
            mtu: session.mtu.map(|mtu| mtu.0),
            public_key: credential.public_key,
            ..TunnelSpec::default()
        },
        address: address(session.ipv6_link_local, session.ipv6, session.ipv4)?,
        bgp: BgpSpec {
            extensions: session.extensions,
            policy: session.policy.unwrap_or_default(),
            multihop: session.multihop,
            // 0 means no limit of its own, as in the routing policy.
            import_limit: session.import_limit.filter(|limit| *limit > 0),
            export_limit: session.export_limit.filter(|limit| *limit > 0),
            ..BgpSpec::default()
        },
    };
    let other = session
        .preshared_key
        .map(|key| json!({"presharedKey": key}));
    let preshared_key = match (credential.preshared_key, other) {
        (None, Some(other)) => read::<Credential>(&other)?.preshared_key,
        (key, _) => key,
    };
    Ok(Wanted {
        spec: Some(with_endpoint(spec, session.endpoint.as_deref())?),
        preshared_key: preshared_key.filter(|key| !key.is_zero()),
        password: session.password,
    })
}

/// Returns the session with its credential as an object: it may be a text that contains one, or a bare public key.
/// No error shows the text, since it may contain a preshared key.
fn with_credential(value: &Value) -> Read<Cow<'_, Value>> {
    let Some(text) = value.get("credential").and_then(Value::as_str) else {
        return Ok(Cow::Borrowed(value));
    };
    let credential = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = format!("begins like JSON but is invalid (line {line}, column {column})");
            FieldError::new("credential", message)
        })?,
        false => json!({"publicKey": text}),
    };
    let mut value = value.clone();
    value["credential"] = credential;
    Ok(Cow::Owned(value))
}

/// Returns the interface of a session that names none: `wg_<asn>`; ten digits fit.
fn default_interface(asn: Asn) -> Option<InterfaceName> {
    format!("wg_{asn}").parse().ok()
}

fn description(description: Option<String>, name: Option<&Value>) -> Read<Option<String>> {
    let text = prose(or(prose(description), "name", name)?);
    Ok(text.as_deref().map(cut))
}

fn listen_port(port: Option<Digits<Port>>, other: Option<&Value>) -> Read<Option<Port>> {
    Ok(or(port, "port", other)?.map(|port| port.0))
}

/// Returns the session with the endpoint of its tunnel.
fn with_endpoint(spec: BgpSessionSpec, text: Option<&str>) -> Read<BgpSessionSpec> {
    let tunnel_type = spec.tunnel.tunnel_type;
    let endpoint = match tunnel_type {
        TunnelType::Wireguard => {
            required("credential.publicKey", spec.tunnel.public_key)?;
            let endpoint = text.map(str::parse).transpose();
            endpoint.map_err(|Invalid(why)| FieldError::new("endpoint", why))?
        }
        TunnelType::Gre | TunnelType::Ip6gre => {
            Some(gre_endpoint(required("endpoint", text)?, tunnel_type)?)
        }
    };
    let tunnel = TunnelSpec {
        endpoint,
        ..spec.tunnel
    };
    Ok(BgpSessionSpec { tunnel, ..spec })
}

/// Returns the endpoint: `host`, an address without brackets, or `host:port`, whose port has no meaning.
fn gre_endpoint(text: &str, tunnel_type: TunnelType) -> Read<Endpoint> {
    let with_port = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{GRE_PORT}"),
        Ok(IpAddr::V4(address)) => format!("{address}:{GRE_PORT}"),
        Err(_) if text.parse::<Endpoint>().is_ok() => text.to_owned(),
        Err(_) => format!("{text}:{GRE_PORT}"),
    };
    let endpoint: Endpoint = with_port.parse().map_err(|_| {
        let text = shown(text);
        let message = format!("of a GRE tunnel is a name or an address, not {text}");
        FieldError::new("endpoint", message)
    })?;
    let wrong = match (&endpoint.host, tunnel_type) {
        (Host::Address(IpAddr::V6(_)), TunnelType::Gre) => {
            "is an IPv6 address; a tunnel over IPv6 has type ip6gre"
        }
        (Host::Address(IpAddr::V4(_)), TunnelType::Ip6gre) => {
            "is an IPv4 address; a tunnel over IPv4 has type gre"
        }
        _ => return Ok(endpoint),
    };
    Err(FieldError::new("endpoint", wrong))
}

/// Returns the peer's addresses. A link-local `ipv6` and an `ipv6LinkLocal` both name the neighbour; the latter
/// takes precedence.
fn address(
    link_local: Option<LinkLocal>,
    ipv6: Option<PeerIpv6>,
    peer_ipv4: Option<Ipv4Addr>,
) -> Read<AddressSpec> {
    let other = ipv6.and_then(|ipv6| LinkLocal::try_from(ipv6.get()).ok());
    let peer_ipv6 = ipv6.filter(|_| other.is_none());
    let peer_link_local = link_local.or(other);
    if peer_link_local.is_none() && peer_ipv6.is_none() && peer_ipv4.is_none() {
        return Err(FieldError::new(
            "ipv6LinkLocal",
            "is missing, and so are ipv6 and ipv4: BGP has no neighbour",
        ));
    }
    Ok(AddressSpec {
        peer_link_local,
        peer_ipv6,
        peer_ipv4,
        ..AddressSpec::default()
    })
}
