//! What neighbours see of a router with our configuration: real BIRDs in network namespaces.
//!
//! ```text
//! hostile (AS4242421080) ─┐
//! other   (AS4242421081) ─┼─ jp1 ── hk1 (route reflector) ── fra1    (all AS4242420998)
//! peer    (AS4242421082) ─┘
//! ```

use std::path::Path;

use super::support::lab::{Node, eventually};
use super::support::{BIRDS, Case, write};

struct Network {
    jp1: Node,
    hk1: Node,
    fra1: Node,
    hostile: Node,
    other: Node,
    peer: Node,
    case: Case,
    numbers: (u32, u32),
}

fn read(name: &str) -> String {
    std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/render_live")
            .join(name),
    )
    .unwrap()
}

/// Writes a rendered router.
fn deploy(node: &Node, case: &Case, numbers: (u32, u32), router_id: &str) {
    let mut files = case.render(numbers).unwrap();
    let main = format!(
        "{}include \"moenet/main.conf\";\n",
        node.preamble(router_id)
    );
    files.insert("bird.conf".to_owned(), main);
    write(node.directory(), &files);
}

/// Starts a neighbour of another network.
fn outside(name: &str, version: &'static str, router_id: &str) -> Node {
    let node = Node::new(name, version, &[]);
    let text = node.preamble(router_id) + &read(&format!("{name}.conf"));
    std::fs::write(node.directory().join("bird.conf"), text).unwrap();
    node
}

impl Network {
    fn start(version: &'static str) -> Self {
        let (_, major, minor) = BIRDS
            .into_iter()
            .find(|(name, ..)| *name == version)
            .unwrap();
        let numbers = (major, minor);
        let case = Case::parse(&read("jp1.yaml")).unwrap();
        let mut network = Self {
            jp1: Node::new(
                "jp1",
                version,
                &["172.23.105.177/32", "fd48:4da8:420::1/128"],
            ),
            hk1: Node::new(
                "hk1",
                version,
                &["172.23.105.178/32", "fd48:4da8:420::2/128"],
            ),
            fra1: Node::new(
                "fra1",
                version,
                &["172.23.105.179/32", "fd48:4da8:420::3/128"],
            ),
            hostile: outside("hostile", version, "10.0.0.1"),
            other: outside("other", version, "10.0.0.2"),
            peer: outside("peer", version, "10.0.0.3"),
            case,
            numbers,
        };
        network.connect();
        deploy(&network.jp1, &network.case, numbers, "172.23.105.177");
        deploy(
            &network.hk1,
            &Case::parse(&read("hk1.yaml")).unwrap(),
            numbers,
            "172.23.105.178",
        );
        deploy(
            &network.fra1,
            &Case::parse(&read("fra1.yaml")).unwrap(),
            numbers,
            "172.23.105.179",
        );
        network.run();
        network
    }

    fn connect(&self) {
        self.jp1.wire(
            ("wg_4242421080", "fe80::998:1"),
            &self.hostile,
            ("x0", "fe80::1080"),
        );
        self.jp1.wire(
            ("wg.other-1", "fe80::998:1"),
            &self.other,
            ("x0", "fe80::1081"),
        );
        self.jp1
            .wire(("static", "fe80::998:1"), &self.peer, ("x0", "fe80::1082"));
        self.jp1.wire(
            ("mesh_hk1", "fe80::998:1"),
            &self.hk1,
            ("mesh_jp1", "fe80::998:2"),
        );
        self.hk1.wire(
            ("mesh_fra1", "fe80::998:2"),
            &self.fra1,
            ("mesh_hk1", "fe80::998:3"),
        );
    }

    fn run(&mut self) {
        for node in [
            &mut self.jp1,
            &mut self.hk1,
            &mut self.fra1,
            &mut self.hostile,
            &mut self.other,
            &mut self.peer,
        ] {
            node.start();
        }
        for session in SESSIONS {
            self.jp1.wait_for(session);
        }
        // The last of what the hostile neighbour says has come when its IPv6 route is there.
        eventually("routes arrive", || self.sees(&self.fra1, "fd00:1::/48"));
        eventually("routes arrive", || self.sees(&self.other, "172.20.1.0/24"));
    }

    fn sees(&self, node: &Node, prefix: &str) -> Result<(), String> {
        let said = node.ask(&format!("show route {prefix}"));
        said.contains(prefix)
            .then_some(())
            .ok_or_else(|| said + &node.log() + &self.jp1.log())
    }

