//! Conditions of BIRD and the BGP session.

use std::net::IpAddr;

use jiff::Timestamp;

use super::{BirdFacts, Expected};
use crate::document::{BgpStatus, ConditionType as About};
use crate::model::shown;
use crate::observed::bird::{BgpState, Limit, Protocol, ProtocolState, SessionError};
use crate::status::Conditions;

pub(super) fn configured(bird: &BirdFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::BirdConfigured;
    if let Some(message) = bird.refused {
        conditions.set(about, false, "Refused", message);
    } else if let Some(problem) = bird.outside {
        conditions.problem(about, problem.clone());
    } else if let Some(problem) = bird.blocked {
        let message = format!("waits for the node: {}", problem.message);
        conditions.set(about, false, problem.reason, message);
        conditions.act(&problem.action);
    } else if let Some(message) = bird.trouble {
        conditions.set(about, false, "Failed", message);
    } else if let Some(why) = bird.down {
        conditions.unknown(about, "NotRunning", why);
    } else if !bird.loaded || bird.protocols.len() < bird.expected.len() {
        conditions.set(
            about,
            false,
            "NotLoaded",
            "BIRD has not loaded the session yet",
        );
    } else {
        conditions.set(about, true, "Loaded", "");
    }
}

pub(super) fn established(bird: &BirdFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::BgpEstablished;
    if let Some(why) = bird.down {
        return conditions.unknown(about, "NotRunning", why);
    }
    let is_up = |expected: &&Expected| bird.of(expected).is_some_and(Protocol::is_established);
    match bird.expected.iter().find(|expected| !is_up(expected)) {
        None => conditions.set(about, true, "Established", ""),
        Some(expected) => {
            let down = down(expected, bird);
            conditions.set(about, false, down.reason, down.message);
            if let Some(action) = down.action {
                conditions.act(action);
            }
            let unexplained = down.reason == NOT_ESTABLISHED;
            let causes = [
                About::EndpointRouted,
                About::TunnelConfigured,
                About::HandshakeRecent,
                About::BirdConfigured,
            ];
            if let Some(cause) = causes.iter().find(|cause| conditions.fails(**cause))
                && unexplained
            {
                conditions.act(format!("see {cause:?} first"));
            }
        }
    }
}

const NOT_ESTABLISHED: &str = "NotEstablished";

/// Why a session is not established.
struct Down {
    reason: &'static str,
    message: String,
    action: Option<String>,
}

impl Down {
    fn new(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            action: None,
        }
    }

    fn act(self, action: impl Into<String>) -> Self {
        let action = Some(action.into());
        Self { action, ..self }
    }
}

impl BirdFacts<'_> {
    fn of(&self, expected: &Expected) -> Option<&Protocol> {
        let mut protocols = self.protocols.iter();
        protocols.find(|protocol| protocol.name == expected.protocol)
    }
}

fn down(expected: &Expected, bird: &BirdFacts<'_>) -> Down {
    let name = &expected.protocol;
    let Some(protocol) = bird.of(expected) else {
        return Down::new("NoProtocol", format!("BIRD has no session {name}"));
    };
    if let Some((has, wanted)) = other_neighbour(protocol, expected) {
        let message = format!("BIRD's {name} speaks to {has}, expected {wanted}");
        return Down::new("WrongAddress", message)
            .act("correct spec.address, or wait until BIRD has loaded the change");
    }
    let off = match protocol.state {
        ProtocolState::Down => " (the protocol is off)",
        _ => "",
    };
    let lead = format!("BGP {name} is {}{off}", state_word(protocol));
    match error_of(protocol) {
        Some(error) => explained(&lead, &error, protocol, expected, bird),
        None => silent(&lead, expected),
    }
}

/// Returns BIRD's neighbour and the wanted one, if they differ.
fn other_neighbour<'a>(protocol: &'a Protocol, expected: &Expected) -> Option<(&'a str, IpAddr)> {
    let bgp = protocol.bgp.as_ref()?;
    let (has, _) = bgp.neighbour()?;
    let wanted = expected.address?;
    (has != wanted).then_some((bgp.neighbor_address.as_deref()?, wanted))
}

