//! What the agent says of itself: every edge in the log once, and `/status` that is `ok` only when it is.

use serde_json::{Value, json};

use crate::lab::control_plane::Answer;
use crate::lab::hands::{exception, override_of};
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
fn each_edge_of_a_run_is_logged_once_with_its_cause() {
    let mut world = World::converged(1);
    let start = world.log().len();
    let object = format!("sessions/{}", interface(1));

    world.neighbours[0].ask_bird("disable moe_router");
    world.wait_log("BGP session down");
    world.neighbours[0].ask_bird("enable moe_router");
    world.wait_log("BGP session up");
    world.wait_established();

    world.router.bird.kill();
    world.wait_log("BIRD is down");
    world.router.start_bird();
    world.wait_log("BIRD is up");
    world.wait_established();

    world.control_plane.answer("mesh", refusal());
    world.wait_log("Control Plane call failed");
    world
        .control_plane
        .answer("mesh", Answer::Json(json!({"peers": []})));
    world.wait_log("Control Plane call succeeds again");

    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(6);
    let spec = format!("reason: tonight\nexpiresAt: {end}\nset: {{tunnel: {{mtu: 1380}}}}");
    world.write(&override_of(1), &exception(&interface(1), &spec));
    world.wait_log("override in effect");
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
    assert_eq!(printed.trim(), "Sync finished: 1 sessions, 0 changed");

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
        let found: Vec<_> = log.lines().filter(|line| line.contains(edge)).collect();
        // BIRD's end takes the session down a second time.
        let times = if edge.contains("BGP") { 1..=2 } else { 1..=1 };
        assert!(
            times.contains(&found.len()) && found[0].contains(cause),
            "{edge} {cause}: {found:#?}\n{log}"
        );
    }
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
fn an_item_that_never_became_a_document_is_listed_as_it_is_counted() {
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
