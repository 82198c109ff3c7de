//! Addresses from the host: its own, its gateways, its name servers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::resolve::KnownNames;
use crate::config::Config;
use crate::kernel::LinuxKernel;
use crate::model::{self, Endpoint, InterfaceName, Port};
use crate::telemetry::chain;
use crate::util::file;
use crate::util::task::blocking;

/// Largest table that is read, in bytes: about ten thousand addresses.
const TABLE: u64 = 4 * 1024 * 1024;

/// Source of the host's addresses.
pub(crate) struct Host {
    kernel: Arc<LinuxKernel>,
    names: KnownNames,
}

impl Host {
    pub(crate) fn new(kernel: Arc<LinuxKernel>, names: KnownNames) -> Self {
        Self { kernel, names }
    }

    /// Reads the current addresses that the host has and must reach.
    pub(crate) async fn look(&self, config: &Config) -> HostAddresses {
        let mut found = blocking(|| {
            let mut found = HostAddresses::default();
            name_servers(&mut found);
            own_addresses(&mut found);
            found
        })
        .await;
        found.names = self.names.addresses();
        self.control_plane(config, &mut found);
        match self.kernel.gateways().await {
            Ok(gateways) => found.gateways.extend(gateways),
            Err(error) => found.unread("the gateways of this host", &chain(&error)),
        }
        found
    }

    fn control_plane(&self, config: &Config, found: &mut HostAddresses) {
        let Some(endpoint) = control_plane(config) else {
            return;
        };
        match &endpoint.host {
            model::Host::Address(address) => found.control_plane.push(*address),
            model::Host::Name(name) => {
                let known = self.names.addresses().remove(&endpoint).unwrap_or_default();
                if known.is_empty() {
                    let why = self.names.current(&endpoint).error;
                    let why = why.unwrap_or_else(|| "not resolved yet".to_owned());
                    found.unread(&format!("the addresses of the Control Plane {name}"), &why);
                }
                found.control_plane.extend(known);
            }
        }
    }
}

/// The addresses that the host has and must reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostAddresses {
    pub own: Vec<IpAddr>,
    /// Its gateways, with the interfaces of their routes.
    pub gateways: Vec<(InterfaceName, IpAddr)>,
    pub name_servers: Vec<IpAddr>,
    pub control_plane: Vec<IpAddr>,
    pub names: BTreeMap<Endpoint, BTreeSet<IpAddr>>,
    /// Facts that could not be read, each with the reason.
    pub unread: Vec<String>,
}

impl HostAddresses {
    fn unread(&mut self, what: &str, why: &str) {
        self.unread.push(format!("{what}: {why}"));
    }
}

/// The host and port of the Control Plane.
pub(crate) fn control_plane(config: &Config) -> Option<Endpoint> {
    host_of(&config.control_plane.as_ref()?.url)
}

fn host_of(url: &str) -> Option<Endpoint> {
    let url = reqwest::Url::parse(url.trim()).ok()?;
    let host = url.host_str()?.parse().ok()?;
    let port = Port::new(url.port_or_known_default()?)?;
    Some(Endpoint { host, port })
}

fn name_servers(found: &mut HostAddresses) {
    const FILE: &str = "/etc/resolv.conf";
    match text(FILE) {
        Ok(text) => found
            .name_servers
            .extend(text.lines().filter_map(nameserver)),
        // A host without the file has only a local name server.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => found.unread(
            "the name servers of this host",
            &format!("read {FILE}: {error}"),
        ),
    }
}

fn own_addresses(found: &mut HostAddresses) {
    const FILES: [&str; 2] = ["/proc/net/fib_trie", "/proc/net/if_inet6"];
    for file in FILES {
        match text(file) {
            Ok(text) if file == FILES[0] => {
                found.own.extend(local4(&text).into_iter().map(IpAddr::V4));
            }
            Ok(text) => found
                .own
                .extend(text.lines().filter_map(hex6).map(IpAddr::V6)),
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => found.unread(
                "the addresses of this host",
                &format!("read {file}: {error}"),
            ),
        }
    }
}

fn text(path: &str) -> io::Result<String> {
    let bytes = file::read(path.as_ref(), TABLE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn nameserver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver"))
        .then(|| words.next()?.parse().ok())
        .flatten()
}

/// Returns the local addresses of `/proc/net/fib_trie`: a leaf line, followed by a line with its type.
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

/// Returns the address at the beginning of a line of `/proc/net/if_inet6`; link-local addresses belong to their link.
fn hex6(line: &str) -> Option<Ipv6Addr> {
    let number = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
    Some(Ipv6Addr::from(number)).filter(|address| !address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_tables_are_read() {
        let trie = "Local:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 172.23.105.177\n        /32 host LOCAL\n     |-- 10.0.0.0\n        /24 link UNICAST\n";
        assert_eq!(local4(trie), [Ipv4Addr::new(172, 23, 105, 177)]);
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
        for (url, endpoint) in [
            ("http://10.1.1.1:8080/x", Some("10.1.1.1:8080")),
            ("https://[FD00::1]/x", Some("[fd00::1]:443")),
            ("https://API.moenet.work", Some("api.moenet.work:443")),
            ("https://u:p@a.example./", Some("a.example:443")),
            ("nothing", None),
        ] {
            assert_eq!(
                host_of(url),
                endpoint.map(|it| it.parse().unwrap()),
                "{url}"
            );
        }
    }
}
