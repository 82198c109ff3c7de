//! Causes in the tunnel.

use super::{Cause, Reason, span};
use crate::plan::HANDSHAKE_FRESH_SECONDS;

/// The tunnel of an object, and the controller's plan for the object.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Tunnel {
    /// Whether the link requires the endpoint's address, as GRE does.
    pub(in crate::cli::describe) needs_address: bool,
    /// The name of the endpoint that does not resolve, and the reason.
    pub(in crate::cli::describe) unresolved: Option<(String, String)>,
    /// The daemon's last failure.
    pub(in crate::cli::describe) failed: Option<String>,
    /// The link; `None` for an object without its own link.
    pub(in crate::cli::describe) link: Option<Link>,
    /// The differences from the wanted state, as `tunnel.mtu: want 1380, have 1420`.
    pub(in crate::cli::describe) drift: Vec<String>,
    /// Whether the daemon answers on the local API.
    pub(in crate::cli::describe) agent_runs: bool,
    /// The object's name, for the suggested commands.
    pub(in crate::cli::describe) name: String,
}

/// The link of the tunnel.
#[derive(Debug, Clone)]
pub(in crate::cli::describe) enum Link {
    /// There is no link of this name.
    Missing(String),
    /// The link is foreign: its name, its owner, and what to do.
    Foreign(String, String, &'static str),
    /// The link exists and is not up.
    Down(String),
    /// The link is up, with its peer when it is WireGuard.
    Up(String, Option<Peer>),
}

/// The peer of a WireGuard link.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Peer {
    /// Seconds since the last handshake; `None` without any.
    pub(in crate::cli::describe) handshake_age: Option<i64>,
    /// Bytes received since the tunnel was created.
    pub(in crate::cli::describe) received: u64,
    /// Bytes sent since the tunnel was created.
    pub(in crate::cli::describe) sent: u64,
    /// The current endpoint.
    pub(in crate::cli::describe) endpoint: Option<String>,
    /// The local port.
    pub(in crate::cli::describe) port: Option<u16>,
    /// The answer to a datagram that was sent to the endpoint.
    pub(in crate::cli::describe) answer: Option<Answer>,
    /// The link by which this router reaches the endpoint.
    pub(in crate::cli::describe) uplink: Option<Uplink>,
}

/// The link by which packets to an endpoint leave this router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::describe) struct Uplink {
    /// Its name.
    pub(in crate::cli::describe) name: String,
    /// Whether it is up.
    pub(in crate::cli::describe) up: bool,
    /// Whether it is a tunnel of this agent: then the tunnel would run through itself or through another one.
    pub(in crate::cli::describe) is_tunnel: bool,
}

/// The network's answer to a datagram to an endpoint; silence gives no information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::describe) enum Answer {
    /// No process listens on that port (ICMP port unreachable, RFC 792 and RFC 4443).
    Closed,
    /// The network has no path to it, in the system's words.
    Unreachable(String),
    /// This router itself has no route to it, in the system's words.
    NoRoute(String),
}

/// The fields that decide where the tunnel's packets go and whether the other end accepts them.
const TUNNEL: &[&str] = &[
    "spec.tunnel.type",
    "spec.tunnel.interface",
    "spec.tunnel.listenPort",
    "spec.tunnel.publicKey",
    "spec.tunnel.presharedKeyFile",
    "spec.tunnel.endpoint",
    "spec.tunnel.localAddress",
    "spec.interface",
    "spec.listenPort",
    "spec.publicKey",
    "spec.endpoint",
];