/// Explains a session without any error. Segments without the right password are silently dropped (RFC 2385), so
/// different passwords look like this (docs/contract/bird.md#errors-of-a-session).
fn silent(lead: &str, expected: &Expected) -> Down {
    let down = Down::new(
        NOT_ESTABLISHED,
        format!("{lead}, and BIRD reports no error"),
    );
    let ping = expected.address.map(|address| {
        format!(
            "ping {address}; if it answers, compare the session's password with the peer's, and look for a firewall \
             on TCP port 179"
        )
    });
    Down {
        action: ping,
        ..down
    }
}

/// The neighbour's message, as the end of a sentence.
struct Words {
    /// It belongs to the last error.
    says: String,
    /// It belongs to an earlier refusal. BIRD keeps the message when a later attempt gets another error, and that
    /// happens soon, since a session that is shut down accepts no connection (seen on 2.17).
    said: String,
}

impl Words {
    fn of(protocol: &Protocol) -> Self {
        let message = protocol.message.as_deref();
        let earlier = message.filter(|_| protocol.state != ProtocolState::Down);
        let words = |lead: &str, message: Option<&str>| {
            let text = message.map(|text| format!(", and {lead}: {}", shown(text)));
            text.unwrap_or_default()
        };
        Self {
            says: words("says", message),
            said: words("said before", earlier),
        }
    }
}

/// Explains BIRD's last error and which side sent it.
fn explained(
    lead: &str,
    error: &str,
    protocol: &Protocol,
    expected: &Expected,
    bird: &BirdFacts<'_>,
) -> Down {
    const NEIGHBOUR: &str = "RefusedByNeighbour";
    const ASK: &str = "ask the peer; its log says more";
    let Words { says, said } = Words::of(protocol);
    let (ours, theirs) = (asn(bird.our_asn), asn(bird.their_asn));
    let (reason, what, action) = match SessionError::parse(error) {
        SessionError::OurAsRejected => (
            NEIGHBOUR,
            format!("the neighbour rejects this router's AS number, {ours}"),
            format!("ask the peer to configure this router as {ours}"),
        ),
        SessionError::ShutDownByNeighbour => (
            NEIGHBOUR,
            format!("the neighbour shut the session down administratively{says}"),
            "ask the peer why; this side needs no change".to_owned(),
        ),
        SessionError::RejectedByNeighbour => (
            NEIGHBOUR,
            format!("the neighbour rejects the session{says}"),
            ASK.to_owned(),
        ),
        SessionError::TheirAsRejected => (
            "RefusedByUs",
            format!("this router rejects the neighbour, whose AS number is not {theirs}"),
            "ask the peer for its AS number, and compare it with spec.asn".to_owned(),
        ),
        SessionError::ConnectionRefused => {
            let who = address(expected.address, "the neighbour");
            let what = format!("{who} refuses the connection on TCP port 179{said}");
            let action = "ask the peer whether its BGP daemon runs and listens there";
            (NEIGHBOUR, what, action.to_owned())
        }
        SessionError::ConnectionClosed => {
            let source = address(expected.source, "of this router");
            let what = format!("the neighbour closed the connection{said}");
            let action = format!(
                "ask the peer whether it knows the address {source} and the AS number {ours}"
            );
            (NEIGHBOUR, what, action)
        }
        SessionError::Other => {
            let message = format!("{lead}; BIRD's last error is “{error}”{says}");
            return Down::new(NOT_ESTABLISHED, message).act(ASK);
        }
    };
    Down::new(reason, format!("{lead}: {what} (BIRD: “{error}”)")).act(action)
}

fn address(address: Option<IpAddr>, unknown: &str) -> String {
    address.map_or_else(|| unknown.to_owned(), |address| address.to_string())
}

fn asn(asn: Option<u32>) -> String {
    asn.map_or_else(|| "the wanted AS".to_owned(), |asn| format!("AS{asn}"))
}

