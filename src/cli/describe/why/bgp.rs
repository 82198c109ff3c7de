//! Causes in BIRD and at the neighbour.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Cause, Reason, Tunnel, span};

/// BIRD and the BGP sessions.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Bird {
    /// Whether it answers on its control socket.
    pub(in crate::cli::describe) running: bool,
    /// Its message, when it rejected the session.
    pub(in crate::cli::describe) refused: Option<String>,
    /// Why the session could not be given to it, although it does not reject the session.
    pub(in crate::cli::describe) trouble: Option<String>,
    /// Whether it has loaded the files on disk.
    pub(in crate::cli::describe) loaded: bool,
    /// Whether the shared files of all sessions are as wanted.
    pub(in crate::cli::describe) base_current: bool,
    /// The local AS number that this router sends.
    pub(in crate::cli::describe) our_asn: Option<u32>,
    /// The neighbour's AS number in the document.
    pub(in crate::cli::describe) their_asn: Option<u32>,
    /// The wanted sessions.
    pub(in crate::cli::describe) sessions: Vec<Session>,
}

/// One BGP session.
#[derive(Debug, Clone, Default)]
pub(in crate::cli::describe) struct Session {
    /// Name of the protocol.
    pub(in crate::cli::describe) protocol: String,
    /// Its state; `None` when BIRD has no such protocol.
    pub(in crate::cli::describe) state: Option<String>,
    /// Seconds in this state, if BIRD reports it.
    pub(in crate::cli::describe) age: Option<i64>,
    /// Whether it is established.
    pub(in crate::cli::describe) established: bool,
    /// Whether the protocol is off.
    pub(in crate::cli::describe) off: bool,
    /// BIRD's last error.
    pub(in crate::cli::describe) last_error: Option<String>,
    /// An administrative message.
    pub(in crate::cli::describe) message: Option<String>,
    /// The wanted address of the neighbour.
    pub(in crate::cli::describe) neighbour: Option<IpAddr>,
    /// The address in BIRD, if it differs.
    pub(in crate::cli::describe) has: Option<String>,
    /// The local address towards it.
    pub(in crate::cli::describe) source: Option<IpAddr>,
    /// Whether the neighbour's address just answered an echo; `None` when none was sent.
    pub(in crate::cli::describe) answers: Option<bool>,
    /// The addresses that answered an echo to all nodes in the tunnel.
    pub(in crate::cli::describe) others: BTreeSet<IpAddr>,
    /// Exceeded limits, as `ipv4 import limit of 1000 (block)`.
    pub(in crate::cli::describe) limits: Vec<String>,
}

const ADDRESS: &[&str] = &["spec.address"];
const PEERING: &[&str] = &[
    "spec.asn",
    "spec.address",
    "spec.bgp.extensions",
    "spec.bgp.multihop",
    "spec.bgp.passwordFile",
];
const LIMITS: &[&str] = &["spec.bgp.importLimit", "spec.bgp.exportLimit"];

impl Bird {
    /// Returns the causes in BIRD or at the neighbour.
    pub(super) fn causes(&self, tunnel: &Tunnel) -> Vec<Cause> {
        let mut chain = Vec::new();
        let down = self.sessions.iter().any(|session| !session.established);
        if let Some(words) = self.refused.as_ref().filter(|_| down) {
            chain.push(Cause::new(
                Reason::BirdRefused,
                format!("BIRD refused the session's text: {words}."),
            ));
        }
        if let Some(why) = self.trouble.as_ref().filter(|_| down) {
            chain.push(Cause::new(
                Reason::BirdFailed,
                format!("BIRD could not be given the session: {why}."),
            ));
        }
        if !self.running {
            let cause = Cause::new(
                Reason::BirdNotRunning,
                "BIRD does not answer on its control socket.",
            );
            chain.push(
                cause.action(
                    "`systemctl status bird`; bird.controlSocket says where it is looked for",
                ),
            );
            return chain;
        }
        if !self.loaded && self.refused.is_none() && down {
            chain.push(Cause::new(
                Reason::BirdNotLoaded,
                "BIRD runs another configuration than is on disk.",
            ));
        }
        for session in &self.sessions {
            chain.extend(session.limit());
            if !session.established {
                chain.extend(session.address(tunnel));
                chain.push(session.down(self));
            }
        }
        chain
    }
}

impl Session {
    fn limit(&self) -> Option<Cause> {
        if self.limits.is_empty() {
            return None;
        }
        let message = format!(
            "{} has hit its {}.",
            self.protocol,
            self.limits.join(" and its ")
        );
        let action = match self.limits.iter().any(|limit| limit.contains("(block)")) {
            true => {
                "routes above the limit are not taken; if they are right, raise bgp.importLimit"
            }
            false => "if the routes are right, raise the limit",
        };
        Some(
            Cause::new(Reason::LimitHit, message)
                .action(action)
                .of_fields(LIMITS),
        )
    }