impl Tunnel {
    /// Returns the causes in the tunnel. For an object that is not wanted, only its remains are reported.
    pub(super) fn causes(&self, wanted: bool, paused: bool) -> Vec<Cause> {
        let mut chain = Vec::new();
        let unresolved = || {
            self.unresolved
                .as_ref()
                .filter(|_| wanted)
                .map(|(name, why)| unresolved(name, why))
        };
        // A missing address only prevents the handshake of a WireGuard link.
        let name_first = self.needs_address || !matches!(self.link, Some(Link::Missing(_)));
        chain.extend(unresolved().filter(|_| name_first));
        if wanted {
            if let Some(Link::Foreign(name, whose, action)) = &self.link {
                let message =
                    format!("The link {name} is not ours ({whose}), so it is left alone.");
                chain.push(
                    Cause::new(Reason::ForeignLink, message)
                        .action(*action)
                        .of_fields(TUNNEL),
                );
                return chain;
            }
            chain.extend(self.failed.as_ref().map(|why| failed(why)));
        }
        if !self.drift.is_empty() && !self.agent_runs && !paused {
            chain.push(agent_not_running());
        }
        if wanted {
            chain.extend(self.link.as_ref().and_then(Link::cause));
        }
        chain.extend(unresolved().filter(|_| !name_first));
        chain.extend(self.drift());
        if let (true, Some(Link::Up(name, Some(peer)))) = (wanted, &self.link) {
            chain.extend(peer.causes(name));
        }
        chain
    }

    /// Returns how it differs from the wanted state. A missing link is reported on its own.
    fn drift(&self) -> Option<Cause> {
        if matches!(self.link, Some(Link::Missing(_))) {
            return None;
        }
        let first = self.drift.first()?;
        let more = match self.drift.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let cause = Cause::new(
            Reason::Drift,
            format!("It is not as wanted: {first}{more}."),
        );
        Some(
            cause
                .action(format!("`moenet-agent plan {}` shows the steps", self.name))
                .of_fields(TUNNEL),
        )
    }

    /// Returns the seconds since the last handshake, while it counts as fresh. A tunnel without handshakes never has
    /// one.
    pub(in crate::cli::describe) fn fresh(&self) -> Option<i64> {
        match &self.link {
            Some(Link::Up(_, Some(peer))) if peer.is_fresh() => peer.handshake_age,
            _ => None,
        }
    }
}

fn agent_not_running() -> Cause {
    Cause::new(
        Reason::AgentNotRunning,
        "The agent does not answer on its local API, so nothing is put right.",
    )
    .action("`systemctl start moenet-agent`, or `moenet-agent apply --once`")
}

fn unresolved(name: &str, why: &str) -> Cause {
    Cause::new(Reason::NameNotResolved, format!("The endpoint's name {name} does not resolve: {why}"))
        .action(format!("`getent ahosts {name}` asks the same resolver; an override of the endpoint with an address helps until then"))
        .of_fields(TUNNEL)
}

fn failed(why: &str) -> Cause {
    Cause::new(
        Reason::NotConfigured,
        format!("The agent could not configure it: {why}."),
    )
    .of_fields(TUNNEL)
}

impl Link {
    fn cause(&self) -> Option<Cause> {
        match self {
            Self::Missing(name) => Some(
                Cause::new(Reason::NoLink, format!("There is no link {name}.")).of_fields(TUNNEL),
            ),
            Self::Down(name) => Some(Cause::new(
                Reason::LinkDown,
                format!("The link {name} is down."),
            )),
            Self::Foreign(..) | Self::Up(..) => None,
        }
    }
}

impl Peer {
    pub(in crate::cli::describe) fn is_fresh(&self) -> bool {
        self.handshake_age
            .is_some_and(|age| age < HANDSHAKE_FRESH_SECONDS)
    }

    /// Returns the problems of the handshake, after the network's answers about the endpoint.
    fn causes(&self, link: &str) -> Vec<Cause> {
        if self.is_fresh() {
            return Vec::new();
        }
        let silence = match self.handshake_age {
            Some(age) => self.stale(link, age),
            None => self.never(link),
        };
        // This router first: no peer is to blame for a packet that does not leave.
        let own = self.own_side();
        let answer = self.answer().filter(|_| own.is_none());
        own.into_iter()
            .chain(answer)
            .chain([silence.of_fields(TUNNEL)])
            .collect()
    }

