//! Adoption of routers that the agent did not build.

mod apply;
mod left;
mod refused;

use crate::lab::bird;
use crate::lab::cli::{Answer, agent};
use crate::lab::neighbour::{FarEnd, Neighbour};
use crate::lab::router::{self, Router};
use crate::lab::wireguard::Tunnel;
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

const DEVICE: &str = "dn42_4242421001";

/// Half of the neighbour's prefixes, in a protocol of its own.
const HALF: &str = "protocol static says1 { ipv4; route 172.20.101.0/24 blackhole; route 172.20.102.0/24 blackhole; }";

/// A router with one peering, built by hand, without the agent.
struct Built {
    router: Router,
    neighbour: Neighbour,
}

/// How its operator built it.
struct Style {
    /// The main file of BIRD, beside the files of peers.
    main: &'static str,
    /// The file of the peer.
    peer: &'static str,
    /// The directory and name of a file about the tunnel, and its text.
    file: (&'static str, &'static str, &'static str),
}

/// As the case `go-agent-router` has it.
const GO_AGENT: Style = Style {
    main: "log stderr all;\nrouter id 172.23.105.177;\ndefine OWN_AS = 4242420998;\n\
        protocol device { scan time 10; }\n\
        protocol kernel k4 { ipv4 { export all; }; }\n\
        protocol static own4 { ipv4; route 172.23.105.176/28 unreachable; }\n\
        protocol static own6 { ipv6; route fd48:4242:420::/48 unreachable; }\n\
        filter dn42_in { accept; }\nfilter dn42_out { accept; }\n\
        template bgp dn42_peer {\n  local as OWN_AS;\n  graceful restart on;\n  connect retry time 2;\n  \
        ipv4 { import filter dn42_in; export filter dn42_out; extended next hop on; next hop self; };\n  \
        ipv6 { import filter dn42_in; export filter dn42_out; next hop self; };\n}\n\
        include \"peers/*.conf\";\n",
    peer: "protocol bgp dn42_4242421001 from dn42_peer {\n  \
        neighbor fe80::1:1 % 'dn42_4242421001' as 4242421001;\n  description \"first peer\";\n  hold time 60;\n}\n",
    file: (
        "wireguard",
        "dn42_4242421001.conf",
        "[Interface]\nListenPort = 21001\nPostUp = logger up\n[Peer]\nAllowedIPs = 10.0.0.0/8\n",
    ),
};

/// As the DN42 wiki has it: everything in one file, and the files of systemd-networkd.
const WIKI: Style = Style {
    main: "log stderr all;\nrouter id 172.23.105.177;\ndefine OWNAS = 4242420998;\nprotocol device {}\n\
        function is_self_net() -> bool { return net ~ [172.23.105.176/28+]; }\n\
        protocol kernel { ipv6 { import none; export all; }; }\n\
        protocol static { route 172.23.105.176/28 reject; ipv4 { import all; export none; }; }\n\
        protocol static { route fd48:4242:420::/48 reject; ipv6 { import all; export none; }; }\n\
        template bgp dnpeers {\n  local as OWNAS;\n  path metric 1;\n  connect retry time 2;\n  \
        ipv4 { extended next hop; import all; export all; import limit 9000 action block; };\n  \
        ipv6 { import all; export all; import limit 9000 action block; };\n}\ninclude \"peers/*\";\n",
    peer: "protocol bgp peer1 from dnpeers { enable extended messages on; \
        neighbor fe80::1:1 as 4242421001; interface \"dn42_4242421001\"; }\n",
    file: (
        "networkd",
        "peer.network",
        "[Match]\nName=dn42_4242421001\n[Network]\nDHCP=no\n",
    ),
};

/// The style of the DN42 wiki: a single `bird.conf`, and `wg-quick`.
const ONE_FILE: Style = Style {
    main: "log stderr all;\ndefine OWNAS = 4242420998;\ndefine OWNIP = 172.23.105.177;\n\
        define OWNIPv6 = fd48:4242:420::1;\ndefine OWNNET = 172.23.105.176/28;\ndefine OWNNETv6 = fd48:4242:420::/48;\n\
        define OWNNETSET = [172.23.105.176/28+];\ndefine OWNNETSETv6 = [fd48:4242:420::/48+];\n\
        router id OWNIP;\nprotocol device { scan time 10; }\n\
        function is_self_net() -> bool { return net ~ OWNNETSET; }\n\
        function is_self_net_v6() -> bool { return net ~ OWNNETSETv6; }\n\
        function is_valid_network() -> bool { return net ~ [172.20.0.0/14{21,29}, 172.31.0.0/16+, 10.0.0.0/8{15,24}]; }\n\
        function is_valid_network_v6() -> bool { return net ~ [fd00::/8{44,64}]; }\n\
        protocol kernel { scan time 20; ipv6 { import none; export filter { if source = RTS_STATIC then reject; accept; }; }; }\n\
        protocol kernel { scan time 20; ipv4 { import none; export filter { if source = RTS_STATIC then reject; accept; }; }; }\n\
        protocol static { route OWNNET reject; ipv4 { import all; export none; }; }\n\
        protocol static { route OWNNETv6 reject; ipv6 { import all; export none; }; }\n\
        template bgp dnpeers {\n  local as OWNAS;\n  path metric 1;\n  connect retry time 2;\n  \
        ipv4 { extended next hop on; import filter { if is_valid_network() && !is_self_net() then accept; reject; };\n    \
        export filter { if is_valid_network() && source ~ [RTS_STATIC, RTS_BGP] then accept; reject; };\n    \
        import limit 9000 action block; };\n  \
        ipv6 { import filter { if is_valid_network_v6() && !is_self_net_v6() then accept; reject; };\n    \
        export filter { if is_valid_network_v6() && source ~ [RTS_STATIC, RTS_BGP] then accept; reject; };\n    \
        import limit 9000 action block; };\n}\n\
        protocol bgp first_peer from dnpeers {\n  neighbor fe80::1:1 % 'dn42_4242421001' as 4242421001;\n}\n",
    peer: "",
    file: (
        "wireguard",
        "dn42_4242421001.conf",
        "[Interface]\nListenPort = 21001\nTable = off\nPostUp = logger up\n",
    ),
};

/// The configuration of a router without a Control Plane.
fn configuration(router: &Router) -> Value {
    let mut config = router.config("http://192.0.2.1", 60);
    config.as_object_mut().unwrap().remove("controlPlane");
    config["node"] = json!({
        "name": "jp1", "id": 1, "asn": router::ASN, "region": "ap-northeast",
        "loopbackIpv4": "172.23.105.177", "loopbackIpv6": "fd48:4242:420::1"
    });
    config
}

impl Built {
    fn new(style: &Style) -> Self {
        let mut router = Router::new(&bird::version());
        let mut neighbour = Neighbour::new(1);
        neighbour.says = HALF.to_owned();
        router.inside.link(
            "u1",
            &["192.0.2.9/29"],
            &neighbour.inside,
            "u0",
            &["192.0.2.10/29"],
        );
        Tunnel {
            device: DEVICE,
            address: router::ADDRESS,
            private: &router.keys.private,
            port: 21_001,
            peer: &neighbour.keys.public,
            endpoint: "192.0.2.10:51820",
        }
        .make(&router.inside, neighbour.folder.path());
        let (folder, name, text) = style.file;
        for folder in ["wireguard", "networkd", "bird/peers"] {
            std::fs::create_dir_all(router.path(folder)).unwrap();
        }
        std::fs::write(router.path(folder).join(name), text).unwrap();
        std::fs::write(router.path("bird/bird.conf"), style.main).unwrap();
        std::fs::write(router.path("bird/peers/peer.conf"), style.peer).unwrap();
        router.start_bird();
        let far = FarEnd {
            asn: router::ASN,
            address: router::ADDRESS.into(),
            public: router.keys.public.clone(),
            endpoint: "192.0.2.9:21001".into(),
        };
        neighbour.start_bird(&bird::version(), &far);
        neighbour.wait_established(60);
        for prefix in [router::PREFIX4, router::PREFIX6] {
            neighbour.wait_route(prefix, "", 60);
        }
        router.write_config(&configuration(&router));
        for folder in ["wireguard", "networkd"] {
            std::fs::create_dir_all(router.path(folder)).unwrap();
        }
        Self { router, neighbour }
    }

