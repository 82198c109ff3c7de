//! What the agent says of itself: every edge in the log once, and `/status` that is `ok` only when it is.

use serde_json::{Value, json};

use crate::lab::backbone::{Backbone, edge};
use crate::lab::cli::agent;
use crate::lab::control_plane::Answer;
use crate::lab::hands::{exception, override_of};
use crate::lab::router::{Router, policy_with};
use crate::lab::rtr::{Roa, Rtr};
use crate::lab::watch::ifindex;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};

fn status(world: &World) -> Value {
    let (code, body) = world.router.api("", "/status");
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until `/status` has this word and this reason.
#[track_caller]
fn wait_status(world: &World, word: &str, reason: &str) {
    wait_until(&format!("status is {word}: {reason}"), 60, || {
        let status = status(world);
        let reasons = status["reasons"].to_string();
        if status["status"] == word && reasons.contains(reason) {
            Ok(())
        } else {
            Err(format!("{} {reasons}", status["status"]))
        }
    });
}

#[track_caller]
fn wait_no_reason(world: &World, reason: &str) {
    wait_until(&format!("no reason {reason}"), 60, || {
        let reasons = status(world)["reasons"].to_string();
        if reasons.contains(reason) {
            Err(reasons)
        } else {
            Ok(())
        }
    });
}

fn refusal() -> Answer {
    Answer::Refusal {
        status: 503,
        code: "INTERNAL",
        retry_after: None,
    }
}

#[test]
fn each_edge_is_logged_once_with_its_cause() {
    let mut world = World::converged(1);
    let start = world.log().len();
    let object = format!("sessions/{}", interface(1));

    // The neighbour knows it first.
    world.wait_log("BGP session up");
    world.neighbours[0].ask_bird("disable moe_router");
    world.wait_log("BGP session down");
    let down = world.log().len();
    world.neighbours[0].ask_bird("enable moe_router");
    // The session came up before, too.
    wait_until("the log says that the session is up again", 40, || {
        contains(&world.log()[down..], "BGP session up")
    });
    world.wait_established();

    world.router.bird.kill();
    world.wait_log("BIRD is down");
    let waiting = agent(&world.router, &["status"]).ended(0);
    waiting.says("waiting: node: BIRD is not running");
    waiting.says("bird.ctl");
    waiting.says("→ `systemctl start bird`, or correct bird.controlSocket");
    world.router.start_bird();
    world.wait_log("BIRD is up");
    world.wait_established();

    world.control_plane.answer("mesh", refusal());
    world.wait_log("Control Plane call failed");
    world
        .control_plane
        .answer("mesh", Answer::Json(json!({"peers": []})));
    world.wait_log("Control Plane call succeeds again");

    let spec = "reason: tonight\nset: {tunnel: {mtu: 1380}}";
    world.write(&override_of(1), &exception(&interface(1), spec));
    world.wait_log("override in effect");
    // It gets its end once it is in effect, however long that took.
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
    let spec = format!("{spec}\nexpiresAt: {end}");
    world.write(&override_of(1), &exception(&interface(1), &spec));
    world.wait_log("override expired");
    world.write(
        &override_of(1),
        &exception(&interface(1), "reason: mine\npaused: true"),
    );
    world.wait_log("pause begun");
    world.remove(&override_of(1));
    world.wait_log("pause ended");

    let index = ifindex(&world.router, &interface(1));
    world.wait_mtu(1, 1420);
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(1)));
    world.wait_log("drift repaired");
    assert_eq!(ifindex(&world.router, &interface(1)), index);

    let printed = world.router.inside.shell(&world.router.command("sync"));
    assert_eq!(printed.trim(), "Sync finished: 1 session, 0 changed");

    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    world.wait_log("router is drained");
    wait_status(&world, "degraded", "the router is drained");
    for verb in ["status", "get"] {
        let said = world.router.inside.shell(&world.router.command(verb));
        contains(&said, "drained since").unwrap();
    }
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    world.wait_log("drain ended");

    let log = world.log()[start..].to_owned();
    let lines = [
        ("WARN BGP session down", object.as_str()),
        ("INFO BIRD is up", "version"),
        ("WARN BIRD is down", "bird.ctl"),
        ("WARN Control Plane call failed", "mesh"),
        ("INFO Control Plane call succeeds again", "mesh"),
        ("INFO override in effect", "spec.tunnel.mtu: tonight"),
        ("INFO override expired", "expiresAt"),
        ("INFO pause begun", "mine"),
        ("INFO pause ended", object.as_str()),
        ("INFO drift repaired", "kernel event"),
        ("INFO sync requested", "request=1"),
        ("INFO sync finished", "sessions=1"),
        ("WARN router is drained", "maintenance stop"),
        ("INFO drain ended", "traffic"),
    ];
    for (edge, cause) in lines {
        let (level, text) = edge.split_once(' ').unwrap();
        let shown = format!(" level={level} msg=\"{text}");
        let found: Vec<_> = log.lines().filter(|line| line.contains(&shown)).collect();
        // BIRD's end takes the session down a second time.
        let times = if edge.contains("BGP") { 1..=2 } else { 1..=1 };
        assert!(
            times.contains(&found.len()) && found[0].contains(cause),
            "{edge} {cause}: {found:#?}\n{log}"
        );
    }
}

