use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

/// One route origin authorisation (RFC 6482).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Roa {
    /// The prefix that may be announced.
    pub prefix: IpNet,
    /// The maximum length of an announced prefix within it.
    pub max_length: u8,
    /// The authorised AS; 0 authorises none (RFC 7607).
    pub asn: u32,
}

/// A ROA table, kept on disk so that a router can start where the RPKI caches are reachable only
/// through the routes that they validate.
///
/// The text comes from a web server, so it is parsed and written again; no part of it reaches BIRD
/// unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoaTable {
    /// The ROAs.
    pub entries: BTreeSet<Roa>,
}

impl RoaTable {
    /// Parses DN42's files for BIRD (`route 172.20.0.0/24 max 24 as 4242420000;`) and BIRD's own
    /// listing of a table (`172.20.0.0/24-24 AS4242420000  [moe_rpki ...]`). Comments and lines of
    /// neither form are skipped, and counted.
    pub fn parse(text: &str) -> (Self, usize) {
        let mut table = Self::default();
        let mut skipped = 0;
        for line in text.lines().map(str::trim) {
            match from_file(line).or_else(|| from_listing(line)) {
                Some(roa) => drop(table.entries.insert(roa)),
                None if line.is_empty() || line.starts_with('#') => {}
                None => skipped += 1,
            }
        }
        (table, skipped)
    }

    /// Returns the ROAs of one family as routes of a static protocol; empty when there are none.
    pub fn routes(&self, ipv6: bool) -> String {
        let mut text = String::new();
        for Roa {
            prefix,
            max_length,
            asn,
        } in &self.entries
        {
            if prefix.addr().is_ipv6() == ipv6 {
                // Writing to a string does not fail.
                let _ = writeln!(text, "route {prefix} max {max_length} as {asn};");
            }
        }
        text
    }

    /// Returns the whole table as a file, which [`RoaTable::parse`] reads. It has no timestamp, so that the same
    /// table gives the same text.
    pub fn to_file(&self) -> String {
        let head = "# The last good table of ROAs, kept by moenet-agent for a start without RPKI \
                    servers.\n# Remove this file to accept the next answer of the servers.\n";
        [head, &self.routes(false), &self.routes(true)].concat()
    }

    /// Returns whether there are ROAs of one family.
    pub fn has(&self, ipv6: bool) -> bool {
        self.entries
            .iter()
            .any(|roa| roa.prefix.addr().is_ipv6() == ipv6)
    }

    /// Returns the number of ROAs of one family.
    pub fn count(&self, ipv6: bool) -> usize {
        self.entries
            .iter()
            .filter(|roa| roa.prefix.addr().is_ipv6() == ipv6)
            .count()
    }

    /// Returns whether so many ROAs are missing since the last good table that the source, and not the network, must
    /// have changed: one family is empty, or less than half of a table that is not tiny remains.
    pub fn collapsed_since(&self, last_good: &Self) -> bool {
        const ENOUGH: usize = 20;
        [false, true].into_iter().any(|ipv6| {
            let (now, before) = (self.count(ipv6), last_good.count(ipv6));
            (now == 0 && before > 0) || (before >= ENOUGH && now * 2 < before)
        })
    }

    /// Returns whether there are no ROAs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn from_file(line: &str) -> Option<Roa> {
    let statement = line
        .strip_prefix("route ")?
        .split('#')
        .next()?
        .trim()
        .strip_suffix(';')?;
    let words: Vec<&str> = statement.split_whitespace().collect();
    let [prefix, "max", max_length, "as", asn] = words[..] else {
        return None;
    };
    roa(prefix, max_length, asn)
}

fn from_listing(line: &str) -> Option<Roa> {
    let mut words = line.split_whitespace();
    let (prefix, max_length) = words.next()?.split_once('-')?;
    roa(prefix, max_length, words.next()?.strip_prefix("AS")?)
}

fn roa(prefix: &str, max_length: &str, asn: &str) -> Option<Roa> {
    let prefix: IpNet = prefix.parse().ok()?;
    let max_length: u8 = max_length.parse().ok()?;
    let widest = if matches!(prefix.addr(), IpAddr::V4(_)) {
        32
    } else {
        128
    };
    let valid = prefix == prefix.trunc() && (prefix.prefix_len()..=widest).contains(&max_length);
    valid.then_some(Roa {
        prefix,
        max_length,
        asn: asn.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_listings_read_the_same() {
        let file = "# made by someone\nroute 172.20.0.0/24 max 28 as 4242420000;\n\
                    route fd00:1::/48 max 64 as 4242420001; # x\n";
        let listing = "172.20.0.0/24-28 AS4242420000         [moe_rpki 10:00:00.000] * (100)\n\
                       fd00:1::/48-64 AS4242420001  [moe_rpki 10:00:00.000] * (100)\n";
        let (table, skipped) = RoaTable::parse(file);
        assert_eq!((table.entries.len(), skipped), (2, 0));
        assert_eq!(RoaTable::parse(listing), (table.clone(), 0));
        assert_eq!(
            table.routes(false),
            "route 172.20.0.0/24 max 28 as 4242420000;\n"
        );
        assert_eq!(
            table.routes(true),
            "route fd00:1::/48 max 64 as 4242420001;\n"
        );
    }

    #[test]
    fn losing_half_of_a_table_is_a_collapse() {
        let table = |count: u8| {
            let line = |i: u8| format!("route 10.{i}.0.0/16 max 24 as 1;");
            RoaTable::parse(&(0..count).map(line).collect::<Vec<_>>().join("\n")).0
        };
        assert!(table(9).collapsed_since(&table(20)) && table(0).collapsed_since(&table(200)));
        assert!(!table(10).collapsed_since(&table(20)) && !table(30).collapsed_since(&table(20)));
        assert!(!table(1).collapsed_since(&table(3)) && table(0).collapsed_since(&table(3)));
        assert!(!table(0).collapsed_since(&table(0)));
    }

    #[test]
    fn one_missing_family_is_a_collapse() {
        let (both, _) = RoaTable::parse("route 10.0.0.0/8 max 8 as 1;\nroute fd00::/8 max 8 as 1;");
        let (one, _) =
            RoaTable::parse("route 10.0.0.0/8 max 8 as 1;\nroute 10.0.0.0/8 max 8 as 2;");
        assert!(one.collapsed_since(&both) && !both.collapsed_since(&one));
    }

    #[test]
    fn a_table_is_read_back_from_its_file() {
        let (table, _) =
            RoaTable::parse("route 10.0.0.0/8 max 24 as 1;\nroute fd00::/8 max 64 as 4294967295;");
        assert_eq!(RoaTable::parse(&table.to_file()), (table, 0));
    }

    #[test]
    fn a_hostile_file_yields_no_statements() {
        let hostile = "route 172.20.0.0/24 max 24 as 1; } protocol static x {\n\
                       include \"/etc/shadow\";\nroute 172.20.0.1/24 max 24 as 1;\nroute 172.20.0.0/24 max 16 as 1;\n\
                       <html>\nroute 172.20.0.0/24 max 33 as 1;\nroute 172.20.0.0/24 max 24 as -1;";
        let (table, skipped) = RoaTable::parse(hostile);
        assert_eq!((table.is_empty(), skipped), (true, 7));
    }
}
