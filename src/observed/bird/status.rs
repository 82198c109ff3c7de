//! Parsers of the short replies: `show status`, `configure status`, route counts. Pure.

use std::time::Duration;

use super::framing::Reply;
use super::version::Version;

/// `show status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// BIRD's version.
    pub version: Option<Version>,
    /// The router ID, dotted.
    pub router_id: Option<String>,
    /// When the daemon started, as BIRD writes it (`timeformat base`).
    pub last_reboot: Option<String>,
    /// When the configuration was last loaded, as BIRD writes it (`timeformat base`).
    pub last_reconfiguration: Option<String>,
    /// Whether graceful-restart recovery is in progress (after a start with `-R`).
    pub recovering: bool,
    /// Whether BIRD reports that it is up and running, and not shutting down.
    pub running: bool,
}

/// Parses a reply to `show status`. Missing keys are `None`.
pub fn parse(reply: &Reply) -> Status {
    let mut status = Status {
        running: reply.code == 13,
        ..Status::default()
    };
    for (code, text) in &reply.lines {
        let text = text.trim();
        match code {
            1000 => status.version = Version::find(text),
            24 => status.recovering = true,
            _ => {}
        }
        let value = |key| {
            text.strip_prefix(key)
                .map(|value: &str| value.trim().to_owned())
        };
        status.router_id = status.router_id.or_else(|| value("Router ID is"));
        status.last_reboot = status.last_reboot.or_else(|| value("Last reboot on"));
        status.last_reconfiguration = status
            .last_reconfiguration
            .or_else(|| value("Last reconfiguration on"));
    }
    status
}

/// The phase of a reconfiguration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is in progress: the only state in which BIRD 3 accepts configure or undo.
    Settled,
    /// One reconfiguration is in progress.
    InProgress,
    /// One is in progress, and another one waits: a third makes BIRD 3 abort (measured, 8 of 8).
    Queued,
    /// BIRD is shutting down.
    ShuttingDown,
}

/// `configure status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigureStatus {
    /// The phase of the reconfiguration.
    pub phase: Phase,
    /// When BIRD reverts to the previous configuration, unless it is confirmed.
    pub undo_in: Option<Duration>,
}

/// Parses a reply to `configure status`; `None` if no code in it is known.
pub fn parse_configure(reply: &Reply) -> Option<ConfigureStatus> {
    let codes = || {
        reply
            .lines
            .iter()
            .map(|(code, _)| *code)
            .chain([reply.code])
    };
    let phase = codes().find_map(|code| match code {
        3 => Some(Phase::Settled),
        4 => Some(Phase::InProgress),
        5 => Some(Phase::Queued),
        6 | 7 => Some(Phase::ShuttingDown),
        _ => None,
    })?;
    // "Configuration unconfirmed, undo in 19.999 s"
    let seconds = |text: &str| text.split_whitespace().rev().nth(1)?.parse().ok();
    let undo_in = reply.with_code(22).next().map(|text| {
        seconds(text)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or_default()
    });
    Some(ConfigureStatus { phase, undo_in })
}

/// Parses `show route … count`: the routes of all tables in the reply, from
/// `9 of 9 routes for 6 networks in table master4`. `None` if no line matches.
pub fn parse_route_count(reply: &Reply) -> Option<u64> {
    reply
        .with_code(1007)
        .filter_map(count)
        .reduce(u64::saturating_add)
}

fn count(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let count = words.next()?.parse().ok()?;
    (words.next()? == "of").then_some(count)
}
