//! Addresses from the host: its own, its gateways, its name servers.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::config::Config;
use crate::controller::world::{Reach, Use};
use crate::kernel::LinuxKernel;
use crate::model::{self, Endpoint, Port};
use crate::sources::resolve::KnownNames;
use crate::telemetry::chain;
use crate::util::file;

/// Largest table that is read, in bytes: about ten thousand addresses.
const TABLE: u64 = 4 * 1024 * 1024;

/// Source of the host's addresses.
pub(crate) struct Host {
    kernel: Arc<LinuxKernel>,
    names: KnownNames,
}

impl Host {
    pub(super) fn new(kernel: Arc<LinuxKernel>, names: KnownNames) -> Self {
        Self { kernel, names }
    }

    /// Reads the current addresses that the host has and must reach.
    pub(super) async fn look(&self, config: &Config) -> Reach {
        let mut reach = Reach::default();
        for (endpoint, addresses) in self.names.addresses() {
            reach.name(&endpoint, addresses);
        }
        self.control_plane(config, &mut reach);
        name_servers(&mut reach);
        own_addresses(&mut reach);
        match self.kernel.gateways().await {
            Ok(gateways) => {
                for (interface, gateway) in gateways {
                    reach.add(gateway, Use::Gateway(interface), "a gateway of this host");
                }
            }
            Err(error) => unread(&mut reach, "the gateways of this host", &chain(&error)),
        }
        reach
    }

    fn control_plane(&self, config: &Config, reach: &mut Reach) {
        const WHAT: &str = "the Control Plane's address";
        let Some(endpoint) = control_plane(config) else {
            return;
        };
        match &endpoint.host {
            model::Host::Address(address) => reach.add(*address, Use::Needed, WHAT),
            model::Host::Name(name) => {
                let known = self.names.addresses().remove(&endpoint).unwrap_or_default();
                if known.is_empty() {
                    let why = self.names.current(&endpoint).error;
                    let why = why.unwrap_or_else(|| "not resolved yet".to_owned());
                    unread(
                        reach,
                        &format!("the addresses of the Control Plane {name}"),
                        &why,
                    );
                }
                for address in known {
                    reach.add(address, Use::Needed, WHAT);
                }
            }
        }
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

fn unread(reach: &mut Reach, what: &str, why: &str) {
    reach.unread.push(format!("{what}: {why}"));
}

fn name_servers(reach: &mut Reach) {
    const FILE: &str = "/etc/resolv.conf";
    match text(FILE) {
        Ok(text) => {
            for address in text.lines().filter_map(nameserver) {
                reach.add(address, Use::Needed, "a name server's address");
            }
        }
        // A host without the file has only a local name server.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => unread(
            reach,
            "the name servers of this host",
            &format!("read {FILE}: {error}"),
        ),
    }
}

fn own_addresses(reach: &mut Reach) {
    const WHAT: &str = "an address of this host";
    const FILES: [&str; 2] = ["/proc/net/fib_trie", "/proc/net/if_inet6"];
    for file in FILES {
        let text = match text(file) {
            Ok(text) => text,
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                unread(
                    reach,
                    "the addresses of this host",
                    &format!("read {file}: {error}"),
                );
                continue;
            }
        };
        let addresses: Vec<IpAddr> = match file == FILES[0] {
            true => local4(&text).into_iter().map(IpAddr::V4).collect(),
            false => text.lines().filter_map(hex6).map(IpAddr::V6).collect(),
        };
        for address in addresses {
            reach.add(address, Use::Own, WHAT);
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
