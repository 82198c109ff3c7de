//! The record of an adoption: what the router was before, so that everything can be undone after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Address, InterfaceName, ObjectName, Port, PublicKey};
use crate::observed::kernel::{Link, SavedRoute, Sysctl, WireGuard, WireGuardPeer};
use crate::util::sorted::Sorted as _;

/// Everything that an adoption changes, as it was before the first change. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub begun: Timestamp,
    /// The end of the watch. An adoption that is not kept by then was interrupted.
    pub deadline: Timestamp,
    pub phase: Phase,
    /// The hashed id of the machine; `None`: it has none, or an earlier build wrote the record. Only `adopt --undo` undoes
    /// such an adoption.
    #[serde(default)]
    pub machine: Option<String>,
    /// The sessions whose documents were written.
    pub documents: BTreeSet<ObjectName>,
    /// The sessions of the Control Plane for which overrides were written.
    #[serde(default)]
    pub overrides: BTreeSet<ObjectName>,
    #[serde(default)]
    pub written: Written,
    /// Whether the state directory existed.
    pub state_existed: bool,
    /// The links that the documents take over.
    pub links: BTreeMap<InterfaceName, LinkSettings>,
    /// The same links as the pass left them.
    #[serde(default)]
    pub left: BTreeMap<InterfaceName, LinkSettings>,
    /// Addresses that the plan adds and that were not there.
    pub added: BTreeSet<Placed>,
    /// The sysctls of all links together that the plan sets, by their names.
    pub all: BTreeMap<String, i64>,
    /// The same sysctls as the pass left them; empty: it did not end.
    #[serde(default)]
    pub all_left: BTreeMap<String, i64>,
    /// The systemd units that configure the same interfaces and were enabled.
    #[serde(default)]
    pub enabled: BTreeSet<String>,
    /// Those that the adoption disabled.
    pub units: BTreeSet<String>,
    /// The files that existed, with their copies.
    pub files: Vec<FileBefore>,
    /// The hashes of the same files as the adoption left them.
    #[serde(default)]
    pub files_left: BTreeMap<PathBuf, String>,
    /// The hashes of the files that the adoption added to the state directory.
    #[serde(default)]
    pub made: BTreeMap<PathBuf, String>,
    /// The folders that existed.
    pub folders: BTreeSet<PathBuf>,
}

/// What an adoption wrote into the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// The specifications of documents.
    pub documents: BTreeMap<ObjectName, Value>,
    /// The fields of overrides.
    pub overrides: BTreeMap<ObjectName, Map<String, Value>>,
}

/// How far an adoption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It changes the router, or is watched. At a start it means that it was interrupted.
    Applying,
    /// The watch has ended without a loss.
    Kept,
}

/// The settings of a link that an adoption may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkSettings {
    /// The kernel's index, which stays when a link is renamed. `None`: an earlier build wrote the record.
    #[serde(default)]
    pub index: Option<u32>,
    pub mtu: u32,
    /// `None`: an earlier build wrote the record.
    #[serde(default)]
    pub up: Option<bool>,
    /// Whether the kernel's link-local addresses were turned off.
    pub addrgen_none: bool,
    pub addresses: BTreeSet<LinkAddress>,
    /// `None`: WireGuard listened on a port that the kernel chose.
    pub listen_port: Option<Port>,
    pub peers: BTreeMap<PublicKey, PeerSettings>,
    /// Its sysctls, by their names.
    pub sysctls: BTreeMap<String, i64>,
    /// The routes of the operator through it, which the kernel removes with an address.
    #[serde(default)]
    pub routes: BTreeSet<SavedRoute>,
}

/// A WireGuard peer, without its preshared key, which adoption never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerSettings {
    pub endpoint: Option<SocketAddr>,
    pub keepalive: Option<u16>,
    pub allowed_ips: BTreeSet<IpNet>,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkAddress {
    pub local: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
}

/// An address with its link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Placed {
    pub interface: InterfaceName,
    pub address: LinkAddress,
}

/// A file with its copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileBefore {
    pub path: PathBuf,
    /// The name of the copy beside the record.
    pub copy: String,
    pub mode: u32,
    /// `None`: an earlier build wrote the record.
    #[serde(default)]
    pub owner: Option<u32>,
    pub group: u32,
}

impl Record {
    /// Returns the files that existed.
    pub fn paths(&self) -> BTreeSet<&PathBuf> {
        self.files.iter().map(|file| &file.path).sorted_set()
    }
}

impl LinkSettings {
    /// Returns a link as it is now.
    pub fn of(link: &Link, sysctls: &BTreeMap<Sysctl, i64>, routes: BTreeSet<SavedRoute>) -> Self {
        let wireguard = link.wireguard.as_ref();
        let peers = wireguard.into_iter().flat_map(|it| &it.peers);
        Self {
            index: Some(link.index),
            mtu: link.mtu,
            up: Some(link.up),
            addrgen_none: link.addrgen_none,
            addresses: link.addresses.iter().map(LinkAddress::from).sorted_set(),
            listen_port: wireguard.and_then(|it: &WireGuard| it.listen_port),
            peers: peers
                .map(|(key, peer)| (*key, (&**peer).into()))
                .sorted_map(),
            sysctls: named(sysctls),
            routes,
        }
    }
}

/// Returns sysctls by their names.
pub fn named(sysctls: &BTreeMap<Sysctl, i64>) -> BTreeMap<String, i64> {
    let named = sysctls.iter().map(|(key, value)| (key.to_string(), *value));
    named.sorted_map()
}

impl From<&WireGuardPeer> for PeerSettings {
    fn from(peer: &WireGuardPeer) -> Self {
        Self {
            endpoint: peer.endpoint,
            keepalive: peer.keepalive,
            allowed_ips: peer.allowed_ips.clone(),
        }
    }
}

impl From<&Address> for LinkAddress {
    fn from(address: &Address) -> Self {
        Self {
            local: address.local,
            peer: address.peer,
        }
    }
}

impl From<&LinkAddress> for Address {
    fn from(before: &LinkAddress) -> Self {
        Self::new(before.local, before.peer)
    }
}
