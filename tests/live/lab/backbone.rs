//! Several routers of one network, each with an agent, a BIRD and a Control Plane of its own, on one underlay; and
//! other networks with sessions to some of them.

use super::bird::{self, Bird};
use super::control_plane::{Answer, ControlPlane};
use super::namespace::Namespace;
use super::neighbour::Neighbour;
use super::router::{self, Router};
use super::wireguard::{KeyPair, Tunnel};
use super::{contains, wait_until};
use serde_json::{Value, json};

/// A router before it is built.
pub(crate) struct Site {
    pub(crate) id: u16,
    pub(crate) name: &'static str,
    /// `edge`, `rr` or `client`.
    pub(crate) kind: &'static str,
}

pub(crate) fn edge(id: u16, name: &'static str) -> Site {
    Site {
        id,
        name,
        kind: "edge",
    }
}

pub(crate) struct Member {
    pub(crate) id: u16,
    pub(crate) name: &'static str,
    pub(crate) router: Router,
    pub(crate) control_plane: ControlPlane,
    /// As in `GET mesh`, `bird-config` and `sessions`; a test changes one and calls `tell`.
    pub(crate) mesh: Vec<Value>,
    pub(crate) ibgp: Option<Vec<Value>>,
    pub(crate) policy: Value,
    pub(crate) sessions: Vec<Value>,
}

pub(crate) struct Backbone {
    pub(crate) members: Vec<Member>,
    pub(crate) networks: Vec<Network>,
    pub(crate) underlay: Namespace,
}

pub(crate) const MESH_PORT_BASE: u16 = 23455;

impl Member {
    fn new(site: &Site, underlay: &Namespace) -> Self {
        let Site { id, name, kind } = *site;
        let mut router = Router::named(name, &bird::version());
        let port = format!("to{id}");
        router
            .inside
            .link("wan", &[&format!("{}/24", outer(id))], underlay, &port, &[]);
        underlay.shell(&format!("ip link set {port} master br0"));
        let control_plane = ControlPlane::new(&router.inside);
        let mut config = router.config(&control_plane.url, 1);
        config["node"]["name"] = json!(name);
        config["controlPlane"]["birdConfigInterval"] = json!(1);
        config["controlPlane"]["meshInterval"] = json!(1);
        config["probe"] = json!({"interval": 1, "count": 2, "timeout": 2});
        router.write_config(&config);
        router.start_bird();
        let mut policy = router::policy();
        policy["node"]["type"] = json!(kind);
        let (mesh, sessions) = (vec![], vec![]);
        let member = Self {
            id,
            name,
            router,
            control_plane,
            mesh,
            ibgp: Some(vec![]),
            policy,
            sessions,
        };
        member
            .control_plane
            .answer("config", Answer::Json(node(id, name)));
        member
    }

    /// Gives the Control Plane's answers as they are now.
    pub(crate) fn tell(&self) {
        let mut policy = self.policy.clone();
        match &self.ibgp {
            Some(peers) => policy["ibgpPeers"] = json!(peers),
            None => drop(policy.as_object_mut().unwrap().remove("ibgpPeers")),
        }
        self.control_plane
            .answer("bird-config", Answer::Json(policy));
        self.control_plane
            .answer("mesh", Answer::Json(json!({"peers": self.mesh})));
        self.control_plane.sessions(&self.sessions);
    }

    pub(crate) fn interface_to(&self, peer: &str) -> String {
        self.link_of(peer).expect("a mesh link")
    }

    /// The name of the link that the agent made for a peer, by its mark.
    pub(crate) fn link_of(&self, peer: &str) -> Result<String, String> {
        let id = self
            .mesh
            .iter()
            .find(|item| item["name"] == peer)
            .expect("a peer")["nodeId"]
            .clone();
        let links = self.router.inside.try_shell("ip -o link")?;
        let mark = format!(":mesh/{id}");
        let line = links
            .lines()
            .find(|line| line.trim_end().ends_with(&mark))
            .ok_or(links.clone())?;
        Ok(line
            .split_whitespace()
            .nth(1)
            .unwrap()
            .trim_end_matches(':')
            .into())
    }

