//! The settings of a WireGuard interface in the files of `wg-quick` and systemd-networkd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::ini::{self, Entry, Section};
use super::report::{Finding, Outcome, Place};
use crate::model::{Endpoint, InterfaceName};
use crate::util::sorted::Sorted as _;

/// Keys of both programs whose values the kernel reports, so that the file need not be trusted.
const IN_KERNEL: [&str; 12] = [
    "Address",
    "ListenPort",
    "MTU",
    "MTUBytes",
    "PrivateKey",
    "PrivateKeyFile",
    "PublicKey",
    "PresharedKey",
    "PresharedKeyFile",
    "AllowedIPs",
    "PersistentKeepalive",
    "Endpoint",
];
/// Keys that say which interface a file is for.
const NAMES: [&str; 3] = ["Name", "Kind", "Description"];

/// The program that reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    WgQuick,
    Networkd,
}

/// A file that configures one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelFile {
    pub path: PathBuf,
    pub manager: Manager,
    /// The name of the interface.
    pub interface: String,
    /// The first line that is not UTF-8, so that other lines may not say what they seem to.
    pub undecoded: Option<Place>,
    sections: Vec<Section>,
    unread: Vec<usize>,
}

impl TunnelFile {
    /// Reads `<interface>.conf` of `wg-quick`, a `.netdev` of kind `wireguard`, or a `.network` with one exact name.
    /// `None`: it configures no single interface of that kind.
    pub fn read(path: &Path, bytes: &[u8]) -> Option<Self> {
        let decoded = std::str::from_utf8(bytes);
        let undecoded = decoded.err().map(|error| {
            let before = bytes.iter().take(error.valid_up_to());
            Place::new(path, 1 + before.filter(|byte| **byte == b'\n').count())
        });
        let (sections, unread) = ini::read(&String::from_utf8_lossy(bytes));
        let (manager, interface) = match path.extension()?.to_str()? {
            "conf" => (
                Manager::WgQuick,
                path.file_stem()?.to_str().map(str::to_owned),
            ),
            "netdev" => (Manager::Networkd, netdev(&sections)),
            "network" => (Manager::Networkd, matched(&sections)),
            _ => return None,
        };
        Some(Self {
            path: path.to_owned(),
            manager,
            interface: interface?,
            undecoded,
            sections,
            unread: unread.into_iter().map(|unread| unread.line).collect(),
        })
    }

    /// Returns the endpoint of its only peer as written: the kernel knows no names.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let mut all = self
            .sections
            .iter()
            .flat_map(|section| section.all("Endpoint"));
        match (all.next(), all.next()) {
            (Some(entry), None) => entry.value.parse().ok(),
            _ => None,
        }
    }

    /// Returns the place where files set a value of an interface, else where they set this setting to another, else where
    /// the first one begins.
    pub fn place_of(
        files: &[Self],
        interface: &InterfaceName,
        setting: &str,
        value: &str,
    ) -> Option<Place> {
        let files = files.iter().filter(|it| it.interface == interface.as_str());
        let first = files.clone().next()?;
        let entries = files.flat_map(|file| {
            let entries = file.sections.iter().flat_map(|it| it.all(setting));
            entries.map(move |entry| (file, entry))
        });
        let entries: Vec<_> = entries.collect();
        let mut all = entries.iter();
        let exact = all.find(|(_, entry)| entry.value.contains(value));
        let found = exact.or(entries.first());
        Some(found.map_or(Place::new(&first.path, 1), |(file, entry)| {
            Place::new(&file.path, entry.line)
        }))
    }

    /// Returns who else configures the interface, and every setting that no document holds.
    pub fn findings(&self) -> BTreeSet<Finding> {
        let at = |line| Some(Place::new(&self.path, line));
        let subject = &self.interface;
        let unread = self.unread.iter().map(|line| {
            Finding::new(
                Outcome::Unsupported,
                subject,
                at(*line),
                "the line is not understood",
            )
        });
        let entries = self.sections.iter().flat_map(|section| &section.entries);
        let unknown = entries.filter(|entry| !is_known(entry)).map(|entry| {
            let reason = format!("{} has no field in a document", entry.key);
            Finding::new(Outcome::Unsupported, subject, at(entry.line), reason)
        });
        unread.chain(unknown).chain([self.manager()]).sorted_set()
    }

    fn manager(&self) -> Finding {
        let interface = &self.interface;
        let reason = match self.manager {
            Manager::WgQuick => format!(
                "wg-quick configures it too: disable the unit with `systemctl disable wg-quick@{interface}` \
                 (without --now, which would delete the interface)"
            ),
            Manager::Networkd => {
                "systemd-networkd configures it too: move the file away only while systemd-networkd is stopped; a reload \
                 that misses it removes the addresses"
                    .to_owned()
            }
        };
        let place = Some(Place::new(&self.path, 1));
        Finding::new(Outcome::Left, interface, place, reason)
    }
}