    /// Returns what is wrong with the addresses, as far as observed.
    fn address(&self, tunnel: &Tunnel) -> Option<Cause> {
        let wanted = self.neighbour?;
        if let Some(has) = &self.has {
            let message = format!(
                "BIRD's {} speaks to {has}, expected {wanted}.",
                self.protocol
            );
            return Some(Cause::new(Reason::WrongAddress, message).of_fields(ADDRESS));
        }
        // Without a handshake no address can answer, which is already reported.
        let age = tunnel.fresh()?;
        if self.answers != Some(false) || self.others.contains(&wanted) {
            return None;
        }
        if self.others.is_empty() {
            let message = format!(
                "Nothing answers a ping at {wanted}, though the last handshake was {} ago.",
                span(age)
            );
            let cause = Cause::new(Reason::NeighbourSilent, message).of_fields(ADDRESS);
            return Some(cause.action(
                "ask the peer which address it has in the tunnel, and which address of this router it knows",
            ));
        }
        let others = self
            .others
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" and ");
        let message = format!(
            "Nothing answers a ping at {wanted} in the tunnel; its other end answers as {others}."
        );
        let cause = Cause::new(Reason::WrongAddress, message).of_fields(ADDRESS);
        Some(cause.action("if that is the peer's address, it belongs in the document's address"))
    }

    fn down(&self, bird: &Bird) -> Cause {
        let Some(state) = &self.state else {
            return Cause::new(
                Reason::NoBgpSession,
                format!("BIRD has no session {}.", self.protocol),
            );
        };
        let off = if self.off {
            " (the protocol is off)"
        } else {
            ""
        };
        let age = self
            .age
            .map(|age| format!(" for {}", span(age)))
            .unwrap_or_default();
        let state = format!("BGP {} is {state}{off}{age}", self.protocol);
        let cause = match &self.last_error {
            Some(error) => self.explained(&state, error, bird),
            None => self.silent(&state),
        };
        cause.of_fields(PEERING)
    }

    /// Explains a session without any error. Segments without the right password are silently dropped (RFC 2385), so
    /// different passwords look like this (docs/contract/bird.md#errors-of-a-session).
    fn silent(&self, state: &str) -> Cause {
        let lead = format!("{state}, and BIRD knows of no error");
        match (self.answers, self.neighbour) {
            (Some(true), Some(neighbour)) => {
                let message = format!("{lead}, though {neighbour} answers a ping.");
                let cause = Cause::new(Reason::BgpNotEstablished, message);
                cause.action(
                    "compare the session's password with the peer's, and look for a firewall on TCP port 179",
                )
            }
            _ => Cause::new(Reason::BgpNotEstablished, format!("{lead}.")),
        }
    }

    /// Explains BIRD's last error and which side sent it (its classes: docs/contract/bird.md#errors-of-a-session).
    fn explained(&self, state: &str, error: &str, bird: &Bird) -> Cause {
        let cause = |reason, what: String| {
            Cause::new(reason, format!("{state}: {what} (BIRD: “{error}”)."))
        };
        match error.split_once(": ") {
            Some(("Received", "Bad peer AS")) => {
                let ours = asn(bird.our_asn);
                cause(
                    Reason::RefusedByNeighbour,
                    format!("the neighbour refuses our AS number, {ours}"),
                )
                .action(format!("ask the peer to configure us as {ours}"))
            }
            Some(("Received", words)) if words.starts_with("Administrative shutdown") => cause(
                Reason::RefusedByNeighbour,
                format!(
                    "the neighbour has shut the session down on purpose{}",
                    self.says()
                ),
            )
            .action("ask the peer why; there is nothing to do on this side"),
            Some(("Received", _)) => cause(
                Reason::RefusedByNeighbour,
                format!("the neighbour refuses{}", self.says()),
            )
            .action("ask the peer; its log says more"),
            Some(("BGP Error" | "Error", "Bad peer AS")) => {
                let theirs = asn(bird.their_asn);
                cause(
                    Reason::RefusedByUs,
                    format!(
                        "we refuse the neighbour, since it says it is another AS than {theirs}"
                    ),
                )
                .action("ask the peer for its AS number; spec.asn is what we expect")
            }
            Some(("Socket", words)) if words.contains("refused") => {
                let who = self
                    .neighbour
                    .map(|address| address.to_string())
                    .unwrap_or_default();
                cause(
                    Reason::RefusedByNeighbour,
                    format!(
                        "{who} refuses the connection on TCP port 179{}",
                        self.said()
                    ),
                )
                .action("ask the peer whether its BGP daemon runs and listens there")
            }
            Some(("Socket", words)) if words.contains("closed") || words.contains("reset") => {
                let ours = self
                    .source
                    .map(|address| address.to_string())
                    .unwrap_or_default();
                cause(
                    Reason::RefusedByNeighbour,
                    format!("the neighbour closed the connection{}", self.said()),
                )
                .action(format!(
                    "ask the peer whether it knows our address {ours} and our AS number, {}",
                    asn(bird.our_asn)
                ))
            }
            _ => Cause::new(
                Reason::BgpNotEstablished,
                format!("{state}; BIRD's last error is “{error}”{}.", self.says()),
            ),
        }
    }

    /// Returns the message of an earlier refusal: BIRD keeps it when a later connection attempt gets
    /// another error. That happens soon, since a session that is shut down accepts no connection (seen on 2.17).
    fn said(&self) -> String {
        let message = self.message.as_ref().filter(|_| !self.off);
        message
            .map(|text| format!(", and said before: {}", crate::model::shown(text)))
            .unwrap_or_default()
    }

    /// Returns the message that came with the error (RFC 8203 and RFC 9003).
    fn says(&self) -> String {
        self.message
            .as_ref()
            .map(|text| format!(", and says {}", crate::model::shown(text)))
            .unwrap_or_default()
    }
}

fn asn(asn: Option<u32>) -> String {
    asn.map_or_else(|| "the wanted AS".to_owned(), |asn| format!("AS{asn}"))
}
