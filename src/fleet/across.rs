//! Rules between routers of which at least one has a folder of its own: identities that two of them have, and both
//! sides of each tunnel. Those between the routers of a network are its own rules. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::check::{self, Problem};
use super::finding::Finding;
use super::layout::{RouterFile, file_of};
use super::network::{FleetFiles, Network, TokenFields, TokenHash, router_path, session};
use super::tree;
use crate::document::{MeshPeerSpec, NodeSpec, parse_list, parse_value};
use crate::effective::Claim;
use crate::model::{ObjectName, PublicKey, Secret};
use crate::wire::{Call, Dialect, PeerItem};

/// A router, as far as its files are valid.
struct Router {
    name: String,
    /// The file with the node and the tokens.
    file: String,
    /// Whether it has a folder of its own.
    is_folder: bool,
    node: Option<NodeSpec>,
    tokens: Vec<TokenHash>,
    /// The identities of its sessions, with their files and the paths in these.
    sessions: Vec<(String, String, Vec<String>)>,
    /// The peers in the list of a folder, with their indices.
    peers: Vec<(usize, PeerItem<MeshPeerSpec>)>,
}

/// Returns the findings between all routers of a fleet.
pub fn findings(files: &FleetFiles) -> Vec<Finding> {
    let mut routers = described(files);
    let folders = tree::folders(files).into_iter();
    routers.extend(folders.map(|name| folder(files, name)));
    let found = Vec::new();
    let mut findings = Findings { files, found };
    findings.nodes(&routers);
    findings.tokens(&routers);
    findings.sessions(&routers);
    findings.keys(&routers);
    for router in &routers {
        findings.tunnels(router, &routers);
        findings.claims(router);
    }
    findings.found
}

/// Returns the routers of the network, if its structure is valid.
fn described(files: &FleetFiles) -> Vec<Router> {
    let network = files.has_network().then(|| Network::read(files).ok());
    let Some(network) = network.flatten() else {
        return Vec::new();
    };
    let router = |name: &ObjectName| {
        let sessions = files.sessions_of(name).filter_map(|(path, text)| {
            let item = session(path, text.ok()?).ok()?;
            Some((text_of(&item, "uuid")?, path.to_owned(), path_of(&["uuid"])))
        });
        let file = router_path(name);
        Router {
            name: name.to_string(),
            is_folder: false,
            node: network.config(name).and_then(|answer| node(&answer)),
            tokens: tokens(files, &file),
            sessions: sessions.collect(),
            peers: Vec::new(),
            file,
        }
    };
    network.routers().map(|(name, _)| router(name)).collect()
}

fn folder(files: &FleetFiles, name: String) -> Router {
    let file = format!("{name}/{}", file_of(Call::Config));
    let node_of = |text| parse_value::<RouterFile>(text).ok()?.node;
    let written = files.text(&file).and_then(|text| node_of(text));
    let list = |call, key: &str| {
        let path = format!("{name}/{}", file_of(call));
        let answer = files.text(&path).map(|text| parse_list(text));
        let mut answer: Map<String, Value> = answer.and_then(Result::ok).unwrap_or_default();
        let items = answer.remove(key).and_then(|items| match items {
            Value::Array(items) => Some(items),
            _ => None,
        });
        (path, items.unwrap_or_default())
    };
    let (path, items) = list(Call::Sessions, "sessions");
    let sessions = items.iter().enumerate().filter_map(|(index, item)| {
        let place = path_of(&["sessions", &index.to_string(), "uuid"]);
        Some((text_of(item, "uuid")?, path.clone(), place))
    });
    let (_, peers) = list(Call::Mesh, "peers");
    let peers = peers.iter().enumerate();
    Router {
        is_folder: true,
        node: written.and_then(|node_| node(&Map::from_iter([("node".to_owned(), node_)]))),
        tokens: tokens(files, &file),
        sessions: sessions.collect(),
        peers: peers
            .filter_map(|(index, item)| Some((index, peer(item)?)))
            .collect(),
        file,
        name,
    }
}

fn node(answer: &Map<String, Value>) -> Option<NodeSpec> {
    let body = json!(answer).to_string();
    let item = Dialect::Reference.decode_config(body.as_bytes()).ok()?;
    Some(item.spec)
}

fn peer(item: &Value) -> Option<PeerItem<MeshPeerSpec>> {
    let body = json!({ "peers": [item] }).to_string();
    let listing = Dialect::Reference.decode_mesh(body.as_bytes()).ok()?;
    listing.items.into_iter().next()
}

