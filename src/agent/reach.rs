//! What the host says of addresses: its own, its gateways, its name servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Config;
use crate::controller::world::Reach;
use crate::disk;
use crate::model::Host;

/// The largest table that is read, in bytes: some ten thousand routes.
const TABLE: u64 = 4 * 1024 * 1024;

/// Reads the host's addresses. What cannot be read is left out.
pub(super) fn look(config: &Config) -> Reach {
    let mut reach = Reach::default();
    let url = config.control_plane.as_ref().map(|from| from.url.as_str());
    if let Some(address) = url.and_then(control_plane) {
        reach.add(address, "the Control Plane's address");
    }
    for address in text("/etc/resolv.conf").lines().filter_map(nameserver) {
        reach.add(address, "a name server's address");
    }
    for address in local4(&text("/proc/net/fib_trie")) {
        reach.add(address.into(), "an address of this host");
    }
    for address in text("/proc/net/if_inet6").lines().filter_map(hex6) {
        reach.add(address.into(), "an address of this host");
    }
    for address in text("/proc/net/route").lines().filter_map(gateway4) {
        reach.add(address.into(), "this host's gateway");
    }
    reach
}

fn text(path: &str) -> String {
    let bytes = disk::read(path.as_ref(), TABLE).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn control_plane(url: &str) -> Option<IpAddr> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.rsplit('@').next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    match host.parse().ok()? {
        Host::Address(address) => Some(address),
        Host::Name(_) => None,
    }
}

fn nameserver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver"))
        .then(|| words.next()?.parse().ok())
        .flatten()
}

/// The local addresses of `/proc/net/fib_trie`: a leaf, and below it what it is.
fn local4(table: &str) -> Vec<Ipv4Addr> {
    let (mut leaf, mut found) = (None::<Ipv4Addr>, Vec::new());
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(leaf);
        }
    }
    found
}

/// The address at the beginning of a line of `/proc/net/if_inet6`; link-local ones belong to their link.
fn hex6(line: &str) -> Option<Ipv6Addr> {
    let number = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
    Some(Ipv6Addr::from(number)).filter(|address| !address.is_unicast_link_local())
}

/// The gateway of a default route of `/proc/net/route`, whose addresses are in the host's byte order. Other
/// routes are what BGP found, with peers as their gateways.
fn gateway4(line: &str) -> Option<Ipv4Addr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "00000000", gateway, ..] = fields[..] else {
        return None;
    };
    let number = u32::from_str_radix(gateway, 16).ok()?;
    (number != 0).then(|| Ipv4Addr::from(number.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_tables_are_read() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 172.23.105.177\n        /32 host LOCAL\n     |-- 10.0.0.0\n        /24 link UNICAST\n";
        assert_eq!(local4(trie), [Ipv4Addr::new(172, 23, 105, 177)]);
        let gateway = u32::from_ne_bytes([10, 1, 2, 3]);
        let line = format!("eth0\t00000000\t{gateway:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0");
        assert_eq!(gateway4(&line), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(gateway4("eth0\t0000FEA9\t0101010A\t0003"), None);
        assert_eq!(
            hex6("fe800000000000000000000000000001 02 40 20 80 eth0"),
            None
        );
        assert!(hex6("fd000000000000000000000000000001 02 40 20 80 eth0").is_some());
        assert_eq!(
            nameserver("nameserver 10.9.9.9 # x"),
            "10.9.9.9".parse().ok()
        );
        assert_eq!(nameserver("search 10.9.9.9"), None);
        assert_eq!(
            control_plane("http://10.1.1.1:8080/x"),
            "10.1.1.1".parse().ok()
        );
        assert_eq!(control_plane("https://[fd00::1]/x"), "fd00::1".parse().ok());
        assert_eq!(control_plane("https://api.moenet.work"), None);
    }
}
