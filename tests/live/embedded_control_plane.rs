//! The embedded Control Plane over a fleet directory, with a real agent as its client.

use crate::lab::namespace::Process;
use crate::lab::router::{self, agent_program};
use crate::lab::watch::{NetlinkEvents, session_ages};
use crate::lab::world::{World, uuid};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};
use std::path::Path;

const LISTEN: &str = "127.0.0.1:8080";

fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}

/// Writes a fleet of one router and serves it inside the router's namespace.
fn serve(world: &World) -> Process {
    serve_on(world, LISTEN)
}

fn serve_on(world: &World, listen: &str) -> Process {
    let folder = world.router.path("fleet/jp1");
    std::fs::create_dir_all(&folder).unwrap();
    let mut router = router::node();
    router["token"] = "lab-token".into();
    write(&folder, "router.yaml", &router);
    write(
        &folder,
        "sessions.yaml",
        &json!({"sessions": world.sessions()}),
    );
    write(&folder, "mesh.yaml", &json!({"peers": []}));
    let mut policy = router::policy();
    policy.as_object_mut().unwrap().remove("configHash");
    write(&folder, "bird-config.yaml", &policy);
    let fleet = world.router.path("fleet").display().to_string();
    let options = ["--insecure-listen", "--listen", listen];
    let arguments = [&["control-plane", "--fleet", &fleet][..], &options].concat();
    let process = world.router.inside.spawn(
        &world.router.path("fleet.log"),
        &agent_program(),
        &arguments,
    );
    wait_until("the embedded Control Plane answers", 10, || {
        world
            .router
            .inside
            .try_shell(&format!("curl -s http://{LISTEN}/"))
            .map(|_| ())
    });
    // A token that is wrong within a second of the file's writing may be half of one, and is no 401.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    process
}

#[track_caller]
fn ask(world: &World, arguments: &str, path: &str) -> (u16, Value) {
    let line = format!("curl -s -m 10 -w '\\n%{{http_code}}' {arguments} http://{LISTEN}{path}");
    let text = world.router.inside.shell(&line);
    let (body, code) = text.rsplit_once('\n').unwrap();
    let body =
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {code} not JSON: {body}"));
    (code.trim().parse().unwrap(), body)
}

#[test]
fn fleet_directory_drives_a_router_and_follows_edits() {
    let mut world = World::new(1);
    let _serving = serve(&world);
    world.router.configure(&format!("http://{LISTEN}"), 1);
    world.router.start_agent();
    world.wait_established();
    let reported = world
        .router
        .path("fleet/jp1/reported")
        .display()
        .to_string();
    wait_until("modify has arrived", 20, || {
        contains(
            &world
                .router
                .inside
                .try_shell(&format!("cat $(find {reported} -type f)"))?,
            &uuid(1),
        )
    });
    let mut sessions = world.sessions();
    sessions[0]["mtu"] = 1400.into();
    write(
        &world.router.path("fleet/jp1"),
        "sessions.yaml",
        &json!({ "sessions": sessions }),
    );
    wait_until("the edit is in the kernel", 20, || {
        contains(
            &world
                .router
                .inside
                .try_shell("ip link show wg_4242421001")?,
            "mtu 1400",
        )
    });
}

