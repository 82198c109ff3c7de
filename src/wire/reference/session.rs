use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::super::FieldError;
use super::super::body::open;
use super::super::scalar::kind;
use super::super::scalar::{Fields, Read};
use super::{WireStatus, not_an_object, repeated};
use crate::document::{AddressSpec, BgpSessionSpec, BgpSpec, TunnelSpec};
use crate::model::{
    Asn, Endpoint, Extension, Host, InterfaceName, Invalid, LinkLocal, PeerIpv6, PeeringPolicy,
    PresharedKey, PublicKey, Secret, TunnelType, Uid, shown,
};
use crate::wire::{Listing, Rejected, SessionItem, WireError};

const LIST: &str = "sessions";

/// Length limit of a description that is kept, in characters.
const DESCRIPTION_MAX: usize = 1000;

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
    let twice: BTreeSet<Uid> = repeated(heads.iter().map(|head| head.uid.clone()))
        .into_iter()
        .collect();
    let complete = twice.is_empty() && heads.iter().all(|head| head.uid.is_some());
    let mut listing = Listing {
        items: Vec::new(),
        rejected: Vec::new(),
        complete,
    };
    for (index, (value, head)) in values.iter().zip(&heads).enumerate() {
        match decode_item(value, index, head, &twice) {
            Ok(item) => listing.items.push(item),
            Err(error) => {
                // One uuid has one status to overwrite, so all of its items must allow it.
                let safe = heads
                    .iter()
                    .filter(|other| other.uid == head.uid)
                    .all(Head::takes_error);
                let reportable = head.uid.is_some() && safe;
                listing.rejected.push(Rejected {
                    reportable,
                    ..head.reject(error)
                });
            }
        }
    }
    Ok(listing)
}

/// The fields of an item that are read first, whether or not the rest is valid.
struct Head {
    uid: Option<Uid>,
    status: Option<WireStatus>,
    interface: Option<InterfaceName>,
}

impl Head {
    fn read(value: &Value) -> Self {
        let empty = Map::new();
        let fields = Fields::new(value.as_object().unwrap_or(&empty));
        Self {
            uid: uid(&fields).ok(),
            status: status(&fields).ok(),
            interface: asn(&fields)
                .and_then(|asn| interface(&fields, asn))
                .or_else(|_| named(&fields))
                .ok(),
        }
    }

    fn takes_error(&self) -> bool {
        self.status.is_some_and(WireStatus::takes_error)
    }

