//! Parser of `show protocols` and `show protocols all`. Pure.
//!
//! Reads by key, never by column or order: columns move with long names and tables, and BIRD 3 has
//! neither the widths nor the order of BIRD 2 (measured on 2.0.12 to 3.4.0).

mod details;
mod entered;
mod row;

pub use entered::Entered;

use std::net::IpAddr;

use super::framing::Reply;

/// One protocol of the running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    /// Its type as BIRD writes it: `BGP`, `Static`, `RPKI`, …
    pub proto: String,
    /// Its table, if it has exactly one; `None` for BGP, see [`Channel::table`].
    pub table: Option<String>,
    pub state: ProtocolState,
    /// When it entered this state, in epoch seconds. `None` unless the configuration has
    /// `timeformat protocol "%s";`: the other formats lack date, time or zone.
    pub since: Option<i64>,
    /// The rest of the row: for BGP its state and last error, for RPKI the cache's state.
    pub info: String,
    /// The `description` of the configuration.
    pub description: Option<String>,
    /// The administrative message, such as that of a shutdown.
    pub message: Option<String>,
    pub bgp: Option<Bgp>,
    pub rpki: Option<Rpki>,
    /// The channels, in BIRD's order. Empty in a reply to `show protocols`.
    pub channels: Vec<Channel>,
}

impl Protocol {
    /// Returns whether this is an established BGP session.
    pub fn is_established(&self) -> bool {
        self.state == ProtocolState::Up
            && self
                .bgp
                .as_ref()
                .is_some_and(|bgp| bgp.state == BgpState::Established)
    }

    /// Returns this protocol as a later row of `show protocols` has it: its details are as they were. `None` if it has
    /// entered another state since, which may have changed any detail, or if it is one of RPKI, whose details change
    /// within a state. BIRD tells the time of a state in seconds.
    pub fn in_row(&self, row: &Self) -> Option<Self> {
        let identity = |it: &Self| {
            (
                it.since,
                it.state.clone(),
                it.proto.clone(),
                it.table.clone(),
            )
        };
        if self.since.is_none() || self.rpki.is_some() || identity(self) != identity(row) {
            return None;
        }
        let mut now = self.clone();
        now.info.clone_from(&row.info);
        if let (Some(bgp), Some(in_row)) = (&mut now.bgp, &row.bgp) {
            bgp.state = in_row.state.clone();
            let error = match row.state {
                // It has no BGP state in its row, only its last error.
                ProtocolState::Down => row.info.as_str(),
                _ => row
                    .info
                    .split_once(char::is_whitespace)
                    .map_or("", |(_, rest)| rest.trim()),
            };
            if !error.is_empty() {
                bgp.last_error = Some(error.to_owned());
            }
        }
        Some(now)
    }

    /// Returns whether it is off without an error and without a limit: `disable` leaves neither (2.0.12 to 3.4,
    /// measured),
    /// nor does `disabled` in the configuration. A limit and `disable after error` leave an error.
    pub fn is_disabled_by_command(&self) -> bool {
        let disables = |limit: &Limit| limit.hit && limit.action.as_deref() == Some("disable");
        let is_hit = |limit: &Option<Limit>| limit.as_ref().is_some_and(disables);
        let by_limit = self.channels.iter().any(|channel| {
            is_hit(&channel.import_limit)
                || is_hit(&channel.receive_limit)
                || is_hit(&channel.export_limit)
        });
        let error = self.bgp.as_ref().and_then(|bgp| bgp.last_error.as_ref());
        self.state == ProtocolState::Down && self.info.is_empty() && error.is_none() && !by_limit
    }
}

/// The state of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtocolState {
    Up,
    /// It is starting: a BGP session that is not established.
    Start,
    /// It is off: by configuration, by command, or by a limit.
    Down,
    Stop,
    /// Its routes are being removed.
    Flush,
    /// A word unknown to the agent.
    Other(String),
}

