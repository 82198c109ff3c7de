//! Conditions of the tunnel.

use super::{BabelFacts, Facts, NameFacts, RouteFacts, TunnelFacts};
use crate::document::{ConditionType as About, TunnelStatus};
use crate::model::PublicKey;
use crate::observed::kernel::HANDSHAKE_FRESH_SECONDS;
use crate::observed::kernel::{Link, WireGuardPeer};
use crate::status::Conditions;

/// The action for a handshake that is too old.
pub const HANDSHAKE_STALE: &str = "it worked before: ask the peer whether it is up or has moved, or check for a firewall on the path";

pub(super) fn tunnel(facts: &Facts<'_>, tunnel: &TunnelFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::TunnelConfigured;
    let unread = tunnel.link.is_some_and(|link| link.unread.is_some());
    match (facts.error, tunnel.missing, tunnel.link) {
        (None, Some(missing), _) if unread => conditions.set(about, false, "Unread", missing),
        (Some(error), _, _) => conditions.set(about, false, "Failed", error),
        (None, Some(missing), _) => conditions.set(about, false, "Drift", missing),
        (None, None, None) => conditions.set(about, false, "Missing", "the link does not exist"),
        (None, None, Some(_)) => conditions.set(about, true, "AsWanted", ""),
    }
    if conditions.fails(about) && !unread {
        conditions.act(format!(
            "`moenet-agent plan {}` shows the steps",
            facts.object.path
        ));
    }
    handshake(facts, tunnel, conditions);
}

fn handshake(facts: &Facts<'_>, tunnel: &TunnelFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::HandshakeRecent;
    let Some(link) = tunnel.link else {
        return;
    };
    let Some(peer) = peer_of(link, tunnel.peer) else {
        return;
    };
    match peer.last_handshake {
        None => {
            let (message, action) = never(link, peer);
            conditions.set(about, false, "Never", message);
            conditions.act(action);
        }
        Some(at) if facts.now.as_second() - at.as_second() < HANDSHAKE_FRESH_SECONDS => {
            conditions.set(about, true, "Recent", "");
        }
        Some(_) => {
            conditions.set(
                about,
                false,
                "Stale",
                "no handshake for more than three minutes",
            );
            conditions.act(HANDSHAKE_STALE);
        }
    }
    // This router first: no peer is to blame for a packet that does not leave.
    for own in [About::EndpointResolved, About::EndpointRouted] {
        if conditions.fails(about) && conditions.fails(own) {
            conditions.act(format!("see {own:?} first"));
        }
    }
}

/// Explains a tunnel without any handshake by the directions in which packets go. It contains no counters, which change
/// all the time.
fn never(link: &Link, peer: &WireGuardPeer) -> (String, &'static str) {
    const LEAD: &str = "there was never a handshake";
    let port = link.listen_port();
    let port = port.map(|port| format!(" on UDP port {port}"));
    match (peer.tx_bytes, peer.rx_bytes, peer.endpoint) {
        // A first message counts only once it is proved to be for the local key and from the peer's (measured
        // with wireguard-go; the kernel's receive.c does the same), so the public keys agree.
        (_, 1.., _) => (
            format!(
                "{LEAD}, though packets from the peer's key to this router's key were received"
            ),
            "compare the preshared keys; if they agree, answers of this router do not reach the peer",
        ),
        (1.., 0, endpoint) => {
            let to = endpoint.map(|endpoint| format!(" to {endpoint}"));
            (
                format!(
                    "{LEAD}: packets were sent{}, and no valid WireGuard packet was received",
                    to.unwrap_or_default()
                ),
                "check with the peer: its address and port, both public keys, the preshared key, and firewalls",
            )
        }
        (0, 0, None) => (
            format!(
                "{LEAD}: no endpoint is known, so the agent waits for the peer to connect, and no packet was received{}",
                port.unwrap_or_default()
            ),
            "ask the peer to connect to that port, or set the endpoint in the document",
        ),
        (0, 0, Some(endpoint)) => (
            format!("{LEAD}: no packet was sent to {endpoint}, and none received"),
            "send a packet into the tunnel, or set tunnel.persistentKeepalive",
        ),
    }
}

/// Sets the condition of the endpoint's name. A missing address does not block the configuration: the agent waits for
/// the peer to connect.
pub(super) fn endpoint_resolved(name: &NameFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::EndpointResolved;
    match (name.address, name.error) {
        (Some(_), None) => conditions.set(about, true, "Resolved", ""),
        (Some(address), Some(error)) => {
            let message = format!("{error}; {address} stays in use");
            conditions.set(about, false, "LookupFailed", message);
        }
        (None, Some(error)) => conditions.set(about, false, "NotResolved", error),
        (None, None) => {
            conditions.unknown(about, "Resolving", "the name has not been looked up yet")
        }
    }
    if conditions.fails(about) {
        conditions.act(format!(
            "`getent ahosts {}` asks the same resolver; an override of the endpoint with an address helps until then",
            name.host
        ));
    }
}

/// Sets the condition of the route to the endpoint. Without a route no packet leaves: neither the peer nor its provider
/// is the cause.
pub(super) fn endpoint_routed(route: RouteFacts, conditions: &mut Conditions<'_>) {
    let (about, to) = (About::EndpointRouted, route.to);
    if route.found {
        return conditions.set(about, true, "Routed", "");
    }
    let message = format!("this host has no route to {to}");
    conditions.set(about, false, "NoRoute", message);
    conditions.act(format!(
        "check the uplink and its default route: `ip route get {to}`"
    ));
}

pub(super) fn babel_adjacent(babel: BabelFacts, conditions: &mut Conditions<'_>) {
    let about = About::BabelAdjacent;
    match babel {
        BabelFacts::Unknown => conditions.unknown(about, "NotRead", "BIRD does not report Babel"),
        BabelFacts::Neighbour(true) => conditions.set(about, true, "Neighbour", ""),
        BabelFacts::Neighbour(false) => {
            let message = "BIRD has no Babel neighbour in the tunnel";
            conditions.set(about, false, "NoNeighbour", message);
        }
    }
}

fn peer_of(link: &Link, key: Option<PublicKey>) -> Option<&WireGuardPeer> {
    Some(&**link.wireguard.as_ref()?.peers.get(&key?)?)
}

pub(super) fn status(tunnel: &TunnelFacts<'_>) -> Option<TunnelStatus> {
    let peer = peer_of(tunnel.link?, tunnel.peer);
    let endpoint = peer.and_then(|peer| peer.endpoint);
    Some(TunnelStatus {
        last_handshake: peer.and_then(|peer| peer.last_handshake),
        rx_bytes: peer.map_or(0, |peer| peer.rx_bytes),
        tx_bytes: peer.map_or(0, |peer| peer.tx_bytes),
        endpoint: endpoint.map(|endpoint| endpoint.to_string()),
    })
}