#[test]
fn the_embedded_control_plane_answers_errors_as_the_reference_says() {
    let world = World::new(1);
    let _serving = serve(&world);
    let token = "-H 'Authorization: Bearer lab-token'";
    let post = format!("{token} -X POST -H 'Content-Type: application/json'");
    let unknown = format!(r#"{post} -d '{{"uuid":"none","status":1,"error":null}}'"#);
    let cases = [
        ("", "/agent/jp1/sessions", 401, "INVALID_TOKEN"),
        (
            "-H 'Authorization: Bearer wrong'",
            "/agent/jp1/sessions",
            401,
            "INVALID_TOKEN",
        ),
        (token, "/agent/nowhere/sessions", 404, "ROUTER_NOT_FOUND"),
        (&unknown, "/agent/jp1/modify", 404, "SESSION_NOT_FOUND"),
        (
            &format!("{post} -d '{{'"),
            "/agent/jp1/modify",
            400,
            "BAD_REQUEST",
        ),
    ];
    for (arguments, path, code, name) in cases {
        let (found, body) = ask(&world, arguments, path);
        assert_eq!(
            (found, body["code"].as_str()),
            (code, Some(name)),
            "{arguments} {path}: {body}"
        );
    }
    for (endpoint, key) in [
        ("sessions", "sessions"),
        ("mesh", "peers"),
        ("config", "node"),
        ("bird-config", "policy"),
    ] {
        let (code, body) = ask(&world, token, &format!("/agent/jp1/{endpoint}"));
        assert_eq!(
            (code, body[key].is_null()),
            (200, false),
            "{endpoint}: {body}"
        );
    }
}

fn breaker(world: &World) -> Result<String, String> {
    let status: Value = serde_json::from_str(&world.router.api("", "/status").1).unwrap();
    Ok(status["circuitBreaker"]
        .as_str()
        .ok_or("no breaker")?
        .to_owned())
}

#[test]
fn what_it_refuses_or_cannot_read_leaves_everything_in_effect() {
    let mut world = World::new(1);
    let _serving = serve(&world);
    world.router.configure(&format!("http://{LISTEN}"), 1);
    world.router.start_agent();
    world.wait_established();
    let folder = world.router.path("fleet/jp1");
    let good = std::fs::read_to_string(folder.join("sessions.yaml")).unwrap();
    let (events, before) = (
        NetlinkEvents::record(&world.router),
        session_ages(&world.router),
    );
    // A file in the middle of an edit is an error with its place, and no empty list.
    std::fs::write(folder.join("sessions.yaml"), "sessions:\n  - {uuid: [\n").unwrap();
    wait_until("the agent has heard the error", 30, || {
        contains(
            &world.router.log(),
            "Control Plane call failed, keeping the current configuration",
        )
    });
    let (code, body) = ask(
        &world,
        "-H 'Authorization: Bearer lab-token'",
        "/agent/jp1/sessions",
    );
    assert_eq!(
        (code, body["code"].as_str()),
        (500, Some("INTERNAL")),
        "{body}"
    );
    contains(body["error"].as_str().unwrap(), "jp1/sessions.yaml:").unwrap();
    std::fs::write(folder.join("sessions.yaml"), good).unwrap();
    // An operator at work: 503 to everything, and the breaker opens and closes.
    std::fs::write(folder.join("maintenance"), "").unwrap();
    let (code, body) = ask(
        &world,
        "-H 'Authorization: Bearer lab-token'",
        "/agent/jp1/config",
    );
    assert_eq!(
        (code, body["code"].as_str()),
        (503, Some("MAINTENANCE_MODE")),
        "{body}"
    );
    wait_until("the breaker opens", 90, || {
        contains(&breaker(&world)?, "open")
    });
    std::fs::remove_file(folder.join("maintenance")).unwrap();
    wait_until("the breaker closes", 90, || {
        contains(&breaker(&world)?, "closed")
    });
    assert_eq!(events.seen(), Vec::<String>::new(), "netlink events");
    assert_eq!(session_ages(&world.router), before, "a session was reset");
}

#[test]
fn token_guessing_is_slowed_and_the_router_still_served() {
    let world = World::new(1);
    let _serving = serve(&world);
    let many = format!(
        "curl -s -D - -o /dev/null -H 'Authorization: Bearer x' 'http://{LISTEN}/agent/jp1/sessions?[1-300]'"
    );
    let headers = world.router.inside.shell(&many).to_lowercase();
    assert!(
        headers.contains(" 401 ")
            && headers.contains(" 429 ")
            && headers.contains("retry-after: 1\r")
    );
    let (code, body) = ask(
        &world,
        "-H 'Authorization: Bearer lab-token'",
        "/agent/jp1/sessions",
    );
    assert_eq!(
        (code, body["sessions"].as_array().map(Vec::len)),
        (200, Some(1)),
        "{body}"
    );
}

/// Connections that say nothing, from a host of their own.
fn strangers(world: &World, neighbour: usize, count: u32) -> Process {
    let inside = &world.neighbours[neighbour].inside;
    let address = format!("192.0.2.{}", 8 * (neighbour + 1) + 1);
    let folder = world.neighbours[neighbour].folder.path();
    let opened = folder.join("opened");
    let script = format!(
        "for i in $(seq {count}); do exec {{fd}}<>/dev/tcp/{address}/8080 || exit 1; done; echo x > {}; sleep 300",
        opened.display()
    );
    let process = inside.spawn(
        &folder.join("strangers.log"),
        Path::new("bash"),
        &["-c", &script],
    );
    wait_until("the idle connections are open", 60, || {
        match opened.exists() {
            true => Ok(()),
            false => Err("not yet".into()),
        }
    });
    process
}

#[test]
fn idle_strangers_delay_no_router_and_the_server_stops_cleanly() {
    let world = World::new(2);
    let mut serving = serve_on(&world, "0.0.0.0:8080");
    let _strangers = strangers(&world, 0, 385);
    let count = "ss -Htn state established sport = :8080 | grep -c 192.0.2.10";
    let served: u32 = world.router.inside.shell(count).trim().parse().unwrap();
    assert!((1..=32).contains(&served), "{served} of one address");
    // A router elsewhere, whose calls each fit into the time of one.
    let call = "curl -sf -m 5 -H 'Authorization: Bearer lab-token' http://192.0.2.17:8080/agent/jp1/sessions";
    for _ in 0..20 {
        let said = world.neighbours[1].inside.shell(call);
        contains(&said, &uuid(1)).unwrap();
    }
    serving.signal("-TERM");
    wait_until("it ends", 6, || match serving.is_running() {
        true => Err("it runs".into()),
        false => Ok(()),
    });
    assert_eq!(serving.code(), Some(0));
}

#[test]
fn bad_item_and_its_recovery_are_logged_once() {
    let mut world = World::new(1);
    let folder = world.router.path("fleet/jp1");
    for left in ["reported", "reported/sessions", "reported/good"] {
        std::fs::create_dir_all(folder.join(left)).unwrap();
        std::fs::write(folder.join(left).join(".moenet-tmp-x1"), "half").unwrap();
    }
    let _serving = serve(&world);
    let left = format!("find {} -name '.moenet-tmp-*'", folder.display());
    assert_eq!(world.router.inside.shell(&left), "", "swept at the start");
    world.router.configure(&format!("http://{LISTEN}"), 1);
    world.router.start_agent();
    world.wait_established();
    let ages = session_ages(&world.router);
    let mut sessions = world.sessions();
    sessions[0]["mtuu"] = 1400.into();
    sessions[0]["mtu"] = 1300.into();
    let text = serde_json::to_string_pretty(&json!({ "sessions": sessions })).unwrap();
    std::fs::write(folder.join("sessions.yaml"), text).unwrap();
    let log = || std::fs::read_to_string(world.router.path("fleet.log")).unwrap();
    let error = "fleet file has an error; serving the last valid version of this item";
    wait_until("the error is logged", 20, || contains(&log(), error));
    let polls = world.router.path("fleet/jp1/reported");
    assert!(polls.exists());
    std::thread::sleep(std::time::Duration::from_secs(4));
    let logged = log();
    let lines: Vec<_> = logged.lines().filter(|line| line.contains(error)).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    contains(lines[0], "sessions.yaml:").unwrap();
    contains(lines[0], "mtuu").unwrap();
    world.wait_mtu(1, 1420);
    write(
        &folder,
        "sessions.yaml",
        &json!({"sessions": world.sessions()}),
    );
    wait_until("the end of the error is logged", 20, || {
        contains(&log(), "fleet file is valid again")
    });
    assert_eq!(session_ages(&world.router), ages);
}