/// The fields of BGP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bgp {
    /// The session's state.
    pub state: BgpState,
    /// The neighbour's address; a link-local one has `%interface`. For a passive session, its range.
    pub neighbor_address: Option<String>,
    /// The neighbour's AS; 0 while a dynamic session has no neighbour.
    pub neighbor_as: Option<u32>,
    pub local_as: Option<u32>,
    /// The neighbour's router ID.
    pub neighbor_id: Option<String>,
    /// The local address of the session.
    pub source_address: Option<String>,
    /// The last error, as BIRD prints it: `Socket: Connection refused`. The neighbour controls
    /// some of these words.
    pub last_error: Option<String>,
    /// When the protocol entered its state; `None` in a time format unknown to the agent.
    pub entered: Option<Entered>,
    /// The hold timer of an established session.
    pub hold: Option<HoldTimer>,
}

impl Bgp {
    /// Returns the neighbour's address, and the interface of a link-local one. `None` for a range.
    pub fn neighbour(&self) -> Option<(IpAddr, Option<&str>)> {
        let text = self.neighbor_address.as_deref()?;
        let (address, scope) = match text.split_once('%') {
            Some((address, scope)) => (address, Some(scope)),
            None => (text, None),
        };
        Some((address.parse().ok()?, scope))
    }
}

/// The hold timer of a BGP session. Each message of the neighbour starts it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTimer {
    /// Whole seconds until the session ends.
    pub remaining: u32,
    /// The negotiated hold time, in seconds.
    pub total: u32,
}

/// The state of a BGP session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum BgpState {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
    Close,
    /// It waits for the neighbour to connect.
    Passive,
    #[default]
    Down,
    /// A word unknown to the agent.
    Other(String),
}

/// The fields of RPKI: the state of the cache connection. BIRD's `---` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rpki {
    /// The cache's address or name.
    pub server: Option<String>,
    /// The cache's port.
    pub port: Option<u16>,
    /// `Established`, `Transport-Error`, …
    pub status: Option<String>,
    /// The serial number of the last loaded data.
    pub serial: Option<u32>,
    /// Seconds until the data expires.
    pub expires_in: Option<u64>,
}

/// One channel of a protocol: its connection to one table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channel {
    /// `ipv4`, `ipv6`, `roa4`, …
    pub name: String,
    pub up: bool,
    pub table: Option<String>,
    /// Its routes; `None` for a channel that is down.
    pub routes: Option<Routes>,
    /// The number of updates received since the channel came up.
    pub updates: Option<u64>,
    /// `import limit`
    pub import_limit: Option<Limit>,
    /// `receive limit`
    pub receive_limit: Option<Limit>,
    /// `export limit`
    pub export_limit: Option<Limit>,
}

/// The routes of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routes {
    /// Accepted from the neighbour.
    pub imported: u64,
    /// Received and rejected by the filter; 0 unless `import keep filtered` or an import table is on.
    pub filtered: u64,
    /// Sent to the neighbour.
    pub exported: u64,
    /// Imported, and the best route of their table.
    pub preferred: u64,
}

/// A limit of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limit {
    /// The maximum number of routes.
    pub limit: u64,
    /// Whether it is exceeded now, judged by the routes. BIRD's own mark alone would mislead: 3.1
    /// and 3.4 keep it when an import limit is raised, and have none for an export limit that only
    /// warns (measured).
    pub hit: bool,
    /// The action when it is exceeded: `block`, `restart`, `disable`, `warn`.
    pub action: Option<String>,
}

/// Parses a reply to `show protocols` or `show protocols all`, sorted by name. Skips lines that it does not
/// understand.
pub fn parse(reply: &Reply) -> Vec<Protocol> {
    let mut protocols: Vec<Protocol> = Vec::new();
    let mut details = details::Reader::default();
    for (code, text) in &reply.lines {
        match (code, protocols.last_mut()) {
            (1002, _) => {
                details = details::Reader::default();
                protocols.extend(row::parse(text));
            }
            (1006, Some(protocol)) => details.read(protocol, text),
            _ => {}
        }
    }
    protocols
        .iter_mut()
        .flat_map(|protocol| &mut protocol.channels)
        .for_each(Channel::judge_limits);
    protocols.sort_by(|a, b| a.name.cmp(&b.name));
    protocols
}