    fn drain(&mut self, drained: bool) {
        self.case.drained = drained;
        self.deploy();
    }

    fn deploy(&self) {
        deploy(&self.jp1, &self.case, self.numbers, "172.23.105.177");
        self.jp1.configure();
    }
}

const SESSIONS: [&str; 4] = ["ebgp_hostile", "ebgp_other", "ebgp_peer", "ibgp_hk1"];

/// Asserts that a line of attributes is there and holds exactly these items.
fn assert_items(attributes: &str, name: &str, wanted: &[&str]) {
    let line = attributes
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let mut items: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    let mut wanted = wanted.to_vec();
    items.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(items, wanted, "{name} of {attributes}");
}

fn scenario(version: &'static str) {
    let mut network = Network::start(version);
    what_a_hostile_neighbour_gets_in(&network);
    what_is_written_on_routes(&network);
    what_others_hear(&network);
    distance_decides_inside(&network);
    what_the_kernel_gets(&network);
    limits_hold(&network);
    new_roas_apply_to_what_was_said_before(&mut network);
    draining_moves_traffic_and_resets_nothing(&mut network);
    a_session_is_drained_on_its_own(&mut network);
    for node in [&network.jp1, &network.hk1, &network.fra1] {
        // Exceeded limits are told of; nothing else is worth a warning.
        let log = node.log();
        let odd = |line: &&str| {
            ["<WARN>", "<ERR>", "<BUG>", "<FATAL>"]
                .iter()
                .any(|mark| line.contains(mark))
                && !line.contains("hits route import limit (3), action: block")
                && !line.contains("hits route export limit (1), action: warn")
        };
        assert_eq!(
            log.lines().filter(odd).collect::<Vec<_>>(),
            Vec::<&str>::new()
        );
    }
}

fn what_a_hostile_neighbour_gets_in(network: &Network) {
    let routes = network.jp1.routes("protocol ebgp_hostile");
    let wanted = [
        "172.20.0.53/32",
        "172.20.1.0/24",
        "172.20.10.0/24",
        "172.20.14.0/24",
        "172.20.15.0/24",
        "172.20.2.0/24",
        "172.20.9.0/24",
        "fd00:1::/48",
    ];
    assert_eq!(
        routes.keys().map(String::as_str).collect::<Vec<_>>(),
        wanted
    );
    // A path that does not begin with the neighbour, though the origin is right.
    assert_eq!(network.jp1.routes("protocol ebgp_peer").len(), 0);
    assert!(
        network
            .jp1
            .ask("show route import table ebgp_peer.ipv4")
            .contains("172.20.40.0/24")
    );
}

fn what_is_written_on_routes(network: &Network) {
    let routes = network.jp1.routes("protocol ebgp_hostile");
    let here = [
        "(4242420998,1,1)",
        "(4242420998,2,101)",
        "(4242420998,3,1)",
        "(4242420998,4,83)",
    ];
    let ours = [&here[..], &["(4242420998,5,100)", "(4242420998,10,2)"]].concat();
    assert_items(&routes["172.20.2.0/24"], "bgp_large_community", &ours);
    let spoofed = [&ours[..], &["(4242421080,1,2)"]].concat();
    assert_items(&routes["172.20.14.0/24"], "bgp_large_community", &spoofed);
    let link = [
        "(64511,3)",
        "(64511,24)",
        "(64511,34)",
        "(64511,83)",
        "(64511,92)",
    ];
    assert_items(&routes["172.20.2.0/24"], "bgp_community", &link);
    let far = [
        "(64511,9)",
        "(64511,21)",
        "(64511,31)",
        "(64511,83)",
        "(64511,94)",
    ];
    let foreign = [&far[..], &["(64511,41)", "(64511,1276)", "(4242,7)"]].concat();
    assert_items(&routes["172.20.15.0/24"], "bgp_community", &foreign);
    for (prefix, preference) in [
        ("172.20.2.0/24", "2100"),
        ("172.20.14.0/24", "2100"),
        ("172.20.9.0/24", "0"),
    ] {
        assert_items(&routes[prefix], "bgp_local_pref", &[preference]);
        // The other router of ours is on the same continent, and in another region.
        let there = if preference == "0" { "0" } else { "2050" };
        assert_items(
            &network.hk1.routes(&format!("for {prefix}"))[prefix],
            "bgp_local_pref",
            &[there],
        );
    }
}