/// Returns the exceeded limits: protocol, channel, kind and limit. BIRD 3 keeps the mark of a limit that was raised
/// since (seen on 3.1.8), so the route count decides where possible. It cannot for a receive limit, because it does not
/// include rejected routes.
fn exceeded<'a>(
    bird: &BirdFacts<'a>,
) -> impl Iterator<Item = (&'a Protocol, &'a str, &'static str, &'a Limit)> {
    let protocols: &'a [Protocol] = bird.protocols;
    let channels = protocols.iter().flat_map(|protocol| {
        protocol
            .channels
            .iter()
            .map(move |channel| (protocol, channel))
    });
    channels.flat_map(|(protocol, channel)| {
        let routes = channel.routes;
        let all = [
            (
                "import",
                &channel.import_limit,
                routes.map(|it| it.imported),
            ),
            ("receive", &channel.receive_limit, None),
            (
                "export",
                &channel.export_limit,
                routes.map(|it| it.exported),
            ),
        ];
        all.into_iter().filter_map(move |(word, limit, count)| {
            let limit = limit.as_ref().filter(|limit| limit.hit)?;
            let is_stale = count.is_some_and(|count| count < limit.limit);
            (!is_stale).then_some((protocol, channel.name.as_str(), word, limit))
        })
    })
}

pub(super) fn limits(bird: &BirdFacts<'_>, conditions: &mut Conditions<'_>) {
    let about = About::WithinLimits;
    if let Some(why) = bird.down {
        return conditions.unknown(about, "NotRunning", why);
    }
    let texts = exceeded(bird).map(|(protocol, channel, word, limit)| {
        let action = limit.action.as_ref().map(|action| format!(" ({action})"));
        let (name, action) = (&protocol.name, action.unwrap_or_default());
        let number = limit.limit;
        format!("{name} {channel}: {word} limit of {number} exceeded{action}")
    });
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() {
        return conditions.set(about, true, "BelowLimits", "");
    }
    conditions.set(about, false, "LimitExceeded", texts.join("; "));
    let blocks = |limit: &Limit| limit.action.as_deref() == Some("block");
    // The limits of a session outside the agent's files are the operator's.
    let is_own = bird.outside.is_none();
    if is_own && exceeded(bird).any(|(_, _, _, limit)| blocks(limit)) {
        conditions
            .act("BIRD ignores routes above the limit; if they are correct, raise bgp.importLimit");
    }
}

/// Returns whether a limit blocks routes. An export limit blocks none: it only warns.
pub(super) fn is_short_of(bird: &BirdFacts<'_>) -> bool {
    exceeded(bird).any(|(_, _, word, _)| word != "export")
}

/// Returns the worst of several BGP sessions; routes add up over both families.
pub(super) fn status(bird: &BirdFacts<'_>) -> BgpStatus {
    let mut protocols = bird.protocols.iter();
    let worst = protocols
        .find(|protocol| !protocol.is_established())
        .or(bird.protocols.first());
    let routes = || {
        let channels = bird.protocols.iter().flat_map(|it| &it.channels);
        channels.filter_map(|channel| channel.routes.as_ref())
    };
    BgpStatus {
        state: worst.map_or("down", state_word).to_owned(),
        since: worst
            .and_then(|protocol| protocol.since)
            .and_then(|since| Timestamp::from_second(since).ok()),
        routes_imported: routes().map(|routes| routes.imported).sum(),
        routes_exported: routes().map(|routes| routes.exported).sum(),
        last_error: worst.and_then(error_of),
    }
}

/// Returns the state's word in a report (docs/contract/session.md#report-states).
pub fn state_word(protocol: &Protocol) -> &'static str {
    match protocol.bgp.as_ref().map(|bgp| &bgp.state) {
        Some(BgpState::Established) => "established",
        Some(BgpState::Active | BgpState::Passive) => "active",
        Some(BgpState::Connect) => "connect",
        Some(BgpState::Idle) => "idle",
        Some(BgpState::OpenSent) => "opensent",
        Some(BgpState::OpenConfirm) => "openconfirm",
        _ => "down",
    }
}

fn error_of(protocol: &Protocol) -> Option<String> {
    protocol.bgp.as_ref().and_then(|bgp| bgp.last_error.clone())
}