    pub(crate) fn ask(&self, request: &str) -> Result<String, String> {
        self.router.bird.try_ask(&self.router.inside, request)
    }

    pub(crate) fn loopback4(&self) -> String {
        format!("172.23.105.{}", 176 + self.id)
    }

    pub(crate) fn loopback6(&self) -> String {
        format!("fd48:4242:420::{:x}", self.id)
    }

    /// Packets that came in by an interface.
    pub(crate) fn received(&self, interface: &str) -> u64 {
        let file = format!("/sys/class/net/{interface}/statistics/rx_packets");
        self.router
            .inside
            .shell(&format!("cat {file}"))
            .trim()
            .parse()
            .unwrap()
    }

    /// All files below BIRD's directory that are the agent's, with their texts.
    pub(crate) fn bird_files(&self) -> String {
        let folder = self.router.bird.folder.display();
        self.router.inside.shell(&format!(
            "cd {folder} && find bird.conf moenet -type f | sort | xargs tail -n +1"
        ))
    }
}

fn outer(id: u16) -> String {
    format!("198.51.100.{id}")
}

fn node(id: u16, name: &str) -> Value {
    let mut config = router::node();
    let node = config["node"].as_object_mut().unwrap();
    node.insert("id".into(), json!(id));
    node.insert("name".into(), json!(name));
    node.insert(
        "loopbackIpv4".into(),
        json!(format!("172.23.105.{}", 176 + id)),
    );
    node.insert(
        "loopbackIpv6".into(),
        json!(format!("fd48:4242:420::{id:x}")),
    );
    config
}

impl Backbone {
    /// All but the agents run, and no router knows of another.
    pub(crate) fn new(sites: &[Site]) -> Self {
        let underlay = Namespace::new("underlay");
        underlay.shell("ip link add br0 type bridge && ip link set br0 up");
        let members = sites
            .iter()
            .map(|site| Member::new(site, &underlay))
            .collect();
        Self {
            members,
            networks: vec![],
            underlay,
        }
    }

    pub(crate) fn at(&self, name: &str) -> &Member {
        self.members
            .iter()
            .find(|member| member.name == name)
            .unwrap()
    }

    pub(crate) fn at_mut(&mut self, name: &str) -> &mut Member {
        self.members
            .iter_mut()
            .find(|member| member.name == name)
            .unwrap()
    }

    /// A tunnel between two routers: each gets the other as a peer.
    pub(crate) fn mesh(&mut self, one: &str, other: &str) {
        for (of, peer) in [(one, other), (other, one)] {
            let item = self.mesh_peer(peer, MESH_PORT_BASE + self.at(of).id);
            self.at_mut(of).mesh.push(item);
        }
    }

    /// A router as `GET mesh` of another lists it; `port` is where it listens for that one.
    pub(crate) fn mesh_peer(&self, name: &str, port: u16) -> Value {
        let peer = self.at(name);
        json!({
            "nodeId": peer.id, "name": name, "endpoint": format!("{}:{port}", outer(peer.id)),
            "publicKey": peer.router.keys.public,
            "loopbackIpv4": peer.loopback4(), "loopbackIpv6": peer.loopback6()
        })
    }

    /// An internal BGP session between two routers.
    pub(crate) fn ibgp(&mut self, one: &str, other: &str) {
        for (of, peer) in [(one, other), (other, one)] {
            let peer = self.at(peer);
            let is_rr = peer.policy["node"]["type"] == "rr";
            let item = json!({
                "nodeId": peer.id, "nodeName": peer.name, "isRr": is_rr,
                "loopbackIpv4": peer.loopback4(), "loopbackIpv6": peer.loopback6()
            });
            self.at_mut(of).ibgp.as_mut().unwrap().push(item);
        }
    }

    /// Tunnel and internal session between each two.
    pub(crate) fn full_mesh(&mut self) {
        let names: Vec<_> = self.members.iter().map(|member| member.name).collect();
        for (index, one) in names.iter().enumerate() {
            for other in &names[index + 1..] {
                self.mesh(one, other);
                self.ibgp(one, other);
            }
        }
    }

