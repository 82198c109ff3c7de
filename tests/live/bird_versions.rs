//! A BIRD that nobody has tried the agent with: it says so, and leaves one alone that cannot read its files.

use crate::lab::control_plane::Answer;
use crate::lab::hands::condition;
use crate::lab::wait_until;
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, uuid};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;

/// A world whose installed BIRD, which does not run, says that it is of this version.
fn world(version: &str) -> World {
    let mut world = World::new(1);
    world.router.bird.kill();
    let (real, program) = (world.router.bird.program(), world.router.path("claims"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'BIRD version {version}' >&2 && exit\nexec {} \"$@\"\n",
        real.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    world
        .router
        .edit_configuration(|config| config["bird"]["binary"] = json!(program));
    world
}

/// A condition of the node, one line of the log, and a note of `plan`.
#[track_caller]
fn told(world: &World, reason: &str, text: &str) {
    let why = world.wait_condition("node", "BirdSupported", "False", reason);
    assert!(why.contains(text), "{why}");
    world.wait_log("BIRD version not supported");
    world.wait_polls("sessions", 3);
    let log = world.log();
    let told = |line: &&str| line.contains("BIRD version not supported") && line.contains(text);
    assert_eq!(log.lines().filter(told).count(), 1, "{log}");
    let plan = world
        .router
        .inside
        .try_shell(&format!("{} 2>&1; true", world.router.command("plan")))
        .unwrap();
    assert!(plan.contains(text), "{plan}");
}

#[test]
fn untested_bird_is_reported_and_used() {
    let mut world = world("3.0.1");
    world.router.start_agent();
    told(
        &world,
        "NeverTested",
        "BIRD 3.0.1 was never tested with this agent",
    );
    let files = world
        .router
        .bird
        .folder
        .join("moenet/sessions/wg_4242421001.conf");
    wait_until("its files are written", 30, || {
        if files.exists() {
            Ok(())
        } else {
            Err(format!("no {}", files.display()))
        }
    });
    // The one that runs in the end is of another version, and good; the program that checks is not it.
    world.router.start_bird();
    let why = world.wait_condition("node", "BirdSupported", "False", "VersionMismatch");
    for word in ["3.0.1", "restart BIRD", "bird.binary"] {
        assert!(why.contains(word), "no {word:?} in {why}");
    }
    // The upgrade of the program is undone.
    let real = world.router.bird.program();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", real.display());
    std::fs::write(world.router.path("claims"), script).unwrap();
    world.wait_condition("node", "BirdSupported", "True", "Tested");
    world.wait_established();
}

#[test]
fn parser_of_another_version_is_named_as_the_cause() {
    let mut world = World::new(1);
    let (real, program) = (world.router.bird.program(), world.router.path("claims"));
    // It reads the copy that is checked as a version would that does not know a word of it.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'BIRD version 3.0.1' >&2 && exit\n\
         for word; do [ \"$last\" = -c ] && echo 'nonsense;' >> \"$word\"; last=$word; done\n\
         exec {} \"$@\"\n",
        real.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    world
        .router
        .edit_configuration(|config| config["bird"]["binary"] = json!(program));
    world.router.start_agent();
    wait_until("the versions are named", 60, || {
        let status = world.status("node");
        for word in [
            "is BIRD 3.0.1",
            "the running daemon is BIRD 2.17",
            "bird.binary",
        ] {
            crate::lab::contains(&condition(&status, "BirdConfigured").to_string(), word)?;
        }
        Ok(())
    });
    world.wait_log("BIRD configuration not loaded");
    world.wait_polls("sessions", 3);
    let log = world.log();
    assert_eq!(
        log.matches("BIRD configuration not loaded").count(),
        1,
        "{log}"
    );
    let reported = world.control_plane.reported(&uuid(1));
    assert!(
        reported.is_none_or(|(status, _)| status != 2),
        "syntax errors are no ERROR of a session"
    );
}

#[test]
fn too_old_bird_is_left_unchanged() {
    let mut world = world("2.0.7");
    let main = world.router.bird.folder.join("bird.conf");
    let before = std::fs::read_to_string(&main).unwrap();
    world.router.start_agent();
    told(&world, "TooOld", "BIRD 2.0.7 cannot read");
    assert_eq!(std::fs::read_to_string(&main).unwrap(), before);
    assert!(!world.router.bird.folder.join("moenet").exists());
}

#[test]
fn bird_without_ipv4_over_babel_names_the_unreachable_loopback() {
    let mut world = World::with_bird("2.0.12", 1);
    let peer = json!({
        "nodeId": 2, "name": "hk1", "endpoint": "198.51.100.2:1", "publicKey": KeyPair::new().public,
        "loopbackIpv6": "fd48:4242:420::2"
    });
    world
        .control_plane
        .answer("mesh", Answer::Json(json!({"peers": [peer]})));
    world.router.start_agent();
    let why = world.wait_condition("node", "BirdSupported", "False", "NoIpv4OnMesh");
    for word in ["BIRD 2.0.12", "172.23.105.177", "2.13", "upgrade BIRD"] {
        assert!(why.contains(word), "no {word:?} in {why}");
    }
    wait_until("it is logged", 20, || {
        let log = world.log();
        let told =
            |line: &str| line.contains("BIRD version not supported") && line.contains("2.13");
        log.lines().any(told).then_some(()).ok_or(log)
    });
    world.wait_established();
}