/// Waits until a line of the log has all these words.
#[track_caller]
fn wait_line(router: &Router, words: &[&str], seconds: u64) {
    wait_until(&format!("the log has a line {words:?}"), seconds, || {
        let log = router.log();
        let found = |line: &str| words.iter().all(|word| line.contains(word));
        log.lines().any(found).then_some(()).ok_or(log)
    });
}

#[track_caller]
fn assert_once(log: &str, words: &[&str]) {
    let found = log
        .lines()
        .filter(|line| words.iter().all(|word| line.contains(word)));
    assert_eq!(found.count(), 1, "{words:?}: {log}");
}

#[test]
fn lost_handshake_route_and_control_plane_log_both_edges() {
    let world = World::converged(2);
    let start = world.log().len();
    let [first, second] = [1, 2].map(|number| format!("sessions/{}", interface(number)));
    // A handshake counts as lost after 180 s; the other edges come meanwhile.
    world.neighbours[0].inside.shell("ip link set u0 down");

    let inside = &world.router.inside;
    inside.shell("ip link set cp0 down");
    wait_line(&world.router, &["WARN", "Control Plane unreachable"], 60);
    // Each is sent, also when it comes during a poll that has opened the circuit breaker.
    for _ in 0..4 {
        let failed = agent(&world.router, &["sync"]).ended(1);
        failed.says("sync failed: fetch the sessions: no answer");
    }
    inside.shell("ip link set cp0 up");
    world.router.api("", "/sync");
    wait_line(
        &world.router,
        &["INFO", "Control Plane reachable again"],
        90,
    );

    inside.shell("ip link set u2 down");
    let lost = ["WARN", "no route to the endpoint", second.as_str()];
    wait_line(&world.router, &lost, 60);
    let described = agent(&world.router, &["describe", &second]);
    described.says("NoRoute");
    inside.shell("ip link set u2 up");
    let back = ["INFO", "route to the endpoint is back", second.as_str()];
    wait_line(&world.router, &back, 60);

    let lost_handshake = ["WARN", "WireGuard handshake lost", first.as_str()];
    wait_line(&world.router, &lost_handshake, 260);
    wait_status(&world, "degraded", "HandshakeRecent=False");
    world.neighbours[0].inside.shell("ip link set u0 up");
    wait_until("the handshake is back", 120, || {
        let log = world.log()[start..].to_owned();
        let (_, after) = log
            .split_once("WireGuard handshake lost")
            .ok_or("not lost")?;
        contains(after, "WireGuard handshake established")
    });

    let log = world.log()[start..].to_owned();
    for line in [&lost[..], &back, &lost_handshake] {
        assert_once(&log, line);
    }
    assert_once(&log, &["Control Plane unreachable"]);
    assert_once(&log, &["Control Plane reachable again"]);
    world.wait_established();
}

#[test]
fn babel_neighbour_is_logged_when_lost_and_when_back() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2")]);
    backbone.mesh("jp1", "jp2");
    backbone.start();
    let babel = |backbone: &Backbone, wanted: &str| {
        wait_until(&format!("BabelAdjacent is {wanted}"), 90, || {
            let text = std::fs::read_to_string(
                backbone.at("jp1").router.path("state/status/mesh/jp2.yaml"),
            );
            let status: Value =
                moenet_agent::document::parse_value(&text.unwrap_or_default()).unwrap_or_default();
            let all = status["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            match all.iter().find(|one| one["type"] == "BabelAdjacent") {
                Some(one) if one["status"] == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    };
    babel(&backbone, "True");
    wait_until("the first one is logged", 20, || {
        contains(&backbone.at("jp1").router.log(), "Babel neighbour found")
    });
    let start = backbone.at("jp1").router.log().len();
    backbone.at_mut("jp2").router.bird.kill();
    babel(&backbone, "False");
    let router = &backbone.at("jp1").router;
    wait_line(router, &["WARN", "Babel neighbour lost", "mesh/jp2"], 20);
    backbone.at_mut("jp2").router.start_bird();
    babel(&backbone, "True");
    let router = &backbone.at("jp1").router;
    wait_until("it is logged", 20, || {
        contains(&router.log()[start..], "Babel neighbour found")
    });
    let log = router.log()[start..].to_owned();
    assert_once(&log, &["Babel neighbour lost"]);
    assert_once(&log, &["Babel neighbour found"]);
    assert!(!log.contains("WireGuard handshake lost"), "{log}");
}

#[test]
fn status_is_ok_when_everything_is_as_desired() {
    let mut world = World::new(1);
    let roas: [Roa; 2] = [
        ("172.20.1.0/24".into(), 24, 4_242_421_001),
        ("fd42:1::/48".into(), 48, 4_242_421_001),
    ];
    let rtr = Rtr::start(&world.router, 8282, &roas);
    let policy = policy_with(&json!({"rpkiServers": [rtr.server()]}));
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy));
    world.router.start_agent();
    world.wait_established();
    wait_status(&world, "ok", "null");
    agent(&world.router, &["status"]).ended(0).says(": ok, up ");
    assert_eq!(
        world.router.metric("moenet_agent_health{status=\"ok\"}"),
        Some(1.0)
    );
}

