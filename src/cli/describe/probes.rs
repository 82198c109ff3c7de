//! Live probes: what the status document cannot know, one line each. A few packets go out only for an object that is
//! not up; they change nothing at either end.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;

use super::reach::{self, Answer};
use crate::cli::offline::Offline;
use crate::controller::peer;
use crate::desired::Object;
use crate::document::{ConditionType, Kind, StatusBody};
use crate::kernel::source_towards;
use crate::model::{Host, InterfaceName};
use crate::observed::Mark;
use crate::observed::kernel::HANDSHAKE_FRESH_SECONDS;
use crate::observed::kernel::{Link, WireGuardPeer};
use crate::status::{Cause, FailedProbe, HANDSHAKE_STALE};

/// One probe and its result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probe {
    /// `agent`, `dns`, `route`, `handshake`, `endpoint` or `ping`.
    pub(super) probe: &'static str,
    pub(super) good: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) reason: &'static str,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_action: Option<String>,
    /// The condition that states the same.
    #[serde(skip)]
    pub(super) restates: Option<ConditionType>,
}

impl Probe {
    fn good(probe: &'static str, message: impl Into<String>) -> Self {
        let good = true;
        Self {
            good,
            ..Self::bad(probe, "", message)
        }
    }

    pub(super) fn bad(
        probe: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            probe,
            good: false,
            reason,
            message: message.into(),
            next_action: None,
            restates: None,
        }
    }

    pub(super) fn act(self, action: impl Into<String>) -> Self {
        let next_action = Some(action.into());
        Self {
            next_action,
            ..self
        }
    }

    pub(super) fn restates(self, about: ConditionType) -> Self {
        let restates = Some(about);
        Self { restates, ..self }
    }
}

/// Returns the probes that failed, as causes.
pub(super) fn failed(probes: &[Probe]) -> Vec<FailedProbe> {
    let failed = probes.iter().filter(|probe| !probe.good);
    let cause = |probe: &Probe| Cause {
        about: probe.probe.to_owned(),
        reason: probe.reason.to_owned(),
        message: probe.message.clone(),
        next_action: probe.next_action.clone(),
    };
    let as_cause = |probe: &Probe| FailedProbe {
        cause: cause(probe),
        restates: probe.restates,
    };
    failed.map(as_cause).collect()
}

/// The object that is probed, with its link and its WireGuard peer.
pub(super) struct Target<'a> {
    pub(super) offline: &'a Offline,
    pub(super) object: &'a Object,
    pub(super) link: Option<(&'a InterfaceName, &'a Link)>,
    pub(super) peer: Option<&'a WireGuardPeer>,
}

impl<'a> Target<'a> {
    pub(super) fn new(offline: &'a Offline, object: &'a Object) -> Self {
        let applied = offline.applied(object.kind, &object.name);
        let link = offline.kernel.owned_by(&object.uid).next();
        let key = peer(object, applied);
        let wireguard = link.and_then(|(_, link)| link.wireguard.as_ref());
        let peer = wireguard.and_then(|wireguard| Some(&**wireguard.peers.get(&key?)?));
        Self {
            offline,
            object,
            link,
            peer,
        }
    }

    /// Probes in the order of cause and effect. `quiet`: the object is up, or meant to be down, so no packet is sent.
    pub(super) async fn probe(&self, agent_runs: bool, quiet: bool) -> Vec<Probe> {
        let mut probes = vec![self.agent(agent_runs)];
        probes.extend(self.dns());
        let endpoint = self.endpoint();
        let fresh = self.age().is_some_and(|age| age < HANDSHAKE_FRESH_SECONDS);
        let answer = match endpoint.filter(|_| !quiet && !fresh && self.link.is_some()) {
            Some(endpoint) => reach::datagram(endpoint).await,
            None => None,
        };
        probes.extend(endpoint.map(|endpoint| self.route(endpoint, answer.as_ref())));
        probes.extend(
            endpoint
                .zip(answer)
                .and_then(|(endpoint, answer)| of_answer(endpoint, &answer)),
        );
        probes.extend(self.handshake());
        if !quiet {
            probes.extend(self.pings(fresh).await);
        }
        probes
    }

