//! `birdc disable` of what our files define is drift; of everything else it is none of the agent's business.

use crate::lab::hands::{exception, override_of};
use crate::lab::router::{PREFIX4, Router};
use crate::lab::world::{Speaker, World, interface};
use crate::lab::{bird, contains, wait_until};
use serde_json::json;

/// Longer than two ticks, in which drift is found.
const TICKS: std::time::Duration = std::time::Duration::from_secs(25);

const SESSION: &str = "ebgp_wg_4242421001";

fn row(router: &Router, protocol: &str) -> Result<String, String> {
    let rows = router
        .bird
        .try_ask(&router.inside, &format!("show protocols \"{protocol}\""))?;
    let row = rows.lines().find(|row| row.starts_with(protocol));
    row.map(str::to_owned).ok_or(rows)
}

fn is_down(router: &Router, protocol: &str) -> bool {
    row(router, protocol).unwrap().contains(" down ")
}

fn disable(router: &Router, protocol: &str) {
    let said = router
        .bird
        .ask(&router.inside, &format!("disable \"{protocol}\""));
    assert!(said.contains("disabled"), "{said}");
}

#[track_caller]
fn wait_up(router: &Router, protocol: &str) {
    wait_until(&format!("{protocol} is enabled"), 30, || {
        let row = row(router, protocol)?;
        if row.contains(" up ") || row.contains(" start ") {
            Ok(())
        } else {
            Err(row)
        }
    });
}

fn repaired(version: &str) {
    let mut world = World::with_bird(version, 1);
    world.router.start_agent();
    world.wait_established();
    // A reload for a measured class would enable everything.
    world.wait_measured();
    world.router.kill_agent();
    world
        .router
        .start_agent_with(&["RUST_LOG=info,moenet_agent=debug"]);
    for protocol in [SESSION, "device1", "moe_kernel4", "moe_own4"] {
        let step = format!("enable BIRD protocol {protocol}");
        let plan = world.router.with_agent_stopped(|| {
            disable(&world.router, protocol);
            assert!(is_down(&world.router, protocol), "{protocol}");
            let line = format!("{} || test $? = 2", world.router.command("plan"));
            world.router.inside.shell(&line)
        });
        contains(&plan, &step).unwrap();
        wait_up(&world.router, protocol);
        world.wait_log(&step);
    }
    let log = world.router.log();
    let line = log
        .lines()
        .find(|line| line.contains(SESSION) && line.contains("disabled by a command"));
    let line = line.expect("a line that says why");
    assert!(line.contains("paused: true"), "{line}");
    world.neighbours[0].wait_established(60);
    world.neighbours[0].wait_route(PREFIX4, "AS", 60);
}

#[test]
fn disabled_protocols_are_enabled_and_told_on_bird_2_17() {
    repaired("2.17");
}

#[test]
fn disabled_protocols_are_enabled_and_told_on_bird_3_4() {
    repaired("3.4");
}

#[test]
fn disabled_protocols_are_enabled_and_told_on_bird_2_0() {
    repaired("2.0.12");
}

#[test]
fn paused_or_drained_session_stays_disabled() {
    let world = World::converged_without_polls(2);
    world.write(
        &override_of(1),
        &exception(&interface(1), "reason: work on the fibre\npaused: true"),
    );
    world.wait_phase(1, "Paused");
    disable(&world.router, SESSION);
    std::thread::sleep(TICKS);
    assert!(
        is_down(&world.router, SESSION),
        "a paused session was enabled"
    );
    world.remove(&override_of(1));
    wait_up(&world.router, SESSION);
    world.neighbours[0].wait_established(60);

    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    let other = "ebgp_wg_4242421002";
    disable(&world.router, other);
    std::thread::sleep(TICKS);
    assert!(
        is_down(&world.router, other),
        "a session was enabled in maintenance"
    );
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    wait_up(&world.router, other);
    world.neighbours[1].wait_established(60);
}

