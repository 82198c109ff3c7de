//! Every shape of a session, against a neighbour whose operator set up the other side by hand: routes of both
//! families at the neighbour, with the next hop they must have, and packets that pass.

mod gre;

use crate::lab::bird;
use crate::lab::neighbour::{FarEnd, Neighbour};
use crate::lab::router::{ASN, PREFIX4, PREFIX6};
use crate::lab::watch::{ifindex, session_ages};
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::Duration;

const OUR_IPV4: &str = "172.23.105.177";
const OUR_IPV6: &str = "fd48:4242:420::1";
/// Beyond the router, in its own prefixes: only a BGP route leads there.
const BEHIND: [&str; 2] = ["172.23.105.190", "fd48:4242:420::ff"];

/// A shape: what the Control Plane says of it, and what the neighbour's operator did.
struct Shape {
    /// Fields of the session that differ from the common one.
    session: Value,
    /// Addresses and routes, in shell.
    setup: String,
    /// `protocol bgp` statements; the first one is called `moe_router`.
    bgp: String,
}

const TIMERS: &str = "connect delay time 1; connect retry time 2; error wait time 1, 2;";

/// The neighbour's own configuration: what it has, its kernel, and its sessions with us.
fn config(neighbour: &Neighbour, bgp: &str) -> String {
    let Neighbour {
        prefix4,
        prefix6,
        asn,
        ..
    } = neighbour;
    format!(
        "router id 10.0.{}.1;\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n\
         protocol static own4 {{ ipv4; route {prefix4} unreachable; }}\n\
         protocol static own6 {{ ipv6; route {prefix6} unreachable; }}\n\
         protocol kernel k4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol kernel k6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; learn; }}\n{bgp}",
        asn % 250
    )
}

fn family(number: u8, options: &str) -> String {
    format!("ipv{number} {{ import all; export where proto = \"own{number}\"; {options} }};")
}

/// A session from `local` to `remote`.
fn bgp(name: &str, asn: u32, local: &str, remote: &str, options: &str) -> String {
    format!(
        "protocol bgp {name} {{\n local {local} as {asn};\n neighbor {remote} as {ASN};\n {TIMERS}\n {options}\n}}\n"
    )
}

/// Runs a world with one neighbour of this shape until BGP is up on its side.
fn established(shape: impl FnOnce(&Neighbour) -> Shape) -> World {
    let mut world = World::new(0);
    let neighbour = Neighbour::new(1);
    let shape = shape(&neighbour);
    let bird = config(&neighbour, &shape.bgp);
    let setup = format!(
        "ip addr add 172.20.1.9/32 dev lo && ip addr add fd42:1::9/128 dev lo nodad && {}",
        shape.setup
    );
    world.join(neighbour, 1, |neighbour: &mut Neighbour, far: &FarEnd| {
        neighbour.start_bird_with(&bird::version(), far, &setup, &bird);
    });
    start(&mut world, &[shape.session]);
    world.neighbours[0].wait_established(40);
    world
}

/// Starts the agent on sessions that differ from the common ones in these fields.
fn start(world: &mut World, fields: &[Value]) {
    let sessions: Vec<_> = (1..)
        .zip(fields)
        .map(|(number, fields)| {
            let mut session = session(number, &world.neighbours[number as usize - 1]);
            json_patch::merge(&mut session, fields);
            session
        })
        .collect();
    world.control_plane.sessions(&sessions);
    let [v4, v6] = BEHIND;
    world.router.inside.shell(&format!(
        "ip addr add {v4}/32 dev lo && ip addr add {v6}/128 dev lo"
    ));
    world
        .router
        .start_agent_with(&["RUST_LOG=info,moenet_agent=debug"]);
}

