//! The local API: every endpoint, every error.

use crate::lab::hands::{exception, override_of};
use crate::lab::wait_until;
use crate::lab::watch::ifindex;
use crate::lab::world::{World, interface};
use serde_json::{Value, json};

#[track_caller]
fn expect_error(world: &World, arguments: &str, path: &str, code: u16, name: &str) {
    let (found, body) = world.router.api(arguments, path);
    let error: Value =
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {found} not JSON: {body}"));
    assert_eq!(
        (found, error["code"].as_str()),
        (code, Some(name)),
        "{arguments} {path}: {body}"
    );
    assert!(
        error["error"].as_str().is_some_and(|text| !text.is_empty()),
        "{path}: no text in {body}"
    );
}

fn restart(interface: &str) -> String {
    format!(r#"-X POST -H 'Content-Type: application/json' -d '{{"interface":"{interface}"}}'"#)
}

#[test]
fn status_has_every_field_of_the_contract() {
    let world = World::converged(2);
    wait_until("both sessions count as active", 20, || {
        let (code, body) = world.router.api("", "/status");
        assert_eq!(code, 200);
        let status: Value = serde_json::from_str(&body).unwrap();
        for field in [
            "status",
            "version",
            "commit",
            "uptime",
            "node",
            "sessions",
            "circuitBreaker",
        ] {
            assert!(!status[field].is_null(), "no {field} in {body}");
        }
        assert_eq!(
            (&status["node"]["id"], &status["node"]["name"]),
            (&1.into(), &"jp1".into())
        );
        let counts =
            ["total", "active", "error", "pending"].map(|name| status["sessions"][name].as_u64());
        if counts == [Some(2), Some(2), Some(0), Some(0)] {
            Ok(())
        } else {
            Err(body)
        }
    });
    let (code, metrics) = world.router.api("", "/metrics");
    assert_eq!(code, 200);
    assert!(
        metrics.contains(r#"moenet_agent_sessions_total{status="active"} 2"#),
        "{metrics}"
    );
}

#[test]
fn sync_fetches_at_once() {
    let mut world = World::new(1);
    world.router.configure(&world.control_plane.url, 3600);
    world.router.start_agent();
    world.wait_established();
    let before = world.control_plane.asked("sessions");
    let (code, body) = world.router.api("", "/sync");
    assert_eq!(
        (code, serde_json::from_str(&body).unwrap()),
        (200, json!({"status": "sync_triggered"}))
    );
    wait_until("the sessions are fetched", 5, || {
        let asked = world.control_plane.asked("sessions");
        if asked > before {
            Ok(())
        } else {
            Err(format!("asked {asked} times"))
        }
    });
}

#[test]
fn restart_makes_exactly_that_interface_again() {
    let world = World::converged(2);
    let (first, second) = (
        ifindex(&world.router, &interface(1)),
        ifindex(&world.router, &interface(2)),
    );
    let (code, body) = world.router.api(&restart(&interface(1)), "/restart");
    assert_eq!(code, 200, "{body}");
    assert_ne!(ifindex(&world.router, &interface(1)), first);
    assert_eq!(ifindex(&world.router, &interface(2)), second);
    world.wait_established();
}

#[test]
fn restart_of_a_paused_session_does_nothing_and_says_so() {
    let world = World::converged(1);
    let index = ifindex(&world.router, &interface(1));
    world.write(
        &override_of(1),
        &exception(&interface(1), "reason: hands off\npaused: true"),
    );
    world.wait_phase(1, "Paused");
    let (code, body) = world.router.api(&restart(&interface(1)), "/restart");
    assert_eq!((code, body.contains("is paused")), (500, true), "{body}");
    assert_eq!(ifindex(&world.router, &interface(1)), index);
    world.remove(&override_of(1));
    world.wait_phase(1, "Established");
    assert_eq!(world.router.api(&restart(&interface(1)), "/restart").0, 200);
    assert_ne!(ifindex(&world.router, &interface(1)), index);
}

#[test]
fn every_error_has_its_status_and_code() {
    let world = World::converged(1);
    expect_error(&world, "", "/nonsense", 404, "NOT_FOUND");
    expect_error(&world, "-X DELETE", "/status", 405, "METHOD_NOT_ALLOWED");
    expect_error(
        &world,
        "-X POST -H 'Content-Type: application/json' -d '{'",
        "/restart",
        400,
        "BAD_REQUEST",
    );
    expect_error(
        &world,
        "-X POST -H 'Content-Type: application/json' -d '{}'",
        "/restart",
        400,
        "BAD_REQUEST",
    );
    expect_error(
        &world,
        &restart("wg_404"),
        "/restart",
        404,
        "SESSION_NOT_FOUND",
    );
    let big = "-X POST -H 'Content-Type: application/json' --data-binary @/dev/stdin";
    let line = format!(
        "head -c 20000000 /dev/zero | curl -s -o /dev/null -w '%{{http_code}}' {big} http://127.0.0.1:24368/restart"
    );
    assert_eq!(world.router.inside.shell(&line), "413");
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    expect_error(&world, "", "/sync", 503, "MAINTENANCE_MODE");
    expect_error(
        &world,
        &restart(&interface(1)),
        "/restart",
        503,
        "MAINTENANCE_MODE",
    );
}

#[test]
fn a_hostile_restart_argument_reaches_neither_bird_nor_the_kernel() {
    let world = World::converged(1);
    for argument in ["all", r"x\ndown", "lo", "u1", "*"] {
        let (code, body) = world.router.api(&restart(argument), "/restart");
        assert!(code == 404 || code == 400, "{argument}: {code} {body}");
    }
    world.wait_established();
}

#[test]
fn calls_beyond_the_rate_are_told_when_to_come_again() {
    let world = World::converged(1);
    // One client and one connection, so that a slow machine is fast enough.
    let many = "curl -s -D - -o /dev/null 'http://127.0.0.1:24368/sync?[1-300]'";
    let headers = world.router.inside.shell(many).to_lowercase();
    assert!(
        headers.contains(" 200 ") && headers.contains(" 429 "),
        "{headers}"
    );
    assert!(headers.contains("retry-after: 1\r"), "{headers}");
    let (code, body) = world.router.api("", "/sync");
    assert!(
        code == 200 || body.contains("RATE_LIMITED"),
        "{code} {body}"
    );
    assert_eq!(
        world.router.api("", "/status").0,
        200,
        "looking is not limited"
    );
    world.wait_established();
}

#[test]
fn with_a_token_everything_but_the_health_wants_it() {
    let mut world = World::new(1);
    world
        .router
        .reconfigure(|config| config["server"]["token"] = "s3cret-of-the-api".into());
    world.router.start_agent();
    for path in ["/status", "/sync", "/metrics", "/maintenance", "/nonsense"] {
        expect_error(&world, "", path, 401, "INVALID_TOKEN");
        expect_error(
            &world,
            "-H 'Authorization: Bearer s3cret'",
            path,
            401,
            "INVALID_TOKEN",
        );
    }
    expect_error(
        &world,
        "-X POST",
        "/maintenance/start",
        401,
        "INVALID_TOKEN",
    );
    let right = "-H 'Authorization: Bearer s3cret-of-the-api'";
    assert_eq!(world.router.api(right, "/status").0, 200);
    assert_eq!(world.router.api("", "/healthz").0, 200);
    // The command line reads the token from the configuration.
    let status = world.router.inside.shell(&world.router.command("status"));
    assert!(status.contains("jp1"), "{status}");
    assert!(
        !world.router.log().contains("s3cret"),
        "the token is in the log"
    );
}

#[test]
fn public_listen_address_needs_a_token() {
    let mut world = World::new(1);
    world
        .router
        .reconfigure(|config| config["server"]["listen"] = ":24368".into());
    world.router.spawn_agent(&[]);
    wait_until("the agent ends", 30, || {
        if world.router.agent_runs() {
            Err("runs".into())
        } else {
            Ok(())
        }
    });
    assert!(
        world.router.log().contains("server.token"),
        "{}",
        world.router.log()
    );
    assert!(
        !world
            .router
            .inside
            .shell("ip -o link")
            .contains(&interface(1)),
        "it has begun all the same"
    );
}

#[test]
fn api_unix_socket_is_open_to_its_group_only() {
    let mut world = World::new(1);
    let socket = world.router.path("api.sock").display().to_string();
    world
        .router
        .reconfigure(|config| config["server"]["listen"] = format!("unix:{socket}").into());
    world.router.spawn_agent(&[]);
    let status = format!("curl -sf --unix-socket {socket} http://localhost/status");
    wait_until("the API answers", 30, || {
        world.router.inside.try_shell(&status).map(|_| ())
    });
    assert_eq!(
        world
            .router
            .inside
            .shell(&format!("stat -c %a {socket}"))
            .trim(),
        "660"
    );
    assert!(
        world
            .router
            .inside
            .try_shell("curl -s http://127.0.0.1:24368/status")
            .is_err(),
        "on TCP too"
    );
    assert!(
        world
            .router
            .inside
            .shell(&world.router.command("status"))
            .contains("jp1")
    );
    // A socket that a killed agent left behind is in nobody's way.
    world.router.kill_agent();
    world.router.spawn_agent(&[]);
    wait_until("the API answers again", 30, || {
        world.router.inside.try_shell(&status).map(|_| ())
    });
    world.wait_established();
}