#[test]
fn session_that_bird_disabled_for_a_limit_stays_down() {
    let routes: String = (0..6)
        .map(|i| format!("route 172.21.{i}.0/24 blackhole;\n"))
        .collect();
    let says = Speaker::Bird(format!("protocol static says4 {{ ipv4;\n{routes}}}"));
    let mut world = World::with_speakers(&bird::version(), vec![says]);
    let templates = world.router.path("templates");
    std::fs::create_dir_all(&templates).unwrap();
    let session = include_str!("../../templates/session.conf").replace(
        "import limit {{ session.import_limit }} action block;",
        "import limit 3 action disable;",
    );
    assert!(session.contains("action disable"));
    std::fs::write(templates.join("session.conf"), session).unwrap();
    world
        .router
        .edit_configuration(|config| config["bird"]["templates"] = json!(templates));
    world.router.start_agent();
    wait_until("BIRD disables the session", 60, || {
        contains(&row(&world.router, SESSION)?, "limit exceeded")
    });
    std::thread::sleep(TICKS);
    assert!(is_down(&world.router, SESSION), "it was enabled");
    assert!(!world.router.log().contains("enable BIRD protocol"));
}

#[test]
fn drained_session_stays_disabled() {
    let world = World::converged_without_polls(1);
    let drained = "reason: work on the fibre\nset: {bgp: {drained: true}}";
    world.write(&override_of(1), &exception(&interface(1), drained));
    world.neighbours[0].wait_route(PREFIX4, "(65535,0)", 40);
    disable(&world.router, SESSION);
    std::thread::sleep(TICKS);
    assert!(
        is_down(&world.router, SESSION),
        "a drained session was enabled"
    );
    world.remove(&override_of(1));
    wait_up(&world.router, SESSION);
    world.neighbours[0].wait_established(60);
}

#[test]
fn disabled_internal_neighbour_is_enabled_and_told() {
    let world = World::converged(1);
    let mut policy = crate::lab::router::policy();
    policy["ibgpPeers"] = json!([
        {"nodeId": 2, "nodeName": "hk2", "loopbackIpv4": "172.23.105.178", "loopbackIpv6": "fd48:4242:420::2", "isRr": false}
    ]);
    world.control_plane.answer(
        "bird-config",
        crate::lab::control_plane::Answer::Json(policy),
    );
    wait_up(&world.router, "ibgp_hk2");
    // A reload would enable it.
    world.wait_measured();
    disable(&world.router, "ibgp_hk2");
    assert!(is_down(&world.router, "ibgp_hk2"));
    wait_up(&world.router, "ibgp_hk2");
    world.wait_log("have disabled by a command");
}

#[test]
fn nothing_of_the_operators_main_file_is_enabled() {
    let mut world = World::new(1);
    let theirs = "protocol device {}\nprotocol static theirs { ipv4; route 172.20.99.0/24 unreachable; }\n\
                  protocol kernel theirs4 { ipv4 { export none; }; }\ninclude \"moenet/main.conf\";\n";
    std::fs::write(world.router.bird.folder.join("bird.conf"), theirs).unwrap();
    world
        .router
        .edit_configuration(|config| config["bird"]["manageMainConfig"] = json!(false));
    world.router.start_agent();
    world.neighbours[0].wait_established(60);
    world.wait_measured();
    let mine = ["theirs", "theirs4", "device1"];
    for protocol in mine {
        disable(&world.router, protocol);
    }
    // The agent is at work: its own session comes back.
    disable(&world.router, SESSION);
    wait_up(&world.router, SESSION);
    std::thread::sleep(TICKS);
    for protocol in mine {
        assert!(is_down(&world.router, protocol), "{protocol} was enabled");
        assert!(
            !world
                .router
                .log()
                .contains(&format!("enable BIRD protocol {protocol}"))
        );
    }
}
