//! Parser of `configure status`. Pure.

use std::time::Duration;

use super::framing::Reply;

/// The phase of a reconfiguration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is in progress: the only state in which BIRD 3 accepts configure or undo.
    Settled,
    InProgress,
    /// One is in progress, and another one waits: a third makes BIRD 3 abort (measured, 8 of 8).
    Queued,
    ShuttingDown,
}

/// `configure status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigureStatus {
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