/// The neighbour has our prefix by way of this next hop, and packets come back from behind the router.
#[track_caller]
fn reaches(world: &World, prefix: &str, next_hop: &str) {
    let [neighbour, ..] = &world.neighbours[..] else {
        panic!("no neighbour")
    };
    neighbour.wait_route(prefix, &format!("via {next_hop} on"), 30);
    let (from, to) = if prefix.contains(':') {
        ("fd42:1::9", BEHIND[1])
    } else {
        ("172.20.1.9", BEHIND[0])
    };
    wait_until(&format!("{to} answers {from}"), 30, || {
        neighbour
            .inside
            .try_shell(&format!("ping -c 1 -W 1 -I {from} {to}"))
            .map(drop)
    });
}

#[track_caller]
fn has_no_route(world: &World, prefix: &str) {
    let route = world.neighbours[0].route(prefix).unwrap_or_default();
    assert!(!route.contains(prefix), "{route}");
}

#[test]
fn link_local_session_carries_both_families() {
    let world = established(|neighbour| Shape {
        session: json!({}),
        setup: "true".into(),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            &neighbour.address,
            "fe80::998:1%'wg0'",
            &format!("{} {}", family(4, "extended next hop on;"), family(6, "")),
        ),
    });
    reaches(&world, PREFIX4, "fe80::998:1");
    reaches(&world, PREFIX6, "fe80::998:1");
}

#[test]
fn without_extended_next_hop_ipv4_gets_ipv4_next_hop() {
    let world = established(|neighbour| Shape {
        session: json!({"ipv4": "172.20.1.1", "extensions": ["mp-bgp"]}),
        setup: format!("ip addr add 172.20.1.1/32 peer {OUR_IPV4} dev wg0"),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            &neighbour.address,
            "fe80::998:1%'wg0'",
            &format!("{} {}", family(4, ""), family(6, "")),
        ),
    });
    reaches(&world, PREFIX4, OUR_IPV4);
    reaches(&world, PREFIX6, "fe80::998:1");
}

#[test]
fn peer_without_mp_bgp_has_one_session_per_family() {
    let world = established(|neighbour| Shape {
        session: json!({"ipv4": "172.20.1.1", "extensions": []}),
        setup: format!("ip addr add 172.20.1.1/32 peer {OUR_IPV4} dev wg0"),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            &neighbour.address,
            "fe80::998:1%'wg0'",
            &family(6, ""),
        ) + &bgp(
            "moe_router4",
            neighbour.asn,
            "172.20.1.1",
            OUR_IPV4,
            &family(4, ""),
        ),
    });
    reaches(&world, PREFIX6, "fe80::998:1");
    has_no_route(&world, PREFIX4);
    let protocols = world
        .router
        .bird
        .ask(&world.router.inside, "show protocols");
    assert_eq!(
        protocols
            .lines()
            .filter(|line| line.contains(" BGP "))
            .count(),
        2,
        "{protocols}"
    );
    let from = "ping -c 1 -W 1 -I 172.20.1.9 172.23.105.190";
    wait_until("IPv4 passes by the second session", 30, || {
        world.neighbours[0].inside.try_shell(from).map(drop)
    });
    world.wait_reported(&uuid(1), 1, "");
}

#[test]
fn ipv4_only_peer_has_32_bit_point_to_point_addresses() {
    let world = established(|neighbour| Shape {
        session: json!({"ipv6LinkLocal": null, "ipv4": "172.20.1.1", "extensions": []}),
        setup: format!("ip addr add 172.20.1.1/32 peer {OUR_IPV4} dev wg0"),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            "172.20.1.1",
            OUR_IPV4,
            &family(4, ""),
        ),
    });
    reaches(&world, PREFIX4, OUR_IPV4);
    has_no_route(&world, PREFIX6);
    let addresses = world
        .router
        .inside
        .shell(&format!("ip -o -4 addr show dev {}", interface(1)));
    contains(&addresses, &format!("inet {OUR_IPV4} peer 172.20.1.1/32")).unwrap();
}

