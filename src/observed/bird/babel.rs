//! Babel neighbours by interface. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::framing::Reply;

use crate::util::sorted::Sorted as _;

/// Parses the reply to `show babel neighbors` into the interfaces that have a neighbour. Each line holds a neighbour's
/// address, its interface and numbers, whose columns differ by version.
pub fn parse(reply: &Reply) -> BTreeSet<String> {
    let interface = |line: &str| {
        let mut words = line.split_whitespace();
        let is_address = words.next()?.parse::<IpAddr>().is_ok();
        words.next().filter(|_| is_address).map(str::to_owned)
    };
    let lines = reply.lines.iter().map(|(_, line)| line.as_str());
    lines.filter_map(interface).sorted_set()
}