fn is_known(entry: &Entry) -> bool {
    let mut known = IN_KERNEL.iter().chain(&NAMES);
    known.any(|key| key.eq_ignore_ascii_case(&entry.key))
}

/// Returns the name that a `.netdev` of kind `wireguard` gives its interface.
fn netdev(sections: &[Section]) -> Option<String> {
    let section = sections.iter().find(|section| section.name == "NetDev")?;
    let kind = section.all("Kind").last()?;
    let name = section.all("Name").last()?;
    (kind.value == "wireguard").then(|| name.value.clone())
}

/// Returns the name that a `.network` matches, if it is one name without a pattern.
fn matched(sections: &[Section]) -> Option<String> {
    let section = sections.iter().find(|section| section.name == "Match")?;
    let name = &section.all("Name").last()?.value;
    let is_exact = !name.contains(['*', '?', '[', '!', ' ']);
    is_exact.then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> Option<TunnelFile> {
        TunnelFile::read(Path::new(path), text.as_bytes())
    }

    #[test]
    fn unsupported_settings_are_named_with_their_lines() {
        let text = "[Interface]\nPostUp = ip rule add x\nTable = off\n[Peer]\nEndpoint = a.example:1\nwhat\n";
        let file = file("/etc/wireguard/wg0.conf", text).unwrap();
        let findings = file.findings();
        let unsupported = findings
            .iter()
            .filter(|finding| finding.outcome == Outcome::Unsupported)
            .map(|finding| finding.place.as_ref().unwrap().line);
        assert_eq!(unsupported.collect::<Vec<_>>(), [2, 3, 6]);
        assert_eq!(file.endpoint(), "a.example:1".parse().ok());
    }

    #[test]
    fn setting_has_the_line_of_its_value() {
        let text = "[Interface]\nAddress = fe80::1/64\nAddress = 10.0.0.1/32\n[Peer]\nallowedips = 10.0.0.0/8\n";
        let files = [file("/etc/wireguard/wg0.conf", text).unwrap()];
        let line = |setting, value| {
            let interface = "wg0".parse().unwrap();
            TunnelFile::place_of(&files, &interface, setting, value).map(|it| it.line)
        };
        assert_eq!(line("Address", "10.0.0.1"), Some(3));
        assert_eq!(line("AllowedIPs", "10.0.0.0/8 fd00::/8"), Some(5));
        assert_eq!(line("MTU", "1420"), Some(1));
        let other = "wg1".parse().unwrap();
        assert_eq!(TunnelFile::place_of(&files, &other, "MTU", ""), None);
    }

    #[test]
    fn files_of_other_interfaces_are_not_read() {
        assert_eq!(file("a.netdev", "[NetDev]\nName=br0\nKind=bridge\n"), None);
        assert_eq!(file("a.network", "[Match]\nName=wg*\n"), None);
        assert_eq!(file("a.network", "[Network]\nAddress=fe80::1/64\n"), None);
        let wg = file("a.netdev", "[NetDev]\nName=wg0\nKind=wireguard\n");
        assert_eq!(wg.unwrap().interface, "wg0");
    }

    #[test]
    fn endpoint_of_two_peers_is_not_guessed() {
        let text = "[Peer]\nEndpoint=a.example:1\n[Peer]\nEndpoint=b.example:1\n";
        assert_eq!(file("wg0.conf", text).unwrap().endpoint(), None);
    }

    #[test]
    fn malformed_secret_is_in_no_finding() {
        let secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U";
        let text = format!("[Peer]\nPresharedKey {secret}=\nPresharedKey =\n  {secret}=\n");
        let findings = file("/etc/wireguard/wg0.conf", &text).unwrap().findings();
        let unread = findings
            .iter()
            .filter(|finding| finding.outcome == Outcome::Unsupported)
            .map(|finding| finding.place.as_ref().unwrap().line);
        assert_eq!(unread.collect::<Vec<_>>(), [2, 3, 4]);
        let shown = format!("{findings:?}");
        assert!(!shown.contains(secret), "{shown}");
    }
}