    fn reject(&self, error: FieldError) -> Rejected {
        Rejected {
            uid: self.uid.clone(),
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

fn decode_item(
    value: &Value,
    index: usize,
    head: &Head,
    twice: &BTreeSet<Uid>,
) -> Read<SessionItem> {
    let Value::Object(map) = value else {
        return Err(not_an_object(LIST, index, value));
    };
    let fields = Fields::new(map);
    let uid = uid(&fields)?;
    if twice.contains(&uid) {
        return Err(fields.wrong("uuid", "is also used by another session; both are ignored"));
    }
    let status = status(&fields)?;
    let wanted = match decode_wanted(&fields, status) {
        Ok(wanted) => wanted,
        // A removal needs only the identity.
        Err(_) if status == WireStatus::QueuedForDelete => Wanted::default(),
        Err(error) => return Err(error),
    };
    let Wanted {
        spec,
        preshared_key,
        password,
    } = wanted;
    let name_hint = head.interface.clone();
    Ok(SessionItem {
        uid,
        status,
        name_hint,
        spec,
        preshared_key,
        password,
    })
}

/// The specification of a session, and the secrets that its document does not contain.
#[derive(Default)]
struct Wanted {
    spec: Option<BgpSessionSpec>,
    preshared_key: Option<PresharedKey>,
    password: Option<Secret<String>>,
}

fn decode_wanted(fields: &Fields<'_>, status: WireStatus) -> Read<Wanted> {
    let asn = asn(fields)?;
    interface(fields, asn)?;
    let credential = Credential::read(fields)?;
    let spec = BgpSessionSpec {
        admin_state: status.admin_state(),
        asn,
        description: description(fields)?,
        tunnel: tunnel(fields, credential.public_key)?,
        address: address(fields)?,
        bgp: bgp(fields)?,
    };
    Ok(Wanted {
        spec: Some(spec),
        preshared_key: credential.preshared_key,
        password: password(fields)?,
    })
}

/// Returns the identity. An identity that the agent assigns itself is refused.
fn uid(fields: &Fields<'_>) -> Read<Uid> {
    let uid: Uid = fields.required("uuid", fields.parsed("uuid")?)?;
    if uid.is_ours() {
        return Err(fields.wrong(
            "uuid",
            format!(
                "{} is reserved for the agent's own objects",
                shown(uid.as_str())
            ),
        ));
    }
    Ok(uid)
}

fn status(fields: &Fields<'_>) -> Read<WireStatus> {
    let number = fields.required("status", fields.integer("status")?)?;
    WireStatus::from_number(number).ok_or_else(|| {
        fields.wrong(
            "status",
            format!("{number} is unknown; keeping the applied state"),
        )
    })
}

fn asn(fields: &Fields<'_>) -> Read<Asn> {
    fields.required("asn", fields.number("asn")?)
}

fn named(fields: &Fields<'_>) -> Read<InterfaceName> {
    fields.required("interface", fields.parsed("interface")?)
}

/// Returns the interface that the session names, else `wg_<asn>`; ten digits fit.
fn interface(fields: &Fields<'_>, asn: Asn) -> Read<InterfaceName> {
    match fields.parsed("interface")? {
        Some(name) => Ok(name),
        None => format!("wg_{asn}")
            .parse()
            .map_err(|Invalid(why)| fields.wrong("interface", why)),
    }
}

fn description(fields: &Fields<'_>) -> Read<Option<String>> {
    let text = match fields.prose("description")? {
        Some(text) => Some(text),
        None => fields.prose("name")?,
    };
    Ok(text.map(|text| text.chars().take(DESCRIPTION_MAX).collect()))
}

fn tunnel(fields: &Fields<'_>, public_key: Option<PublicKey>) -> Read<TunnelSpec> {
    let tunnel_type = tunnel_type(fields)?;
    let endpoint = match tunnel_type {
        TunnelType::Wireguard => fields.parsed("endpoint")?,
        TunnelType::Gre | TunnelType::Ip6gre => Some(gre_endpoint(fields, tunnel_type)?),
    };
    if tunnel_type == TunnelType::Wireguard && public_key.is_none() {
        return Err(fields.wrong("credential.publicKey", "is required, and missing or null"));
    }
    let listen_port = match fields.number("listenPort")? {
        Some(port) => Some(port),
        None => fields.number("port")?,
    };
    Ok(TunnelSpec {
        tunnel_type,
        interface: fields.parsed("interface")?,
        listen_port,
        mtu: fields.number("mtu")?,
        public_key,
        endpoint,
        ..TunnelSpec::default()
    })
}

fn tunnel_type(fields: &Fields<'_>) -> Read<TunnelType> {
    let word = fields.text("type")?;
    match word.as_deref() {
        None | Some("wireguard") => Ok(TunnelType::Wireguard),
        Some("gre") => Ok(TunnelType::Gre),
        Some("ip6gre") => Ok(TunnelType::Ip6gre),
        Some(other) => Err(fields.wrong(
            "type",
            format!("must be wireguard, gre or ip6gre, not {}", shown(other)),
        )),
    }
}

/// Returns the endpoint: `host`, an address without brackets, or `host:port`, whose port has no meaning.
fn gre_endpoint(fields: &Fields<'_>, tunnel_type: TunnelType) -> Read<Endpoint> {
    let text = fields.required("endpoint", fields.text("endpoint")?)?;
    let text = text.trim();
    let with_port = match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{GRE_PORT}"),
        Ok(IpAddr::V4(address)) => format!("{address}:{GRE_PORT}"),
        Err(_) if text.parse::<Endpoint>().is_ok() => text.to_owned(),
        Err(_) => format!("{text}:{GRE_PORT}"),
    };
    let endpoint: Endpoint = with_port.parse().map_err(|_| {
        fields.wrong(
            "endpoint",
            format!(
                "of a GRE tunnel is a name or an address, not {}",
                shown(text)
            ),
        )
    })?;
    match (&endpoint.host, tunnel_type) {
        (Host::Address(IpAddr::V6(_)), TunnelType::Gre) => Err(fields.wrong(
            "endpoint",
            "is an IPv6 address; a tunnel over IPv6 has type ip6gre",
        )),
        (Host::Address(IpAddr::V4(_)), TunnelType::Ip6gre) => Err(fields.wrong(
            "endpoint",
            "is an IPv4 address; a tunnel over IPv4 has type gre",
        )),
        _ => Ok(endpoint),
    }
}

/// Returns the peer's addresses. A link-local `ipv6` and an `ipv6LinkLocal` both name the neighbour; the latter
/// takes precedence.
fn address(fields: &Fields<'_>) -> Read<AddressSpec> {
    let mut peer_link_local: Option<LinkLocal> = fields.parsed("ipv6LinkLocal")?;
    let mut peer_ipv6: Option<PeerIpv6> = fields.parsed("ipv6")?;
    if let Some(link_local) = peer_ipv6.and_then(|ipv6| LinkLocal::try_from(ipv6.get()).ok()) {
        peer_ipv6 = None;
        peer_link_local = peer_link_local.or(Some(link_local));
    }
    let peer_ipv4 = fields.ipv4("ipv4")?;
    if peer_link_local.is_none() && peer_ipv6.is_none() && peer_ipv4.is_none() {
        return Err(fields.wrong(
            "ipv6LinkLocal",
            "and ipv6 and ipv4 are missing: BGP has no neighbour",
        ));
    }
    Ok(AddressSpec {
        peer_link_local,
        peer_ipv6,
        peer_ipv4,
        ..AddressSpec::default()
    })
}

fn bgp(fields: &Fields<'_>) -> Read<BgpSpec> {
    Ok(BgpSpec {
        extensions: extensions(fields)?,
        policy: policy(fields)?,
        multihop: fields.within("multihop", 2, 255)?,
        import_limit: limit(fields, "importLimit")?,
        export_limit: limit(fields, "exportLimit")?,
        ..BgpSpec::default()
    })
}

/// Returns a limit; 0 means no limit of its own, as in the routing policy.
fn limit(fields: &Fields<'_>, key: &str) -> Read<Option<u32>> {
    Ok(fields
        .within(key, 0, u64::from(u32::MAX))?
        .filter(|limit| *limit > 0))
}

fn policy(fields: &Fields<'_>) -> Read<PeeringPolicy> {
    let word = fields.text("policy")?;
    match word.as_deref() {
        None | Some("full") => Ok(PeeringPolicy::Full),
        Some("peer") => Ok(PeeringPolicy::Peer),
        Some("downstream") => Ok(PeeringPolicy::Downstream),
        Some("upstream") => Ok(PeeringPolicy::Upstream),
        Some(other) => {
            let message = format!(
                "must be full, peer, downstream or upstream, not {}",
                shown(other)
            );
            Err(fields.wrong("policy", message))
        }
    }
}

/// Returns the extensions from an array of words, or from one text with commas.
fn extensions(fields: &Fields<'_>) -> Read<Option<BTreeSet<Extension>>> {
    let words: Vec<&str> = match fields.get("extensions") {
        None => return Ok(None),
        Some(Value::String(text)) => text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().unwrap_or_default())
            .collect(),
        Some(other) => {
            return Err(fields.wrong(
                "extensions",
                format!("must be an array of words, not {}", kind(other)),
            ));
        }
    };
    let known = |word: &str| match word {
        "mp-bgp" => Ok(Extension::MpBgp),
        "extended-nexthop" => Ok(Extension::ExtendedNexthop),
        other => {
            let message = format!(
                "must be of mp-bgp and extended-nexthop, not {}",
                shown(other)
            );
            Err(fields.wrong("extensions", message))
        }
    };
    words.into_iter().map(known).collect::<Read<_>>().map(Some)
}

/// Returns a BGP password (RFC 2385): at most 80 printable bytes. The error never shows it.
fn password(fields: &Fields<'_>) -> Read<Option<Secret<String>>> {
    let Some(text) = fields.text("password")? else {
        return Ok(None);
    };
    if text.is_empty()
        || text.len() > 80
        || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    {
        return Err(fields.wrong("password", "must be 1..80 printable ASCII characters"));
    }
    Ok(Some(Secret::new(text)))
}

/// The keys of a tunnel.
#[derive(Default)]
struct Credential {
    public_key: Option<PublicKey>,
    preshared_key: Option<PresharedKey>,
}

impl Credential {
    /// Reads an object, a text that contains one, or a bare public key. No error shows the text, since it may
    /// contain a preshared key.
    fn read(fields: &Fields<'_>) -> Read<Self> {
        let inner = match fields.get("credential") {
            Some(Value::String(text)) if text.trim_start().starts_with('{') => {
                embedded(fields, text)?
            }
            Some(Value::String(text)) => {
                Map::from_iter([("publicKey".to_owned(), Value::from(text.as_str()))])
            }
            Some(Value::Object(map)) => map.clone(),
            Some(other) => {
                return Err(fields.wrong(
                    "credential",
                    format!("must be an object, not {}", kind(other)),
                ));
            }
            None => Map::new(),
        };
        let holder = Map::from_iter([("credential".to_owned(), Value::Object(inner))]);
        let Some(inner) = Fields::new(&holder).object("credential")? else {
            return Ok(Self::default());
        };
        let preshared_key = match preshared_key(&inner)? {
            Some(key) => Some(key),
            None => preshared_key(fields)?,
        };
        Ok(Self {
            public_key: public_key(&inner)?,
            preshared_key: preshared_key.filter(|key| !key.is_zero()),
        })
    }
}

fn embedded(fields: &Fields<'_>, text: &str) -> Read<Map<String, Value>> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = format!("begins like JSON but is invalid (line {line}, column {column})");
        fields.wrong("credential", message)
    })
}

fn public_key(fields: &Fields<'_>) -> Read<Option<PublicKey>> {
    let Some(text) = fields.text("publicKey")? else {
        return Ok(None);
    };
    let key = text.trim().parse().map_err(|_: Invalid| {
        // The model's error shows a text that is not base64; here that may be a secret.
        let why = "invalid public key: use 32 bytes in base64 (44 characters)";
        fields.wrong("publicKey", why.to_owned())
    })?;
    Ok(Some(key))
}

fn preshared_key(fields: &Fields<'_>) -> Read<Option<PresharedKey>> {
    let parse = |text: String| {
        PresharedKey::from_base64(&text).map_err(|Invalid(why)| fields.wrong("presharedKey", why))
    };
    fields.text("presharedKey")?.map(parse).transpose()
}