fn tokens(files: &FleetFiles, file: &str) -> Vec<TokenHash> {
    let fields = files.text(file).and_then(|text| TokenFields::read(text));
    let fields = fields.unwrap_or_default();
    let plain = fields
        .token
        .map(|token| TokenHash::of(&Secret::new(token.expose().trim().to_owned())));
    plain.into_iter().chain(fields.token_hashes).collect()
}

fn text_of(item: &Value, key: &str) -> Option<String> {
    item.get(key)?.as_str().map(str::to_owned)
}

fn path_of(path: &[&str]) -> Vec<String> {
    path.iter().map(|key| (*key).to_owned()).collect()
}

struct Findings<'f> {
    files: &'f FleetFiles,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, file: &str, path: Vec<String>, message: impl Display) {
        let message = message.to_string();
        let text = self.files.text(file).map_or("", |text| text);
        let problem = Problem { path, message };
        self.found.push(Finding::new(file.as_ref(), text, &problem));
    }

    /// Reports each value that a router shares with one before it; those of a network come first.
    fn unique<T: Ord + Display>(
        &mut self,
        routers: &[Router],
        field: &str,
        value: impl Fn(&NodeSpec) -> Option<T>,
    ) {
        let mut owners = BTreeMap::new();
        for router in routers {
            let Some(value) = router.node.as_ref().and_then(&value) else {
                continue;
            };
            let message = format!("{value} is also that of");
            let owner = *owners.entry(value).or_insert(&router.name);
            if router.is_folder && *owner != router.name {
                let message = format!("{message} {owner}; give one of them another");
                self.add(&router.file, path_of(&["node", field]), message);
            }
        }
    }

    fn nodes(&mut self, routers: &[Router]) {
        // Routers of other networks may have the same numbers.
        self.unique(routers, "id", |node| {
            Some(OfNetwork(node.asn.get(), node.id))
        });
        self.unique::<Ipv4Addr>(routers, "loopbackIpv4", |node| node.loopback_ipv4);
        self.unique::<Ipv6Addr>(routers, "loopbackIpv6", |node| node.loopback_ipv6);
    }

    /// With the token of another router, a router could post in its name.
    fn tokens(&mut self, routers: &[Router]) {
        let mut owners: BTreeMap<String, &Router> = BTreeMap::new();
        for router in routers {
            for token in &router.tokens {
                let owner = owners.entry(token.to_string()).or_insert(router);
                if owner.name != router.name {
                    let message = format!(
                        "{} has the same one; `moenet-agent fleet token new {}` gives this router its own",
                        owner.name, router.name
                    );
                    self.add(&router.file, path_of(&["token"]), message);
                }
            }
        }
    }

    fn sessions(&mut self, routers: &[Router]) {
        let mut owners: BTreeMap<&str, (&Router, &str)> = BTreeMap::new();
        for router in routers {
            for (uuid, file, path) in &router.sessions {
                let (owner, other) = owners.entry(uuid).or_insert((router, file));
                if router.is_folder && owner.name != router.name {
                    let message = format!("also the identity of {other}; each session has its own");
                    self.add(file, path.clone(), message);
                }
            }
        }
    }

    /// A router has one key, and a key one router.
    fn keys(&mut self, routers: &[Router]) {
        let mut by_key: BTreeMap<PublicKey, (OfNetwork, &Router)> = BTreeMap::new();
        let mut by_id: BTreeMap<OfNetwork, (PublicKey, &Router)> = BTreeMap::new();
        for router in routers {
            let Some(node) = &router.node else { continue };
            for (index, peer) in &router.peers {
                let id = OfNetwork(node.asn.get(), peer.spec.node_id);
                let key = peer.spec.public_key;
                let (other, at) = *by_key.entry(key).or_insert((id, router));
                let (expected, by) = *by_id.entry(id).or_insert((key, router));
                let message = if other != id {
                    format!(
                        "{}/mesh.yaml gives it to node {other}; a key belongs to one router",
                        at.name
                    )
                } else if expected != key {
                    format!("{}/mesh.yaml has {expected} for node {id}", by.name)
                } else {
                    continue;
                };
                self.peer(router, *index, "publicKey", message);
            }
        }
    }

    fn peer(&mut self, router: &Router, index: usize, field: &str, message: impl Display) {
        let file = format!("{}/{}", router.name, file_of(Call::Mesh));
        let path = path_of(&["peers", &index.to_string(), field]);
        self.add(&file, path, message);
    }

    /// Compares both sides of each tunnel of a folder. A peer may be a router of another Control Plane.
    fn tunnels(&mut self, own: &Router, routers: &[Router]) {
        let Some(node) = &own.node else { return };
        for (index, peer) in &own.peers {
            let is_it = |router: &&Router| {
                let other = router.node.as_ref();
                other.is_some_and(|other| other.asn == node.asn && other.id == peer.spec.node_id)
            };
            let Some(other) = routers.iter().find(is_it) else {
                continue;
            };
            if other.name == own.name {
                self.peer(own, *index, "nodeId", "the router's own number");
                continue;
            }
            self.loopbacks(own, (*index, &peer.spec), other);
            let back = other
                .peers
                .iter()
                .find(|(_, it)| it.spec.node_id == node.id);
            let Some((_, back)) = back else {
                let message = match other.is_folder {
                    true => format!(
                        "{}/mesh.yaml has no peer {}: the tunnel needs both sides",
                        other.name, node.id
                    ),
                    false => format!(
                        "{} is a router of network.yaml, which has no tunnel to a router with a folder",
                        other.name
                    ),
                };
                self.peer(own, *index, "nodeId", message);
                continue;
            };
            // Each pair once.
            if own.name < other.name {
                self.sides(own, (*index, &peer.spec), other, &back.spec);
            }
        }
    }

    /// Compares the two sides of a tunnel.
    fn sides(
        &mut self,
        own: &Router,
        (index, here): (usize, &MeshPeerSpec),
        other: &Router,
        there: &MeshPeerSpec,
    ) {
        let (mtu, theirs) = (here.mtu.unwrap_or_default(), there.mtu.unwrap_or_default());
        if mtu != theirs {
            let message = format!("{mtu} here and {theirs} in {}/mesh.yaml", other.name);
            self.peer(own, index, "mtu", message);
        }
        if here.endpoint.is_none() && there.endpoint.is_none() {
            let message = format!(
                "missing here and in {}/mesh.yaml, so that neither side calls",
                other.name
            );
            self.peer(own, index, "endpoint", message);
        }
    }

    fn loopbacks(&mut self, own: &Router, (index, peer): (usize, &MeshPeerSpec), other: &Router) {
        let Some(node) = &other.node else { return };
        let ipv4 = (
            peer.loopback_ipv4.map(|it| it.to_string()),
            node.loopback_ipv4.map(|it| it.to_string()),
        );
        let ipv6 = (
            peer.loopback_ipv6.map(|it| it.to_string()),
            node.loopback_ipv6.map(|it| it.to_string()),
        );
        for (field, (here, there)) in [("loopbackIpv4", ipv4), ("loopbackIpv6", ipv6)] {
            if let (Some(here), Some(there)) = (here, there)
                && here != there
            {
                let message = format!("{here} here and {there} in {}", other.file);
                self.peer(own, index, field, message);
            }
        }
    }

    /// Reports ports and links that two tunnels of a folder share, also one of a session.
    fn claims(&mut self, router: &Router) {
        let mut owners: BTreeMap<Claim, String> = BTreeMap::new();
        let text = self.files.text(&router.file);
        let node = text.and_then(|text| parse_value::<RouterFile>(text).ok()?.node);
        let path = format!("{}/{}", router.name, file_of(Call::Sessions));
        let list = self.files.text(&path).map(|text| parse_list(text));
        let list: Map<String, Value> = list.and_then(Result::ok).unwrap_or_default();
        let items = list.get("sessions").and_then(Value::as_array);
        for item in items.into_iter().flatten().filter(|_| router.is_folder) {
            let name = text_of(item, "uuid").unwrap_or_default();
            let claims = check::claims(item, node.as_ref());
            owners.extend(
                claims
                    .into_iter()
                    .map(|claim| (claim, format!("session {name}"))),
            );
        }
        for (index, peer) in &router.peers {
            let port = peer
                .spec
                .listen_port
                .map(|port| (Claim::ListenPort(port), "listenPort"));
            let link = peer.spec.interface.clone();
            let link = link.map(|link| (Claim::Interface(link), "interface"));
            for (claim, field) in port.into_iter().chain(link) {
                let message = format!("{claim} is that of");
                if let Some(owner) = owners.insert(claim, format!("peer {}", peer.name)) {
                    self.peer(router, *index, field, format_args!("{message} {owner}"));
                }
            }
        }
    }
}

/// A number of a router in the network of an AS number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OfNetwork(u32, u16);

impl Display for OfNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.1, f)
    }
}