    fn adopt(&self, format: &str) -> Answer {
        let path = |name: &str| self.router.path(name).display().to_string();
        let (wg_quick, networkd) = (path("wireguard"), path("networkd"));
        let arguments = [
            "adopt",
            "--plan",
            "--wg-quick",
            &wg_quick,
            "--networkd",
            &networkd,
            "-o",
            format,
        ];
        agent(&self.router, &arguments)
    }

    /// Everything that must not change: link, WireGuard, BIRD's files, and the neighbour's view.
    fn state(&self) -> [String; 4] {
        let files = format!(
            "cat {0}/bird.conf {0}/peers/*",
            self.router.bird.folder.display()
        );
        let session = self.neighbour.session().unwrap();
        let row = session.lines().find(|line| line.starts_with("moe_router"));
        // BIRD computes the time of each answer from two clocks, so its milliseconds differ by one.
        let (row, milliseconds) = row.unwrap().split_once('.').unwrap();
        let state = milliseconds.trim_start_matches(|c: char| c.is_ascii_digit());
        [
            self.router
                .inside
                .shell(&format!("ip -o link show {DEVICE} | cut -d: -f1")),
            self.router
                .inside
                .shell(&format!("wg show {DEVICE} public-key")),
            self.router.inside.shell(&files),
            format!("{row}{state}"),
        ]
    }

