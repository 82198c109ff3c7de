//! A Control Plane that is broken or malicious, on the running agent.

use crate::lab::control_plane::Answer;
use crate::lab::hands::Untouched;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, uuid};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// Two sessions of the Control Plane and one of the operator's own, all Established, and a tunnel of the backbone;
/// all at rest.
fn with_a_session_of_our_own() -> World {
    let mut world = World::new(3);
    world.control_plane.sessions(&world.sessions()[..2]);
    let peer = json!({"nodeId": 2, "name": "hk1", "publicKey": KeyPair::new().public});
    world
        .control_plane
        .answer("mesh", Answer::Json(json!({"peers": [peer]})));
    std::fs::create_dir_all(world.state("sessions")).unwrap();
    let third = &world.neighbours[2];
    let own = json!({
        "apiVersion": "moenet.work/v1", "kind": "BgpSession", "metadata": {"name": "friend"},
        "spec": {
            "asn": third.asn,
            "tunnel": {
                "interface": interface(3), "publicKey": third.keys.public,
                "endpoint": "192.0.2.26:51820", "listenPort": 21_003
            },
            "address": {"peerLinkLocal": third.address}
        }
    });
    world.write("sessions/friend.yaml", &own.to_string());
    world.router.start_agent();
    world.wait_established();
    wait_until("the tunnel of the backbone is there", 30, || {
        contains(&world.router.inside.try_shell("ip -o link")?, ":mesh/2")
    });
    world.wait_measured();
    world
}

#[test]
fn session_with_an_internal_uid_removes_nothing() {
    let world = with_a_session_of_our_own();
    let untouched = Untouched::since_now(&world);
    let ours = ["local/sessions/friend", "local/node/loopback", "mesh/2"];
    let impostors = (1..).zip(ours).map(|(number, uuid)| {
        let mut session = world.sessions()[0].clone();
        (session["uuid"], session["status"]) = (json!(uuid), json!(5));
        (session["interface"], session["listenPort"]) =
            (json!(format!("wg_x{number}")), json!(30_000 + number));
        session
    });
    let impostors: Vec<Value> = impostors.collect();
    world
        .control_plane
        .sessions(&[&world.sessions()[..2], &impostors].concat());
    world.wait_polls("sessions", 6);
    untouched.assert(&world);
    world.wait_log("is reserved for the agent's own objects");
}

/// Bodies that a client could choke on, each beside what makes it news.
fn bodies() -> Vec<(&'static str, Answer)> {
    let text = |body: String| Answer::Text {
        status: 200,
        kind: "application/json",
        body,
    };
    let list = |items: String| text(format!("{{\"sessions\":[{items}]}}"));
    vec![
        ("a million values", list(vec!["1"; 1_000_000].join(","))),
        ("eleven thousand items", list(vec!["{}"; 11_000].join(","))),
        ("nested without end", list("[".repeat(100_000))),
        ("more than 16 MiB", text("x".repeat(17 << 20))),
        (
            "a gzip bomb's head",
            text("\u{1f}\u{8b}\u{8}\0".repeat(1000)),
        ),
    ]
}

fn memory_peak(world: &World) -> u64 {
    // Of this agent alone: it is the only one in its process namespace.
    let status = world
        .router
        .inside
        .shell("cat /proc/$(pgrep -xo moenet-agent)/status");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn oversized_body_costs_neither_memory_nor_sessions() {
    let world = World::converged(1);
    let untouched = Untouched::since_now(&world);
    let before = memory_peak(&world);
    for (what, answer) in bodies() {
        world.control_plane.answer("sessions", answer);
        world.wait_polls("sessions", 1);
        assert!(world.router.api("", "/status").0 == 200, "after {what}");
    }
    untouched.assert(&world);
    let taken = memory_peak(&world) - before;
    assert!(taken < 64 * 1024, "{taken} KiB more at the peak");
}

#[test]
fn hostile_names_stay_separate_objects() {
    let mut world = World::new(2);
    let before = world
        .router
        .inside
        .shell("ip -o -d link show lo; ip -o -d link show u1; ip -o addr show u1");
    let mut sessions = world.sessions();
    let hostile = [
        "lo",
        "u1",
        "all",
        "default",
        "..",
        ".",
        "a/../../b",
        "wg\u{0}x",
        "wg\nx",
        "wg x",
        "-rf",
        "wg_424242100\u{b9}",
        "w\u{440}g0",
        "WG_4242421001",
    ];
    for (number, name) in (100..).zip(hostile) {
        let mut session = sessions[0].clone();
        session["uuid"] = json!(uuid(number));
        session["interface"] = json!(name);
        session["listenPort"] = json!(30_000 + number);
        session["ipv6LinkLocal"] = json!(format!("fe80::dead:{number}"));
        sessions.push(session);
    }
    let mut long = sessions[0].clone();
    (long["uuid"], long["name"]) = (json!("x".repeat(300)), json!("y".repeat(300)));
    sessions.push(long);
    for uuid in [
        "../../../etc/passwd",
        "..",
        "a/b/c",
        "\u{202e}",
        "%2e%2e%2f",
        "null",
    ] {
        sessions.push(json!({"uuid": uuid, "asn": 1, "status": 5}));
    }
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    for neighbour in &world.neighbours {
        neighbour.wait_established(60);
    }
    // Not 110: the kernel's WireGuard takes that name.
    for number in (100..110).chain(111..113) {
        wait_until("a name that is none is an ERROR", 30, || {
            match world.control_plane.reported(&uuid(number)) {
                Some((2, error)) if !error.is_empty() => Ok(()),
                other => Err(format!("{number}: {other:?}")),
            }
        });
    }
    // The same name in capitals is another name, to the kernel as to us.
    world.wait_reported(&uuid(113), 1, "");
    let after = world
        .router
        .inside
        .shell("ip -o -d link show lo; ip -o -d link show u1; ip -o addr show u1");
    assert_eq!(after, before, "what is not ours was touched");
    let safe = "find .. -path ../state/.git -prune -o -name '*[!A-Za-z0-9_.-]*' -print -o -name '*passwd' -print";
    assert_eq!(world.in_state(safe), "", "a name became a path");
}