impl Channel {
    /// Judges limits by the routes, if there are any; a channel that is down has only BIRD's mark.
    fn judge_limits(&mut self) {
        let Some(routes) = self.routes else { return };
        for (limit, count) in [
            (&mut self.import_limit, routes.imported),
            (&mut self.export_limit, routes.exported),
        ] {
            let Some(limit) = limit else { continue };
            limit.hit = match limit.action.as_deref() {
                Some("warn") => count > limit.limit,
                // BIRD blocked the routes over the limit.
                _ => limit.hit && count >= limit.limit,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::framing::Decoder;

    /// Returns `[import, export]` of a channel with these lines.
    fn hits(lines: &str) -> [Option<bool>; 2] {
        let text = format!(
            "1002-p BGP --- up 1 Established\n1006-  BGP state: Established\n   Channel ipv4\n{lines}0000 \n"
        );
        let protocols = parse(&Decoder::new().push(text.as_bytes()).unwrap().unwrap());
        let channel = &protocols[0].channels[0];
        [&channel.import_limit, &channel.export_limit]
            .map(|limit| limit.as_ref().map(|limit| limit.hit))
    }

    #[test]
    fn hold_timer_and_received_updates_are_read() {
        let text = "1002-p BGP --- up 2026-11-22 10:00:00  Established\n\
            1006-  BGP state: Established\n     Hold timer:       229.098/240\n   Channel ipv4\n\
            \x20      Import updates:              5          0          2          0          3\n0000 \n";
        let protocols = parse(&Decoder::new().push(text.as_bytes()).unwrap().unwrap());
        let bgp = protocols[0].bgp.as_ref().unwrap();
        let hold = HoldTimer {
            remaining: 229,
            total: 240,
        };
        assert_eq!(bgp.hold, Some(hold));
        assert_eq!(bgp.entered, Some(Entered::OfDay(36_000)));
        assert_eq!(protocols[0].channels[0].updates, Some(5));
    }

    #[test]
    fn row_of_the_same_state_keeps_the_details() {
        let read = |text: &str| {
            let reply = Decoder::new().push(format!("{text}0000 \n").as_bytes());
            parse(&reply.unwrap().unwrap()).remove(0)
        };
        let known = read(
            "1002-p BGP --- start 100 Connect\n1006-  BGP state: Connect\n    Neighbor AS: 7\n",
        );
        let row = |text: &str| known.in_row(&read(&format!("1002-p BGP --- {text}\n")));
        let now = row("start 100 Active  Socket: Connection refused").unwrap();
        let bgp = now.bgp.unwrap();
        assert_eq!((bgp.state, bgp.neighbor_as), (BgpState::Active, Some(7)));
        let error = bgp.last_error.as_deref();
        assert_eq!(error, Some("Socket: Connection refused"));
        let limit = "Automatic shutdown: Route limit exceeded";
        let text = format!(
            "1002-p BGP --- down 100 {limit}\n1006-  BGP state: Down\n    Last error: {limit}\n"
        );
        let down = read(&text);
        assert_eq!(down.in_row(&read(&text)), Some(down));
        let cache = read("1002-c RPKI --- up 100 Established\n");
        assert_eq!(cache.in_row(&cache), None);
        // Another state, or the same state again: any detail may differ.
        for other in ["up 100 Established", "start 101 Connect"] {
            assert_eq!(row(other), None, "{other}");
        }
    }

    #[test]
    fn a_limit_is_hit_when_the_routes_say_so() {
        let block = |mark: &str, limit: u32| {
            format!(
                "     Import limit:   {limit}{mark}\n       Action:       block\n     Routes:         2 imported, 9 exported\n"
            )
        };
        assert_eq!(hits(&block(" [HIT]", 2)), [Some(true), None]);
        // Exactly as many routes as allowed, and no more were received.
        assert_eq!(hits(&block("", 2)), [Some(false), None]);
        // Raised on 3.1 and 3.4.
        assert_eq!(hits(&block(" [HIT]", 20)), [Some(false), None]);
        let warn = |limit: u32| {
            format!(
                "     Export limit:   {limit}\n       Action:       warn\n     Routes:         2 imported, 9 exported\n"
            )
        };
        assert_eq!(hits(&warn(3)), [None, Some(true)]);
        assert_eq!(hits(&warn(9)), [None, Some(false)]);
        // Down because of its own limit: there are no routes to count.
        assert_eq!(
            hits("     Import limit:   1 [HIT]\n       Action:       disable\n"),
            [Some(true), None]
        );
    }
}
