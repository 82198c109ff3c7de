//! The ROA tables, and the state of the RPKI servers that fill them. Pure.

use super::framing::Reply;
use super::protocols::Protocol;
use crate::model::RoaTable;

/// Parses a reply to `show route table moe_roa4`: ` 172.20.0.0/24-28 AS4242420000 [source time] * (100)`.
/// A second source of the same ROA has a line without the prefix, which is skipped.
pub fn parse(reply: &Reply) -> RoaTable {
    let lines: Vec<&str> = reply.with_code(1007).collect();
    RoaTable::parse(&lines.join("\n")).0
}

/// The states of the RPKI servers, from one reading of the protocols. While two readings are equal,
/// no ROA was added or removed, and the tables need not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers {
    states: Vec<ServerState>,
}

/// Name, state, serial number, and how many ROAs each channel has.
type ServerState = (String, Option<String>, Option<u32>, Vec<u64>);

impl Servers {
    /// Returns the RPKI servers among the protocols.
    pub fn of(protocols: &[Protocol]) -> Self {
        let state = |protocol: &Protocol| {
            let rpki = protocol.rpki.as_ref()?;
            let routes = protocol
                .channels
                .iter()
                .filter_map(|channel| channel.routes);
            let counts = routes.map(|routes| routes.imported).collect();
            Some((
                protocol.name.clone(),
                rpki.status.clone(),
                rpki.serial,
                counts,
            ))
        };
        Self {
            states: protocols.iter().filter_map(state).collect(),
        }
    }

    /// Returns how many servers have sent all their data: BIRD calls a server `Established` once its End of
    /// Data has arrived (RFC 8210, section 8.1).
    pub fn answering(&self) -> usize {
        self.states
            .iter()
            .filter(|state| state.1.as_deref() == Some("Established"))
            .count()
    }

    /// Returns whether this server has sent its data, or is sending it.
    pub fn answers(&self, protocol: &str) -> bool {
        let state = self.states.iter().find(|state| state.0 == protocol);
        let status = state.and_then(|state| state.1.as_deref());
        status.is_some_and(|status| status == "Established" || status.starts_with("Sync-"))
    }

    /// Returns whether a server is still sending its data, so that the tables are incomplete.
    pub fn are_syncing(&self) -> bool {
        self.states.iter().any(|state| {
            state
                .1
                .as_deref()
                .is_some_and(|status| status.starts_with("Sync-"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Reply {
        crate::observed::bird::framing::Decoder::new()
            .push(text.as_bytes())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn a_listing_of_every_version_is_read() {
        let (two, three) = (
            "1007-Table moe_roa4:\n 10.0.0.0/8-32 AS0     [xx 00:17:54.193] * (200)\n \
             172.20.0.0/24-28 AS4242420000  [xx 00:17:54.193] (100)\n                       [yy 00:17] (100)\n0000 \n",
            "1007-Table moe_roa4:\n 172.20.0.0/24-28 AS4242420000  [xx 1795447104] (100)\n \
             10.0.0.0/8-32 AS0     [xx 00:18:05.140] * (200)\n0000 \n",
        );
        let table = parse(&reply(two));
        assert_eq!(table.entries.len(), 2);
        assert_eq!(table, parse(&reply(three)));
        assert!(parse(&reply("1007-Table moe_roa6:\n0000 \n")).is_empty());
    }

    #[test]
    fn rpki_server_still_sending_has_not_answered() {
        let listing = |status: &str| {
            let text = format!(
                "1002-moe_rpki_a_1 RPKI --- up 1 {status}\n1006-  Status: {status}\n   Serial number: 7\n   \
                 Channel roa4\n     Routes: 2 imported, 0 exported\n0000 \n"
            );
            Servers::of(&crate::observed::bird::protocols::parse(&reply(&text)))
        };
        let (done, syncing) = (listing("Established"), listing("Sync-Running"));
        assert_eq!((done.answering(), done.are_syncing()), (1, false));
        assert_eq!((syncing.answering(), syncing.are_syncing()), (0, true));
        assert_ne!(done, syncing);
        assert_eq!(done, listing("Established"));
    }
}