#[test]
fn ula_peer_has_128_bit_point_to_point_addresses() {
    let world = established(|neighbour| Shape {
        session: json!({"ipv6LinkLocal": null, "ipv6": "fd42:1::1"}),
        setup: format!("ip addr add fd42:1::1/128 peer {OUR_IPV6} dev wg0 nodad"),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            "fd42:1::1",
            OUR_IPV6,
            &format!("{} {}", family(4, "extended next hop on;"), family(6, "")),
        ),
    });
    reaches(&world, PREFIX4, OUR_IPV6);
    reaches(&world, PREFIX6, OUR_IPV6);
    let addresses = world
        .router
        .inside
        .shell(&format!("ip -o -6 addr show dev {}", interface(1)));
    contains(&addresses, &format!("inet6 {OUR_IPV6} peer fd42:1::1/128")).unwrap();
}

#[test]
fn deleted_peer_routes_return_and_others_are_untouched() {
    let world = established(|neighbour| Shape {
        session: json!({"ipv6": "fd42:1::1", "ipv4": "172.20.1.1", "extensions": []}),
        setup: format!(
            "ip addr add fd42:1::1/128 peer {OUR_IPV6} dev wg0 nodad && ip addr add 172.20.1.1/32 peer {OUR_IPV4} dev wg0"
        ),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            "172.20.1.1",
            OUR_IPV4,
            &family(4, ""),
        ) + &bgp(
            "moe_router6",
            neighbour.asn,
            &neighbour.address,
            "fe80::998:1%'wg0'",
            &family(6, ""),
        ),
    });
    wait_until("both sessions are up", 30, || {
        let ages = session_ages(&world.router);
        if ages.established() == 2 {
            Ok(())
        } else {
            Err(format!("{ages:?}"))
        }
    });
    let device = interface(1);
    let routes = || {
        world
            .router
            .inside
            .shell(&format!("ip -4 route show; ip -6 route show dev {device}"))
    };
    wait_until("BIRD's routes are in the kernel", 20, || {
        let routes = routes();
        crate::lab::contains(&routes, "172.20.1.0/24 via")?;
        crate::lab::contains(&routes, "fd42:1::/48 via")
    });
    world.router.inside.shell(&format!(
        "ip route add 172.20.1.1/32 dev u1 metric 9 && ip route add fd42:1::1/128 dev {device} metric 9"
    ));
    let before = routes();
    let index = ifindex(&world.router, &device);
    let ages = session_ages(&world.router);
    for route in ["172.20.1.1/32", "fd42:1::1/128 metric 256", "fe80::/64"] {
        world
            .router
            .inside
            .shell(&format!("ip route del {route} dev {device} proto kernel"));
    }
    wait_until("the routes are as before", 20, || {
        let now = routes();
        if now == before { Ok(()) } else { Err(now) }
    });
    for address in ["172.20.1.1", "fd42:1::1", "fe80::1:1%wg_4242421001"] {
        wait_until(&format!("{address} answers"), 10, || {
            world
                .router
                .inside
                .try_shell(&format!("ping -c 1 -W 1 {address}"))
                .map(drop)
        });
    }
    assert_eq!(ifindex(&world.router, &device), index);
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
    world.wait_log(&format!("step=\"add route to fe80::/64 out of {device}\""));
    let log = world.log();
    for route in ["172.20.1.1/32", "fd42:1::1/128", "fe80::/64"] {
        let line = format!(
            "step=\"add route to {route} out of {device}\" because=\"tunnel.route: want {route}, have (none)\""
        );
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
    assert!(!log.contains("tunnel cannot be configured"), "{log}");
}