    /// Another network, with a session to each of these routers and the preference it has for that one.
    pub(crate) fn network(&mut self, number: u32, homes: &[(&str, u32)]) {
        let mut network = Network::new(number);
        for (home, preference) in homes {
            let far = network.join(self.at(home), *preference);
            self.at_mut(home).sessions.push(far);
        }
        network.start();
        self.networks.push(network);
    }

    /// Tells the Control Planes and starts the agents.
    pub(crate) fn start(&mut self) {
        for member in &mut self.members {
            member.tell();
            member.router.start_agent();
        }
    }

    /// Every session, internal and external, is Established.
    #[track_caller]
    pub(crate) fn wait_established(&self) {
        for member in &self.members {
            let sessions = member.sessions.len() + member.ibgp.as_ref().map_or(0, Vec::len);
            wait_until(
                &format!("every session of {} is Established", member.name),
                60,
                || {
                    let all = member.ask("show protocols")?;
                    let up = all
                        .lines()
                        .filter(|line| line.contains(" BGP ") && line.contains("Established"));
                    if up.count() == sessions {
                        Ok(())
                    } else {
                        Err(all)
                    }
                },
            );
        }
    }
}

/// Another network: one router with addresses in its own prefixes, which it can be reached at.
pub(crate) struct Network {
    pub(crate) inside: Namespace,
    number: u32,
    pub(crate) asn: u32,
    pub(crate) prefix4: String,
    pub(crate) prefix6: String,
    homes: Vec<Home>,
    keys: KeyPair,
    folder: tempfile::TempDir,
    bird: Bird,
}

/// One of its sessions.
struct Home {
    name: &'static str,
    id: u16,
    preference: u32,
}

impl Network {
    fn new(number: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inside = Namespace::new(&format!("network {number}"));
        inside.shell(
            "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$f; done; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
        );
        let network = Self {
            inside,
            number,
            asn: 4_242_421_000 + number,
            prefix4: format!("172.20.{number}.0/24"),
            prefix6: format!("fd42:{number}::/48"),
            homes: vec![],
            keys: KeyPair::new(),
            bird: Bird::new(&bird::version(), folder.path()),
            folder,
        };
        for address in network.addresses() {
            network
                .inside
                .shell(&format!("ip addr add {address} dev lo"));
        }
        network
    }