    /// The report, which promises no interruption.
    #[track_caller]
    fn promised(&self) -> Value {
        let before = self.state();
        let text = self.adopt("table").ended(0);
        text.says("Adopt: 1 document, 0 link re-creations, 0 other interruptions, 0 BGP resets.");
        text.says("takes this over, and interrupts nothing");
        text.says("node  BIRD runs on from");
        assert!(!text.out.contains("rror"), "{}", text.out);
        let answer = self.adopt("json").ended(0).json();
        assert_eq!(self.state(), before, "a plan changes nothing");
        assert!(
            !self.router.path("state").exists(),
            "a plan makes no state directory"
        );
        answer
    }

    /// Uses the documents as an operator would, and holds the plan to its promise.
    #[track_caller]
    fn keeps(&mut self, answer: &Value) {
        let (before, routes) = (self.state(), self.routes());
        self.router.start_agent();
        let document = self.router.path("document.yaml");
        std::fs::write(&document, answer["documents"][0].to_string()).unwrap();
        agent(&self.router, &["apply", "-f", document.to_str().unwrap()]).ended(0);
        wait_until("the link carries the agent's mark", 60, || {
            let alias = format!("cat /sys/class/net/{DEVICE}/ifalias");
            contains(&self.router.inside.try_shell(&alias)?, "moenet-agent:2:")
        });
        let name = format!("sessions/{DEVICE}");
        wait_until("nothing is left to do for the tunnel", 60, || {
            let plan = agent(&self.router, &["plan", &name]).out;
            match plan.contains("set WireGuard") || plan.contains("address") {
                true => Err(plan),
                false => Ok(()),
            }
        });
        assert_eq!(self.state(), before, "adoption disturbed the session");
        assert_eq!(self.routes(), routes);
    }

    fn routes(&self) -> [Vec<String>; 2] {
        [4, 6].map(|family| self.neighbour.heard(family).unwrap())
    }
}

#[track_caller]
fn finds(answer: &Value, outcome: &str, subject: &str, place: &str) {
    let findings = answer["findings"].as_array().unwrap();
    let found = findings.iter().any(|finding| {
        let file = finding["place"]["file"].as_str().unwrap_or_default();
        let at = format!("{file}:{}", finding["place"]["line"]);
        finding["outcome"] == outcome && finding["subject"] == subject && at.ends_with(place)
    });
    assert!(found, "no {outcome} {subject} at {place} in {findings:#?}");
}

#[test]
fn router_of_the_go_agent_is_adopted_without_a_reset() {
    let mut built = Built::new(&GO_AGENT);
    built.router.inside.shell(&format!(
        "wg set {DEVICE} peer {} allowed-ips 172.16.0.0/12,fd00::/8,fe80::/10,ff00::/8",
        built.neighbour.keys.public
    ));
    let answer = built.promised();
    let session = "protocol bgp dn42_4242421001";
    finds(
        &answer,
        "taken",
        "interface dn42_4242421001",
        "wireguard/dn42_4242421001.conf:1",
    );
    finds(&answer, "left", session, "peers/peer.conf:1");
    finds(&answer, "unsupported", session, "bird.conf:13");
    finds(&answer, "unsupported", session, "peers/peer.conf:4");
    finds(&answer, "unsupported", DEVICE, "dn42_4242421001.conf:3");
    let wider = ("interface dn42_4242421001", "dn42_4242421001.conf:5");
    finds(&answer, "changed", wider.0, wider.1);
    finds(&answer, "left", "protocol static own4", "bird.conf:6");
    finds(&answer, "left", "protocol static own6", "bird.conf:7");
    finds(&answer, "left", "protocol kernel k4", "bird.conf:5");
    finds(&answer, "left", "filter dn42_in", "bird.conf:8");
    let spec = &answer["documents"][0]["spec"];
    assert_eq!(spec["tunnel"]["adopt"], true);
    assert_eq!(spec["tunnel"]["endpoint"], "192.0.2.10:51820");
    assert_eq!(spec["address"]["peerLinkLocal"], "fe80::1:1");
    assert_eq!(spec["description"], "first peer");
    built.keeps(&answer);
}

#[test]
fn router_of_the_wiki_is_adopted_without_a_reset() {
    let mut built = Built::new(&WIKI);
    let answer = built.promised();
    finds(&answer, "left", "protocol bgp peer1", "peers/peer.conf:1");
    finds(&answer, "unsupported", DEVICE, "peer.network:4");
    assert_eq!(answer["documents"][0]["spec"]["bgp"]["importLimit"], 9000);
    built.keeps(&answer);
}

#[test]
fn router_with_one_file_is_adopted_without_a_reset() {
    let mut built = Built::new(&ONE_FILE);
    let answer = built.promised();
    finds(&answer, "left", "protocol bgp first_peer", "bird.conf:30");
    finds(&answer, "unsupported", DEVICE, "dn42_4242421001.conf:3");
    let spec = &answer["documents"][0]["spec"];
    assert_eq!(spec["address"]["peerLinkLocal"], "fe80::1:1");
    built.keeps(&answer);
}