    fn agent(&self, runs: bool) -> Probe {
        if runs {
            return Probe::good("agent", "answers on its local API");
        }
        let message = "the agent does not answer on its local API";
        let differs = self.offline.plan(&self.object.key());
        let differs = differs.map_or(true, |plan| !plan.is_done());
        if !differs || self.object.paused.is_some() {
            return Probe::good("agent", message);
        }
        Probe::bad(
            "agent",
            "AgentNotRunning",
            format!("{message}, so no difference is repaired"),
        )
        .act("`systemctl start moenet-agent`, or `moenet-agent apply --once`")
    }

    fn dns(&self) -> Option<Probe> {
        let endpoint = self.object.endpoint()?;
        let Host::Name(name) = &endpoint.host else {
            return None;
        };
        let known = self.offline.parts.shared.context.resolver.current(endpoint);
        let probe = match (known.address, known.error) {
            (Some(address), _) => Probe::good("dns", format!("{name} is {}", address.ip())),
            (None, error) => {
                let error = error.unwrap_or_else(|| "no answer within three seconds".to_owned());
                Probe::bad("dns", "NotResolved", error)
            }
        };
        Some(probe.restates(ConditionType::EndpointResolved))
    }

    /// The peer's endpoint: the current one, or else the wanted one.
    fn endpoint(&self) -> Option<SocketAddr> {
        let wanted = || {
            let endpoint = self.object.endpoint()?;
            self.offline
                .parts
                .shared
                .context
                .resolver
                .current(endpoint)
                .address
        };
        self.peer.and_then(|peer| peer.endpoint).or_else(wanted)
    }

    /// The route and the uplink to the endpoint.
    fn route(&self, endpoint: SocketAddr, answer: Option<&Answer>) -> Probe {
        let to = endpoint.ip();
        let bad = |message: String| {
            Probe::bad("route", "NoRoute", message).act(format!(
                "check the uplink and its default route: `ip route get {to}`"
            ))
        };
        if let Some(Answer::NoRoute(why)) = answer {
            return bad(format!("this router has no route to {to}: {why}"))
                .restates(ConditionType::EndpointRouted);
        }
        let Some(source) = source_towards(to) else {
            return bad(format!("this router has no route to {to}"))
                .restates(ConditionType::EndpointRouted);
        };
        let has_source = |link: &Link| link.addresses.iter().any(|it| it.local.addr() == source);
        let mut links = self.offline.kernel.links.iter();
        let uplink = links.find(|(_, link)| has_source(link));
        // The node's own addresses are not an uplink.
        let Some((name, link)) = uplink.filter(|(name, _)| name.as_str() != "lo") else {
            return Probe::good("route", format!("{to} is reached from {source}"));
        };
        if link.wireguard.is_some() && matches!(link.mark, Mark::Ours(_)) {
            return bad(format!(
                "the route to {to} leads into the tunnel {name}, not to the uplink"
            ));
        }
        match link.up {
            true => Probe::good("route", format!("{to} is reached from {source} by {name}")),
            false => bad(format!("the uplink {name} towards {to} is down"))
                .act(format!("`ip route get {to}`, `ip link show {name}`")),
        }
    }

    /// Seconds since the last handshake.
    fn age(&self) -> Option<i64> {
        self.peer?.last_handshake.map(since)
    }

    fn handshake(&self) -> Option<Probe> {
        let peer = self.peer?;
        let (received, sent) = (peer.rx_bytes, peer.tx_bytes);
        let endpoint = peer
            .endpoint
            .map(|endpoint| format!(", endpoint {endpoint}"));
        let endpoint = endpoint.unwrap_or_default();
        let traffic = format!("{received} bytes in, {sent} bytes out{endpoint}");
        let probe = match self.age() {
            None => Probe::bad("handshake", "Never", format!("never; {traffic}")),
            Some(age) => {
                let message = format!("{} ago; {traffic}", span(age));
                match age < HANDSHAKE_FRESH_SECONDS {
                    true => Probe::good("handshake", message),
                    false => Probe::bad("handshake", "Stale", message).act(HANDSHAKE_STALE),
                }
            }
        };
        Some(probe.restates(ConditionType::HandshakeRecent))
    }