    /// Returns what prevents packets to the endpoint from leaving this router.
    fn own_side(&self) -> Option<Cause> {
        let endpoint = self.endpoint.as_ref()?;
        let host = endpoint
            .rsplit_once(':')
            .map_or(endpoint.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Some(Answer::NoRoute(why)) = &self.answer {
            let message = format!("This router has no route to the endpoint {endpoint}: {why}.");
            let action = format!("`ip route get {host}`; check the uplink and its default route");
            return Some(Cause::new(Reason::NoRoute, message).action(action));
        }
        let uplink = self.uplink.as_ref()?;
        let name = &uplink.name;
        let message = match (uplink.is_tunnel, uplink.up) {
            (true, _) => format!(
                "The route to the endpoint {endpoint} leads into the tunnel {name}, not to the uplink."
            ),
            (false, false) => format!("The uplink {name} towards the endpoint {endpoint} is down."),
            (false, true) => return None,
        };
        let action = format!("`ip route get {host}`, `ip link show {name}`");
        Some(Cause::new(Reason::NoRoute, message).action(action))
    }

    fn answer(&self) -> Option<Cause> {
        let endpoint = self.endpoint.as_ref()?;
        let cause = match self.answer.as_ref()? {
            Answer::Closed => Cause::new(
                Reason::PortClosed,
                format!("Nothing listens on the peer's UDP port: a datagram to {endpoint} came back as “port unreachable”."),
            )
            .action("ask the peer which port its WireGuard listens on, and whether it runs"),
            // Reported as a problem of this router.
            Answer::NoRoute(_) => return None,
            Answer::Unreachable(why) => {
                Cause::new(Reason::EndpointUnreachable, format!("There is no way to the peer's endpoint {endpoint}: {why}."))
                    .action("look at this machine's routes and at the endpoint's address")
            }
        };
        Some(cause.of_fields(TUNNEL))
    }

    fn stale(&self, link: &str, age: i64) -> Cause {
        let message = format!(
            "The last handshake on {link} was {} ago; since the tunnel was made {} bytes have come in and {} gone out{}.",
            span(age),
            self.received,
            self.sent,
            self.towards()
        );
        let cause = Cause::new(Reason::StaleHandshake, message);
        if self.answer.is_some() || self.own_side().is_some() {
            return cause;
        }
        cause.action(
            "it worked before: ask the peer whether it is up and has moved, or look for a firewall between",
        )
    }

    fn never(&self, link: &str) -> Cause {
        let lead = format!("There was never a handshake on {link}");
        let port = self
            .port
            .map(|port| format!(" UDP port {port}"))
            .unwrap_or_default();
        let (message, action) = match (self.sent, self.received, &self.endpoint) {
            // A first message counts only once it is proved to be for the local key and from the peer's (measured
            // with wireguard-go; the kernel's receive.c does the same), so the public keys agree.
            (_, 1.., _) => (
                format!(
                    "{lead}, though {} bytes have come in that were made for our key by the peer's.",
                    self.received
                ),
                Some("the preshared keys differ, or our answers do not get back to the peer"),
            ),
            (1.., 0, _) => (
                format!(
                    "{lead}: {} bytes have gone out{}, and nothing that WireGuard takes has come in.",
                    self.sent,
                    self.towards()
                ),
                Some(
                    "check with the peer: its address and port, that both have the other's public key and the same preshared key or none, and firewalls",
                ),
            ),
            (0, 0, None) => (
                format!(
                    "{lead}: no endpoint is known, so we wait for the peer to call, and nothing has come in on{port}."
                ),
                Some("ask the peer to call us there, or give it an endpoint in the document"),
            ),
            (0, 0, Some(endpoint)) => (
                format!("{lead}: nothing has gone out to {endpoint}, and nothing has come in."),
                None,
            ),
        };
        let cause = Cause::new(Reason::NeverHandshake, message);
        match action {
            Some(action) if self.answer.is_none() && self.own_side().is_none() => {
                cause.action(action)
            }
            _ => cause,
        }
    }

    fn towards(&self) -> String {
        self.endpoint
            .as_ref()
            .map(|endpoint| format!(" to {endpoint}"))
            .unwrap_or_default()
    }
}