/// `/status`, `get` and the metrics count the same objects in the same words.
#[track_caller]
fn wait_same_counts(world: &World) {
    wait_until("/status, get and metrics count the same", 30, || {
        let rows = agent(&world.router, &["get", "-o", "json"]).ended(0).json();
        let mut phases = std::collections::BTreeMap::<String, u64>::new();
        let mut sessions = 0;
        for row in rows.as_array().into_iter().flatten() {
            sessions += u64::from(row["kind"] == "BgpSession");
            if let Some(phase) = row["status"]["phase"].as_str() {
                *phases.entry(phase.to_owned()).or_default() += 1;
            }
        }
        let (_, metrics) = world.router.api("", "/metrics");
        let of_phase = |phase: &str| -> f64 {
            let series = metrics.lines().filter(|line| {
                line.starts_with("moenet_agent_objects{")
                    && line.contains(&format!("phase=\"{phase}\""))
            });
            series
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        let shown = status(world);
        let same = shown["sessions"]["total"] == sessions
            && shown["phases"] == json!(phases)
            && phases
                .iter()
                .all(|(phase, count)| of_phase(phase) == *count as f64);
        same.then_some(()).ok_or(format!(
            "{} {} {sessions} {phases:?} {metrics}",
            shown["sessions"], shown["phases"]
        ))
    });
}

#[test]
fn each_row_of_the_table_of_status_degrades_and_heals() {
    let world = World::converged(1);
    wait_no_reason(&world, &interface(1));
    let shown = status(&world);
    assert_eq!(shown["bgp"], json!({"established": 1}), "{shown}");
    assert_eq!(
        (&shown["bird"]["running"], &shown["maintenance"]["enabled"]),
        (&true.into(), &false.into())
    );
    assert!(shown["bird"]["version"].is_string(), "{shown}");
    for list in ["sessions", "mesh", "config", "bird-config"] {
        assert!(
            shown["lastSync"][list]["lastSuccess"].is_string(),
            "{list}: {shown}"
        );
    }

    world
        .control_plane
        .answer("sessions", Answer::Json(json!({"peers": []})));
    wait_status(
        &world,
        "degraded",
        "fetch of sessions failed 3 times in a row",
    );
    world.control_plane.sessions(&world.sessions());
    wait_no_reason(&world, "fetch of sessions");

    world.control_plane.sessions(&[]);
    wait_status(&world, "degraded", "approve");
    assert_eq!(status(&world)["heldTotal"], 1);
    assert_eq!(world.metric("moenet_agent_held_changes"), 1);
    wait_same_counts(&world);
    world.wait_log("change held until");
    world.control_plane.sessions(&world.sessions());
    wait_no_reason(&world, "approve");

    let mut impossible = world.sessions();
    impossible[0]["mtu"] = 7.into();
    world.control_plane.sessions(&impossible);
    wait_status(&world, "degraded", "Accepted=False");
    let listed = world
        .router
        .inside
        .shell(&world.router.command("get sessions"));
    contains(&listed, "Error").unwrap();
    wait_same_counts(&world);
    world.control_plane.sessions(&world.sessions());
    wait_no_reason(&world, "Accepted=False");

    let folder = world.router.bird.folder.join("moenet");
    let aside = format!("mv {0} {0}.aside && touch {0}", folder.display());
    world.router.inside.shell(&aside);
    wait_status(&world, "failed", "BIRD's files cannot be used");
    let back = format!("rm -f {0}; mv {0}.aside {0}", folder.display());
    world.router.inside.shell(&back);
    wait_no_reason(&world, "BIRD's files cannot be used");
    world.wait_established();
}

#[test]
fn undecoded_item_is_listed_as_it_is_counted() {
    let world = World::new(1);
    let mut bad = world.sessions();
    bad[0]["asn"] = "not a number".into();
    world.control_plane.sessions(&bad);
    let mut world = world;
    world.router.start_agent();
    wait_until("it counts as an error", 40, || {
        let counts = status(&world)["sessions"].clone();
        if counts["total"] == 1 && counts["error"] == 1 {
            Ok(())
        } else {
            Err(counts.to_string())
        }
    });
    wait_until("get lists it", 20, || {
        let listed = world.router.inside.shell(&world.router.command("get"));
        contains(&listed, &interface(1))?;
        contains(&listed, "asn")
    });
    wait_same_counts(&world);
}

#[test]
fn status_stays_small_whatever_lies_in_the_directory() {
    let world = World::converged(1);
    world.in_state("for n in $(seq 2000); do echo x > sessions/junk-$n.txt; done");
    world.in_state("for n in $(seq 300); do echo '[' > sessions/broken-$n.yaml; done");
    wait_until("the files are seen", 60, || {
        contains(
            &world.router.api("", "/status").1,
            "more files with problems",
        )
    });
    let size = world.router.api("", "/status").1.len();
    assert!(size < 64 * 1024, "{size} bytes");
    world.wait_established();
}