#[test]
fn peer_beyond_the_link_has_a_multihop_session() {
    let world = established(|neighbour| Shape {
        session: json!({"ipv6LinkLocal": null, "ipv6": "fd42:1::1", "multihop": 5}),
        // The neighbour's address is not on the tunnel but on the router behind it.
        setup: format!(
            "ip addr add fd42:1::1/128 dev lo nodad && ip route add {OUR_IPV6}/128 dev wg0"
        ),
        bgp: format!("protocol static far6 {{ ipv6; route {OUR_IPV6}/128 via \"wg0\"; }}\n")
            + &bgp(
                "moe_router",
                neighbour.asn,
                "fd42:1::1",
                OUR_IPV6,
                &format!(
                    "multihop 5; {} {}",
                    family(4, "extended next hop on;"),
                    family(6, "")
                ),
            ),
    });
    let [neighbour] = &world.neighbours[..] else {
        panic!("one neighbour")
    };
    neighbour.wait_route(PREFIX6, OUR_IPV6, 30);
    let passes = || {
        for (from, to) in [("172.20.1.9", BEHIND[0]), ("fd42:1::9", BEHIND[1])] {
            wait_until(&format!("{to} answers {from}"), 30, || {
                neighbour
                    .inside
                    .try_shell(&format!("ping -c 1 -W 1 -I {from} {to}"))
                    .map(drop)
            });
        }
    };
    passes();
    // What is in the import table knows its way too: the next change of a filter reads it again.
    world
        .router
        .bird
        .ask(&world.router.inside, "reload in \"ebgp_*\"");
    sleep(Duration::from_secs(1));
    passes();
    let session = world
        .router
        .bird
        .ask(&world.router.inside, "show protocols all \"ebgp_*\"");
    contains(&session, "multihop").unwrap();
}

const PASSWORD: &str = "correct horse battery";

#[test]
fn password_session_comes_up_without_showing_the_password() {
    let world = established(|neighbour| Shape {
        session: json!({"password": PASSWORD}),
        setup: "true".into(),
        bgp: bgp(
            "moe_router",
            neighbour.asn,
            &neighbour.address,
            "fe80::998:1%'wg0'",
            &format!(
                "{}password \"{PASSWORD}\"; {} {}",
                // Later versions warn without this word, and this one does not know it.
                if bird::version().starts_with("2.0") {
                    ""
                } else {
                    "authentication md5; "
                },
                family(4, "extended next hop on;"),
                family(6, "")
            ),
        ),
    });
    reaches(&world, PREFIX6, "fe80::998:1");
    world.wait_reported(&uuid(1), 1, "");
    let folder = world.router.path("");
    let found = world.router.inside.shell(&format!(
        "grep -rlF '{PASSWORD}' {} || true",
        folder.display()
    ));
    let state = world.router.path("state/secrets");
    for file in found.lines() {
        let mode = world.router.inside.shell(&format!("stat -c %a {file}"));
        assert!(
            mode.trim().ends_with('0'),
            "{file} is readable for others: {mode}"
        );
        let allowed =
            file.starts_with(state.to_str().unwrap()) || file.contains("/moenet/sessions/");
        assert!(allowed, "the password is in {file}");
    }
    assert_eq!(
        found.lines().count(),
        2,
        "in secrets/ and in BIRD's file: {found}"
    );
    let shown = world.router.inside.shell(&format!(
        "cat /proc/[0-9]*/cmdline; curl -s http://127.0.0.1:24368/status; curl -s http://127.0.0.1:24368/metrics; \
         until git -C {0} log -p --all; do sleep 0.2; done",
        world.router.path("state").display()
    ));
    assert!(!shown.contains(PASSWORD));
}

#[test]
fn two_sessions_of_one_asn_run_side_by_side() {
    let mut world = World::new(0);
    for number in 1..=2 {
        let mut neighbour = Neighbour::new(number);
        neighbour.asn = 4_242_421_001;
        let options = format!("{} {}", family(4, "extended next hop on;"), family(6, ""));
        let bgp = bgp(
            "moe_router",
            neighbour.asn,
            &neighbour.address,
            "fe80::998:1%'wg0'",
            &options,
        );
        let bird = config(&neighbour, &bgp);
        world.join(neighbour, number, |neighbour, far| {
            neighbour.start_bird_with(&bird::version(), far, "true", &bird);
        });
    }
    start(&mut world, &[json!({}), json!({})]);
    world.wait_established();
    for neighbour in &world.neighbours {
        neighbour.wait_route(PREFIX4, "fe80::998:1", 30);
        neighbour.wait_route(PREFIX6, "fe80::998:1", 30);
    }
    let ports = [1, 2].map(|number| {
        let port = world
            .router
            .inside
            .shell(&format!("wg show {} listen-port", interface(number)));
        port.trim().to_owned()
    });
    assert_eq!(ports[0], "21001");
    assert_ne!(ports[1], ports[0]);
}

