//! Observed state of the tunnel in the kernel, and the controller's plan.

use super::{Wanted, link, peer, since};
use crate::cli::describe::why::{Link, Peer};
use crate::cli::offline::Offline;
use crate::controller::world::Object;
use crate::document::Kind;
use crate::model::{Endpoint, Host, InterfaceName};
use crate::observed::kernel::WireGuardPeer;
use crate::observed::{Mark, kernel};
use crate::status::Acceptance;

pub(super) fn unresolved(offline: &Offline, endpoint: &Endpoint) -> Option<(String, String)> {
    let Host::Name(name) = &endpoint.host else {
        return None;
    };
    let resolution = offline.parts.context.resolver.current(endpoint);
    if resolution.address.is_some() {
        return None;
    }
    let why = resolution
        .error
        .unwrap_or_else(|| "no answer within three seconds".to_owned());
    // The resolver's message begins with words that the sentence already has.
    let why = why
        .strip_prefix(&format!("resolve {name}: "))
        .unwrap_or(&why)
        .to_owned();
    Some((name.to_string(), why))
}

pub(super) fn link_facts(offline: &Offline, object: &Object, wanted: &Wanted<'_>) -> Option<Link> {
    if object.kind == Kind::IbgpPeer {
        return None;
    }
    if let Some((name, link)) = link(offline, object) {
        let name = name.to_string();
        let port = link
            .wireguard
            .as_ref()
            .and_then(|wireguard| wireguard.listen_port);
        let peer = peer(link, wanted).map(|peer| observed(peer, port.map(|port| port.get())));
        return Some(if link.up {
            Link::Up(name, peer)
        } else {
            Link::Down(name)
        });
    }
    // The clash names the owner more precisely.
    let name = wanted
        .interface
        .as_ref()
        .filter(|_| !matches!(object.acceptance, Acceptance::Clash(_)))?;
    Some(match offline.kernel.links.get(name) {
        None => Link::Missing(name.to_string()),
        Some(link) => foreign(name, link),
    })
}

fn foreign(name: &InterfaceName, link: &kernel::Link) -> Link {
    let action = match &link.mark {
        Mark::None if link.wireguard.is_some() => {
            "tunnel.adopt: true takes it over in place; else give the session another tunnel.interface"
        }
        Mark::None | Mark::Foreign(_) => "give the session another tunnel.interface",
        Mark::Ours(_) | Mark::Earlier(_) => {
            "`moenet-agent get` shows which object that is; it must go first"
        }
    };
    let whose = match &link.mark {
        Mark::None => "it carries no mark".to_owned(),
        mark => format!("it {mark}"),
    };
    Link::Foreign(name.to_string(), whose, action)
}

fn observed(peer: &WireGuardPeer, port: Option<u16>) -> Peer {
    Peer {
        handshake_age: peer.last_handshake.map(|at| since(at.as_second())),
        received: peer.rx_bytes,
        sent: peer.tx_bytes,
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        port,
        answer: None,
        uplink: None,
    }
}

/// Returns the controller's plan; for a paused object, the plan without the pause.
pub(super) fn drift(offline: &Offline, object: &Object) -> Vec<String> {
    match offline.plan(&object.key()) {
        Ok(plan) => plan
            .steps
            .iter()
            .map(|step| step.because.to_string())
            .collect(),
        Err(refusal) => vec![refusal.to_string()],
    }
}
