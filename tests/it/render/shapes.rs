//! Session shapes beside the common one, each established with a neighbour of its own.

use std::path::Path;

use super::support::lab::{Node, eventually};
use super::support::{BIRDS, Case, write};

const V4: &str = "172.23.105.177";
const V6: &str = "fd48:4da8:420::1";

/// One neighbour: its number, its addresses towards us, and its sessions.
struct Shape {
    number: u8,
    /// Our address and theirs, for point-to-point links.
    links: &'static [(&'static str, &'static str)],
    /// Our address, their address, and what follows `neighbor`.
    sessions: &'static [(&'static str, &'static str, &'static str)],
    /// The protocols on our side.
    protocols: &'static [&'static str],
    /// Where our IPv4 routes go, as this neighbour sees them.
    next_hop: &'static str,
}

const BOTH: &str = "ipv4 { import all; export all; }; ipv6 { import all; export all; };";
const BOTH_EXTENDED: &str =
    "ipv4 { import all; export all; extended next hop on; }; ipv6 { import all; export all; };";
const ONLY_4: &str = "ipv4 { import all; export all; };";
const ONLY_6: &str = "ipv6 { import all; export all; };";

const SHAPES: [Shape; 5] = [
    Shape {
        number: 1,
        links: &[(V4, "172.20.101.1")],
        sessions: &[(V4, "172.20.101.1", ONLY_4)],
        protocols: &["ebgp_v4only_v4"],
        next_hop: V4,
    },
    Shape {
        number: 2,
        links: &[(V6, "fd00:102::1")],
        sessions: &[(V6, "fd00:102::1", BOTH_EXTENDED)],
        protocols: &["ebgp_ula"],
        next_hop: V6,
    },
    Shape {
        number: 3,
        links: &[(V4, "172.20.103.1")],
        sessions: &[
            ("fe80::998:1", "fe80::3", ONLY_6),
            (V4, "172.20.103.1", ONLY_4),
        ],
        protocols: &["ebgp_two_v6", "ebgp_two_v4"],
        next_hop: V4,
    },
    Shape {
        number: 4,
        links: &[(V4, "172.20.104.1")],
        sessions: &[("fe80::998:1", "fe80::4", BOTH)],
        protocols: &["ebgp_noenh"],
        next_hop: V4,
    },
    Shape {
        number: 5,
        links: &[(V6, "fd00:105::1")],
        sessions: &[(V6, "fd00:105::1", BOTH_EXTENDED)],
        protocols: &["ebgp_far"],
        next_hop: V6,
    },
];

impl Shape {
    fn node(&self, version: &'static str, ours: &Node) -> Node {
        let node = Node::new(&format!("n{}", self.number), version, &[]);
        let interface = format!("w{}", self.number);
        ours.wire(
            (&interface, "fe80::998:1"),
            &node,
            ("x0", &format!("fe80::{}", self.number)),
        );
        for (our, their) in self.links {
            let peer = |address: &str| {
                format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
            };
            // IPv4 has no duplicate address detection to leave out.
            let nodad: &[&str] = if our.contains(':') { &["nodad"] } else { &[] };
            let add = |node: &Node, local: &str, remote: &str, interface: &str| {
                let base = [
                    "address",
                    "add",
                    local,
                    "peer",
                    &peer(remote),
                    "dev",
                    interface,
                ];
                node.ip(&[&base[..], nodad].concat());
            };
            add(ours, our, their, &interface);
            add(&node, their, our, "x0");
        }
        let text = node.preamble(&format!("10.0.1.{}", self.number)) + &self.config();
        std::fs::write(node.directory().join("bird.conf"), text).unwrap();
        node
    }

    fn config(&self) -> String {
        let n = self.number;
        let mut text = format!(
            "protocol device {{ scan time 10; }}\n\
             protocol static s4 {{ ipv4; route 172.20.{n}.0/24 unreachable; }}\n\
             protocol static s6 {{ ipv6; route fd00:{n}::/48 unreachable; }}\n"
        );
        for (index, (ours, theirs, channels)) in self.sessions.iter().enumerate() {
            let hops = if n == 5 {
                "multihop 10;"
            } else {
                "direct; interface \"x0\";"
            };
            text += &format!(
                "protocol bgp ours{index} {{ local as 6510{n}; neighbor {ours} as 4242420998; {hops}\n\
                 source address {theirs}; connect delay time 1; {channels} }}\n"
            );
        }
        text
    }

    fn check(&self, ours: &Node, node: &Node) {
        for protocol in self.protocols {
            ours.wait_for(protocol);
        }
        let n = self.number;
        let v6 = self
            .sessions
            .iter()
            .any(|(.., channels)| channels.contains("ipv6"));
        for prefix in [
            Some(format!("172.20.{n}.0/24")),
            v6.then(|| format!("fd00:{n}::/48")),
        ]
        .into_iter()
        .flatten()
        {
            eventually(&prefix, || {
                let said = ours.ask(&format!("show route {prefix}"));
                let good = said.contains(&prefix)
                    && !said.contains("unreachable")
                    && said.contains(&format!("w{n}"));
                good.then_some(()).ok_or_else(|| said + &ours.log())
            });
        }
        eventually("our own net", || {
            let said = node
                .ask("show route 172.23.105.176/28 all")
                .replace("BGP.", "bgp_");
            let wanted = format!("bgp_next_hop: {}", self.next_hop);
            said.contains(&wanted)
                .then_some(())
                .ok_or_else(|| said + &node.log())
        });
    }
}

fn scenario(version: &'static str) {
    let (_, major, minor) = BIRDS
        .into_iter()
        .find(|(name, ..)| *name == version)
        .unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/render_live/shapes.yaml");
    let case = Case::parse(&std::fs::read_to_string(folder).unwrap()).unwrap();
    let mut ours = Node::new(
        "shapes",
        version,
        &["172.23.105.177/32", "fd48:4da8:420::1/128"],
    );
    let mut nodes: Vec<Node> = SHAPES
        .iter()
        .map(|shape| shape.node(version, &ours))
        .collect();
    let mut files = case.render((major, minor)).unwrap();
    files.insert(
        "bird.conf".to_owned(),
        ours.preamble(V4) + "include \"moenet/main.conf\";\n",
    );
    write(ours.directory(), &files);
    ours.start();
    nodes.iter_mut().for_each(Node::start);
    for (shape, node) in SHAPES.iter().zip(&nodes) {
        shape.check(&ours, node);
    }
}

#[test]
fn every_shape_establishes_on_bird_2_0_12() {
    scenario("2.0.12");
}

#[test]
fn every_shape_establishes_on_bird_2_17() {
    scenario("2.17");
}

#[test]
fn every_shape_establishes_on_bird_3_4() {
    scenario("3.4");
}