#[test]
fn two_sessions_swap_their_interface_names() {
    let world = World::converged(2);
    let before = [1, 2].map(|number| ifindex(&world.router, &interface(number)));
    let mut swapped = world.sessions();
    swapped[0]["interface"] = interface(2).into();
    swapped[1]["interface"] = interface(1).into();
    world.control_plane.sessions(&swapped);
    wait_until("each has the other's name", 40, || {
        for (number, neighbour) in [(2, &world.neighbours[0]), (1, &world.neighbours[1])] {
            let peers = world
                .router
                .inside
                .try_shell(&format!("wg show {} peers", interface(number)))?;
            contains(&peers, &neighbour.keys.public)?;
        }
        Ok(())
    });
    world.wait_established();
    assert_ne!(ifindex(&world.router, &interface(1)), before[0]);
    for number in 1..=2 {
        world.wait_reported(&uuid(number), 1, "");
    }
    no_error_was_reported(&world);
}

fn no_error_was_reported(world: &World) {
    let posts = world.control_plane.posts("modify");
    let errors: Vec<_> = posts.iter().filter(|post| post["status"] == 2).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let log = world.log();
    assert!(!log.contains("already in use"), "{log}");
}

/// See `tests/cases/ports-of-two-sessions-swapped`.
#[test]
fn two_sessions_swap_their_ports_in_place() {
    let world = World::converged(2);
    let links = [1, 2].map(|number| ifindex(&world.router, &interface(number)));
    let ages = world.ages();
    let mut swapped = world.sessions();
    swapped[0]["listenPort"] = 21_002.into();
    swapped[1]["listenPort"] = 21_001.into();
    world.control_plane.sessions(&swapped);
    for (number, port) in [(1, "21002"), (2, "21001")] {
        wait_until("the port is the other one's", 40, || {
            let show = format!("wg show {} listen-port", interface(number));
            contains(&world.router.inside.try_shell(&show)?, port)
        });
    }
    world.wait_polls("sessions", 3);
    world.wait_established();
    assert_eq!(world.ages(), ages, "a BGP session was reset");
    assert_eq!(
        [1, 2].map(|number| ifindex(&world.router, &interface(number))),
        links
    );
    no_error_was_reported(&world);
}

#[test]
fn new_uuids_of_the_same_peerings_reset_nothing() {
    let world = World::converged(2);
    for number in [1, 2] {
        world.wait_reported(&uuid(number), 1, "");
    }
    let links = [1, 2].map(|number| ifindex(&world.router, &interface(number)));
    let ages = world.ages();
    let mut renewed = world.sessions();
    for (number, session) in (1..).zip(&mut renewed) {
        session["uuid"] = format!("renewed-{number}").into();
        session["status"] = 4.into();
    }
    world.control_plane.sessions(&renewed);
    for number in [1, 2] {
        world.wait_reported(&format!("renewed-{number}"), 1, "");
        let link = world
            .router
            .inside
            .shell(&format!("ip link show {}", interface(number)));
        contains(&link, &format!(":renewed-{number}")).unwrap();
        world.wait_file(
            &format!("applied/sessions/{}.yaml", interface(number)),
            &format!("uid: renewed-{number}"),
        );
    }
    world.wait_polls("sessions", 3);
    assert_eq!(world.ages(), ages, "a BGP session was reset");
    assert_eq!(
        [1, 2].map(|number| ifindex(&world.router, &interface(number))),
        links
    );
    no_error_was_reported(&world);
    assert_eq!(world.metric("moenet_agent_held_changes"), 0);
}
