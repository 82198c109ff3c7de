use super::row::bgp_state;
use super::{Bgp, Channel, HoldTimer, Limit, Protocol, Routes, Rpki};

/// Parses the lines below a row. The line before an `Action:` decides which limit it belongs to.
#[derive(Default)]
pub(super) struct Reader {
    limit: Option<Which>,
}

#[derive(Clone, Copy)]
enum Which {
    Import,
    Receive,
    Export,
}

impl Reader {
    pub(super) fn read(&mut self, protocol: &mut Protocol, line: &str) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("Channel ") {
            let name = name.trim().to_owned();
            return protocol.channels.push(Channel {
                name,
                ..Channel::default()
            });
        }
        // `Refresh timer   : 886.9/900` has blanks before its colon.
        let Some((key, value)) = line.split_once(':') else {
            return;
        };
        let (key, value) = (key.trim_end(), value.trim());
        if let Some(channel) = protocol.channels.last_mut() {
            return self.channel(channel, key, value);
        }
        match key {
            "Description" => set(&mut protocol.description, value),
            "Message" => set(&mut protocol.message, value),
            _ => {
                protocol
                    .bgp
                    .iter_mut()
                    .for_each(|bgp| bgp_line(bgp, key, value));
                protocol
                    .rpki
                    .iter_mut()
                    .for_each(|rpki| rpki_line(rpki, key, value));
            }
        }
    }

    fn channel(&mut self, channel: &mut Channel, key: &str, value: &str) {
        match key {
            "State" => channel.up = value == "UP",
            "Table" => set(&mut channel.table, value),
            "Routes" => channel.routes = Some(routes(value)),
            "Import updates" => {
                channel.updates = value
                    .split_whitespace()
                    .next()
                    .and_then(|count| count.parse().ok())
            }
            "Import limit" => self.start_limit(channel, Which::Import, value),
            "Receive limit" => self.start_limit(channel, Which::Receive, value),
            "Export limit" => self.start_limit(channel, Which::Export, value),
            "Action" => {
                let limit = self
                    .limit
                    .take()
                    .and_then(|which| slot(channel, which).as_mut());
                limit
                    .into_iter()
                    .for_each(|limit| set(&mut limit.action, value));
            }
            _ => {}
        }
    }

    /// `1 [HIT]`
    fn start_limit(&mut self, channel: &mut Channel, which: Which, value: &str) {
        let mut words = value.split_whitespace();
        if let Some(Ok(limit)) = words.next().map(str::parse) {
            *slot(channel, which) = Some(Limit {
                limit,
                hit: words.any(|word| word == "[HIT]"),
                action: None,
            });
            self.limit = Some(which);
        }
    }
}

fn slot(channel: &mut Channel, which: Which) -> &mut Option<Limit> {
    match which {
        Which::Import => &mut channel.import_limit,
        Which::Receive => &mut channel.receive_limit,
        Which::Export => &mut channel.export_limit,
    }
}

/// Sets an empty slot. The first line with a key wins: a neighbour's capabilities come later, with names it chooses.
fn set(slot: &mut Option<String>, value: &str) {
    if slot.is_none() && !value.is_empty() && value != "---" {
        *slot = Some(value.to_owned());
    }
}

fn bgp_line(bgp: &mut Bgp, key: &str, value: &str) {
    match key {
        "BGP state" => bgp.state = bgp_state(value),
        "Neighbor address" | "Neighbor range" => set(&mut bgp.neighbor_address, value),
        "Neighbor AS" => bgp.neighbor_as = bgp.neighbor_as.or(value.parse().ok()),
        "Local AS" => bgp.local_as = bgp.local_as.or(value.parse().ok()),
        "Neighbor ID" => set(&mut bgp.neighbor_id, value),
        "Source address" => set(&mut bgp.source_address, value),
        "Last error" => set(&mut bgp.last_error, value),
        "Hold timer" => bgp.hold = bgp.hold.or(hold_timer(value)),
        _ => {}
    }
}

/// Parses `229.098/240`.
fn hold_timer(value: &str) -> Option<HoldTimer> {
    let (remaining, total) = value.split_once('/')?;
    let remaining = remaining.split('.').next()?.parse().ok()?;
    let total = total.parse().ok()?;
    Some(HoldTimer { remaining, total })
}

fn rpki_line(rpki: &mut Rpki, key: &str, value: &str) {
    match key {
        "Cache server" => set(&mut rpki.server, value),
        "Cache port" => rpki.port = value.parse().ok(),
        "Status" => set(&mut rpki.status, value),
        "Serial number" => rpki.serial = value.parse().ok(),
        // `172786.970/172800`
        "Expire timer" => {
            rpki.expires_in = value
                .split(['.', '/'])
                .next()
                .and_then(|seconds| seconds.parse().ok())
        }
        _ => {}
    }
}

/// Parses `3 imported, 2 filtered, 2 exported, 3 preferred`, some of which may be missing.
fn routes(value: &str) -> Routes {
    let mut routes = Routes::default();
    for part in value.split(',') {
        let Some((count, what)) = part.trim().split_once(' ') else {
            continue;
        };
        let count = count.parse().unwrap_or(0);
        match what.trim() {
            "imported" => routes.imported = count,
            "filtered" => routes.filtered = count,
            "exported" => routes.exported = count,
            "preferred" => routes.preferred = count,
            _ => {}
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::bird::protocols::row;
    use proptest::prelude::*;

    #[test]
    fn an_action_belongs_to_the_limit_before_it() {
        let mut protocol = row::parse("p BGP --- up 1 Established").unwrap();
        let mut reader = Reader::default();
        let lines = [
            "  Channel ipv4",
            "Receive limit: 5",
            "  Action: warn",
            "Import limit: 1 [HIT]",
            "Action: disable",
        ];
        lines
            .iter()
            .for_each(|line| reader.read(&mut protocol, line));
        let limit = |limit, hit, action: &str| {
            Some(Limit {
                limit,
                hit,
                action: Some(action.into()),
            })
        };
        assert_eq!(protocol.channels[0].receive_limit, limit(5, false, "warn"));
        assert_eq!(protocol.channels[0].import_limit, limit(1, true, "disable"));
    }

    proptest! {
        #[test]
        fn random_details_never_panic(lines: Vec<String>) {
            let mut protocol = row::parse("p BGP --- up 1 Established").unwrap();
            let mut reader = Reader::default();
            lines.iter().for_each(|line| reader.read(&mut protocol, line));
        }
    }
}