    /// Its own addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> [std::net::IpAddr; 2] {
        let number = self.number;
        [
            format!("172.20.{number}.1").parse().unwrap(),
            format!("fd42:{number}::1").parse().unwrap(),
        ]
    }

    /// The name of the interface, and of the document, that a router has for it.
    pub(crate) fn interface(&self) -> String {
        format!("wg_{}", self.asn)
    }

    /// Joins it to a router; the session is what the router's Control Plane lists.
    fn join(&mut self, home: &Member, preference: u32) -> Value {
        let (number, id) = (self.number, home.id);
        let (ours, theirs) = (
            format!("198.18.{number}.{}", 4 * id + 2),
            format!("198.18.{number}.{}", 4 * id + 1),
        );
        let (device, far) = (format!("u{id}"), format!("un{number}"));
        self.inside.link(
            &device,
            &[&format!("{ours}/30")],
            &home.router.inside,
            &far,
            &[&format!("{theirs}/30")],
        );
        let port = Neighbour::PORT + id;
        Tunnel {
            device: &format!("wg{id}"),
            address: &self.link_local(id),
            private: &self.keys.private,
            port,
            peer: &home.router.keys.public,
            endpoint: &format!("{theirs}:{}", 21_000 + number),
        }
        .make(&self.inside, self.folder.path());
        self.homes.push(Home {
            name: home.name,
            id,
            preference,
        });
        json!({
            "uuid": format!("network-{number}-at-{id}"), "asn": self.asn, "status": 1,
            "ipv6LinkLocal": self.link_local(id), "mtu": 1420, "interface": self.interface(),
            "endpoint": format!("{ours}:{port}"), "credential": {"publicKey": self.keys.public}
        })
    }

    fn link_local(&self, id: u16) -> String {
        format!("fe80::1:{}:{id}", self.number)
    }

    fn start(&mut self) {
        std::fs::write(self.bird.folder.join("bird.conf"), self.config()).unwrap();
        self.bird.start(&self.inside);
    }

    /// It honours graceful shutdown as RFC 8326 asks for.
    fn config(&self) -> String {
        let [four, six] = self.addresses();
        let Self {
            number,
            asn,
            prefix4,
            prefix6,
            ..
        } = self;
        let mut text = format!(
            "log stderr all;\nrouter id 10.1.{number}.1;\nprotocol device {{}}\n\
             protocol static own4 {{ ipv4; route {prefix4} blackhole; }}\n\
             protocol static own6 {{ ipv6; route {prefix6} blackhole; }}\n"
        );
        for (family, source) in [(4, four), (6, six)] {
            text += &format!(
                "protocol kernel {{ ipv{family} {{ import none; export filter {{ if source != RTS_BGP then reject; \
                 krt_prefsrc = {source}; accept; }}; }}; }}\n"
            );
        }
        for Home {
            name,
            id,
            preference,
        } in &self.homes
        {
            text += &format!(
                "filter from_{id} {{ bgp_local_pref = {preference}; \
                 if (65535, 0) ~ bgp_community then bgp_local_pref = 0; accept; }}\n\
                 protocol bgp to_{name} {{\n local {} as {asn};\n neighbor fe80::998:{id:x}%'wg{id}' as {};\n \
                 connect delay time 1; connect retry time 2; error wait time 1, 2; graceful restart on;\n \
                 ipv4 {{ import filter from_{id}; export where proto = \"own4\"; extended next hop on; }};\n \
                 ipv6 {{ import filter from_{id}; export where proto = \"own6\"; }};\n}}\n",
                self.link_local(*id),
                router::ASN
            );
        }
        text
    }

    pub(crate) fn ask(&self, request: &str) -> Result<String, String> {
        self.bird.try_ask(&self.inside, request)
    }

    /// What its BIRD has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.bird.folder.join("bird.log")).unwrap_or_default()
    }

    /// Every route that a router told it, with all attributes and without the times.
    pub(crate) fn table_from(&self, home: &str) -> Result<String, String> {
        Ok(without_times(
            &self.ask(&format!("show route protocol to_{home} all"))?,
        ))
    }
}

/// A table of BIRD's without what changes by itself: the times of routes, the mark of the best route, and the
/// numbers that BIRD 3 gives to routes; sorted, since BIRD 3 shows them in no order.
pub(crate) fn without_times(table: &str) -> String {
    let mut routes: Vec<String> = vec![];
    let mut net = String::new();
    for line in table
        .lines()
        .filter(|line| !line.contains("ready.") && !line.trim().is_empty())
    {
        if line.starts_with("Table ") {
            continue;
        }
        if line.starts_with('\t') {
            if let Some(route) = routes.last_mut()
                && !line.contains("Internal route handling values")
            {
                route.push_str(&format!("\n{line}"));
            }
            continue;
        }
        // `prefix  unicast [protocol hh:mm:ss.mmm from address] * (100/...) [AS…]`
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if !line.starts_with(' ') && !words.is_empty() {
            net = words.remove(0).into();
        }
        let words: Vec<&str> = words
            .into_iter()
            .filter(|word| !is_time(word) && *word != "*")
            .collect();
        routes.push(format!("{net} {}", words.join(" ")));
    }
    routes.sort_unstable();
    routes.join("\n")
}

fn is_time(word: &str) -> bool {
    let word = word.trim_end_matches(']');
    word.contains(':')
        && word.len() >= 8
        && word
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, ':' | '.'))
}

/// `Ok` when there are routes in such a table and each says `wanted`.
pub(crate) fn each_route(table: &str, wanted: &str) -> Result<(), String> {
    let mut routes: Vec<String> = vec![];
    for line in table.lines().filter(|line| !line.is_empty()) {
        match routes.last_mut() {
            // BIRD 3 puts a blank into a community.
            Some(route) if line.starts_with('\t') => route.push_str(&line.replace(", ", ",")),
            _ => routes.push(line.into()),
        }
    }
    if routes.is_empty() {
        return Err("no route".into());
    }
    routes.iter().try_for_each(|route| contains(route, wanted))
}