/// A reflector passes on the way to the router that has it, and the next one judges the distance anew.
fn distance_decides_inside(network: &Network) {
    let prefix = "172.20.2.0/24";
    let reflected = &network.fra1.routes(&format!("for {prefix}"))[prefix];
    assert!(
        reflected.contains("bgp_next_hop: fd48:4da8:420::1\n"),
        "{reflected}"
    );
    assert!(
        reflected.contains("bgp_originator_id: 172.23.105.177"),
        "{reflected}"
    );
    assert_items(reflected, "bgp_local_pref", &["1950"]);
    let mut case = Case::parse(&read("fra1.yaml")).unwrap();
    let places = [
        ("{continent: AS, regionCode: 101}", "2100"),
        ("{continent: EU, regionCode: 101}", "2100"),
        ("{continent: AS}", "2050"),
        ("{continent: NA}", "1950"),
        ("{continent: OTHER}", "1800"),
        ("{}", "2000"),
    ];
    for (place, preference) in places {
        case.policy.location = moenet_agent::document::parse_value(place).unwrap();
        deploy(&network.fra1, &case, network.numbers, "172.23.105.179");
        network.fra1.configure();
        eventually(place, || {
            let route = network
                .fra1
                .routes(&format!("for {prefix}"))
                .remove(prefix)
                .unwrap_or_default();
            let wanted = format!("bgp_local_pref: {preference}\n");
            route
                .contains(&wanted)
                .then_some(())
                .ok_or_else(|| route + &network.fra1.log())
        });
    }
}

fn what_others_hear(network: &Network) {
    let other = network.other.routes("protocol ours");
    assert_items(
        &other["172.20.1.0/24"],
        "bgp_path",
        &["4242420998", "4242421080", "4242420001"],
    );
    let own = [
        "(64511,52)",
        "(64511,1392)",
        "(64511,3)",
        "(64511,24)",
        "(64511,34)",
        "(64511,83)",
        "(64511,92)",
    ];
    assert_items(&other["172.23.105.176/28"], "bgp_community", &own);
    for (prefix, attributes) in &other {
        assert!(
            !attributes.contains("(4242420998,10,"),
            "{prefix}: {attributes}"
        );
        assert!(
            attributes.contains("(4242420998,3,1)"),
            "{prefix}: {attributes}"
        );
    }
    let loopback =
        |prefix: &&String| prefix.starts_with("172.23.105.17") && !prefix.ends_with("/28");
    assert_eq!(other.keys().find(loopback), None, "loopbacks stay inside");
    assert_eq!(
        other.keys().find(|prefix| prefix.ends_with("/128")),
        None,
        "loopbacks stay inside"
    );
    let peer: Vec<_> = network.peer.routes("protocol ours").into_keys().collect();
    assert_eq!(
        peer,
        ["172.23.105.176/28", "fd48:4da8:420::/48"],
        "a peer hears of our own nets only"
    );
    let loopback = network.hk1.ask("show route protocol moe_babel");
    assert!(loopback.contains("fd48:4da8:420::1/128"), "{loopback}");
}

fn what_the_kernel_gets(network: &Network) {
    eventually("the kernel has the routes", || {
        let here = network.jp1.ip(&["route"]) + &network.jp1.ip(&["-6", "route"]);
        let there = network.hk1.ip(&["route"]);
        let wanted = [
            (
                &here,
                "172.20.2.0/24 via inet6 fe80::1080 dev wg_4242421080 proto bird src 172.23.105.177",
            ),
            (
                &here,
                "fd00:1::/48 via fe80::1080 dev wg_4242421080 proto bird src fd48:4da8:420::1",
            ),
            (
                &there,
                "172.20.2.0/24 via inet6 fe80::998:1 dev mesh_jp1 proto bird src 172.23.105.178",
            ),
        ];
        let missing = wanted.iter().find(|(table, route)| !table.contains(route));
        let own = here.contains("172.23.105.176/28") || here.contains("fd48:4da8:420::/48");
        (missing.is_none() && !own)
            .then_some(())
            .ok_or_else(|| format!("{missing:?} {here} {there}"))
    });
}

/// The neighbour does not say anything again, and need not: its words are kept (`import table`).
fn new_roas_apply_to_what_was_said_before(network: &mut Network) {
    let before = network.case.roa.clone();
    let unknown = || {
        network
            .jp1
            .routes("protocol ebgp_hostile")
            .contains_key("172.22.13.0/24")
    };
    assert!(!unknown());
    network.case.roa = before
        .clone()
        .map(|text| text + "route 172.22.13.0/24 max 24 as 4242421080;\n");
    network.deploy();
    eventually("the route is let in", || {
        unknown().then_some(()).ok_or_else(|| network.jp1.log())
    });
    network.case.roa = before;
    network.deploy();
    eventually("the route is put out", || {
        (!unknown()).then_some(()).ok_or_else(|| network.jp1.log())
    });
}