    /// Pings the neighbours of the sessions that are not established. Without a handshake no address can answer.
    async fn pings(&self, fresh: bool) -> Vec<Probe> {
        let Some((name, link)) = self.link.filter(|(_, link)| link.up) else {
            return Vec::new();
        };
        if link.wireguard.is_some() && !fresh || self.object.kind == Kind::MeshPeer {
            return Vec::new();
        }
        let sessions = self.offline.sessions(self.object);
        let mut probes = Vec::new();
        for neighbour in sessions.expected {
            let mut running = sessions.protocols.iter();
            let is_up = running.any(|it| it.name == neighbour.protocol && it.is_established());
            if let Some(address) = neighbour.address.filter(|_| !is_up) {
                probes.extend(ping(address, name, link).await);
            }
        }
        probes
    }
}

fn of_answer(endpoint: SocketAddr, answer: &Answer) -> Option<Probe> {
    match answer {
        Answer::Closed => {
            let message = format!(
                "no program listens on the peer's UDP port: a datagram to {endpoint} came back as “port unreachable”"
            );
            let action = "ask the peer which port its WireGuard listens on, and whether it runs";
            Some(Probe::bad("endpoint", "PortClosed", message).act(action))
        }
        Answer::Unreachable(why) => {
            let message =
                format!("the network has no path to the peer's endpoint {endpoint}: {why}");
            let action = "check this router's routes and the endpoint's address";
            Some(Probe::bad("endpoint", "EndpointUnreachable", message).act(action))
        }
        // Reported as the route.
        Answer::NoRoute(_) => None,
    }
}

async fn ping(address: IpAddr, name: &InterfaceName, link: &Link) -> Option<Probe> {
    let others = async {
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                reach::everybody(name, link.index).await
            }
            _ => BTreeSet::new(),
        }
    };
    let (answers, mut others) = tokio::join!(reach::echo(address, name), others);
    others.retain(|other| {
        !link
            .addresses
            .iter()
            .any(|ours| ours.local.addr() == *other)
    });
    if answers? || others.contains(&address) {
        return Some(Probe::good("ping", format!("{address} answers")));
    }
    let silent = format!("no ping reply from {address} in the tunnel");
    if others.is_empty() {
        let action = "ask the peer for its address in the tunnel, and for the address that it uses for this router";
        return Some(Probe::bad("ping", "NeighbourSilent", silent).act(action));
    }
    let others: Vec<String> = others.iter().map(ToString::to_string).collect();
    let message = format!(
        "{silent}; the other end answers as {}",
        others.join(" and ")
    );
    let action = "if that is the peer's address, set it in the document";
    Some(Probe::bad("ping", "WrongAddress", message).act(action))
}

fn since(at: Timestamp) -> i64 {
    (Timestamp::now().as_second() - at.as_second()).max(0)
}

/// Returns a duration in one unit.
fn span(seconds: i64) -> String {
    let (number, unit) = match seconds {
        ..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        7200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    match number {
        1 => format!("1 {unit}"),
        _ => format!("{number} {unit}s"),
    }
}

/// Returns whether an object is up, or is meant to be down, so that its network is not probed.
pub(super) fn is_quiet(status: &StatusBody, up: bool) -> bool {
    let off = [
        "Disabled",
        "PendingReview",
        "Absent",
        "MeshDisabled",
        "OwnNode",
    ];
    let is_off = |reason: &str| off.contains(&reason);
    let mut conditions = status.conditions.iter();
    up || conditions.any(|condition| {
        condition.condition_type == ConditionType::InService && is_off(&condition.reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (1, "1 second"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