fn limits_hold(network: &Network) {
    let taken = network.jp1.routes("protocol ebgp_other");
    assert_eq!(taken.len(), 3, "{taken:?}");
    let told = network.other.routes("protocol ours");
    assert!(
        told.len() > 1,
        "an export limit warns and holds nothing back: {told:?}"
    );
    assert!(network.jp1.log().contains("export limit (1), action: warn"));
    network.jp1.wait_for("ebgp_other");
}

/// The attributes of a protocol's routes without what differs from moment to moment.
fn heard(node: &Node, protocol: &str) -> Vec<String> {
    let keep = |line: &&str| line.starts_with("bgp_");
    let routes = node.routes(&format!("protocol {protocol}"));
    let route = |(prefix, text): (String, String)| {
        let kept: Vec<&str> = text.lines().filter(keep).collect();
        format!("{prefix} {}", kept.join(" "))
    };
    routes.into_iter().map(route).collect()
}

fn draining_moves_traffic_and_resets_nothing(network: &mut Network) {
    let since = SESSIONS.map(|session| network.jp1.since(session));
    let before = [
        ("other", &network.other, "ours"),
        ("hk1", &network.hk1, "ibgp_jp1"),
    ]
    .map(|(_, node, protocol)| heard(node, protocol));
    network.drain(true);
    eventually("every route is marked", || {
        let other = heard(&network.other, "ours");
        let hk1 = heard(&network.hk1, "ibgp_jp1");
        let jp1 = heard(&network.jp1, "ebgp_hostile");
        let marked = |routes: &[String]| {
            !routes.is_empty() && routes.iter().all(|r| r.contains("(65535,0)"))
        };
        let last = |routes: &[String]| routes.iter().all(|r| r.contains("bgp_local_pref: 0"));
        let done = marked(&other) && marked(&hk1) && last(&hk1) && last(&jp1);
        done.then_some(())
            .ok_or_else(|| format!("{other:#?} {hk1:#?} {jp1:#?}"))
    });
    assert_eq!(
        heard(&network.other, "ours").len(),
        before[0].len(),
        "no route is lost"
    );
    network.drain(false);
    eventually("all is as it was", || {
        let after = [
            heard(&network.other, "ours"),
            heard(&network.hk1, "ibgp_jp1"),
        ];
        (after == before)
            .then_some(())
            .ok_or_else(|| format!("{after:#?} {before:#?}"))
    });
    let still = SESSIONS.map(|session| network.jp1.since(session));
    // BIRD derives the time anew at each question, so that the last digit may differ.
    assert!(
        still.iter().zip(since).all(|(a, b)| a.abs_diff(b) <= 1),
        "no session went down"
    );
}

/// Its routes go last everywhere inside, though nothing on them says so but the preference; the routes
/// of others stay as they are, and others are not told.
fn a_session_is_drained_on_its_own(network: &mut Network) {
    network
        .case
        .sessions
        .get_mut("hostile")
        .unwrap()
        .bgp
        .drained = true;
    network.deploy();
    eventually("its routes go last", || {
        let inside = network.hk1.routes("protocol ibgp_jp1");
        let all = |prefix: &str, preference: &str| {
            let line = format!("bgp_local_pref: {preference}\n");
            let mut some = inside
                .iter()
                .filter(|(name, _)| name.starts_with(prefix))
                .peekable();
            some.peek().is_some() && some.all(|(_, attributes)| attributes.contains(&line))
        };
        let good = all("172.20.2.", "0") && all("172.20.3", "2050");
        let told = heard(&network.hostile, "ours")
            .iter()
            .all(|route| route.contains("(65535,0)"));
        (good && told)
            .then_some(())
            .ok_or_else(|| format!("{inside:#?}"))
    });
    let other = network.other.routes("protocol ours");
    assert!(!other["172.20.2.0/24"].contains("(65535,0)"));
}

#[test]
fn neighbours_see_the_policy_bird_2_0_12() {
    scenario("2.0.12");
}

#[test]
fn neighbours_of_bird_2_17_see_what_the_policy_says() {
    scenario("2.17");
}

#[test]
fn neighbours_see_the_policy_bird_3_4() {
    scenario("3.4");
}
