//! A BIRD that nobody has tried the agent with: it says so, and leaves one alone that cannot read its files.

use crate::lab::wait_until;
use crate::lab::world::World;
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

fn log(world: &World) -> String {
    std::fs::read_to_string(world.router.path("agent.log")).unwrap()
}

/// A condition of the node, one line of the log, and a note of `plan`.
#[track_caller]
fn told(world: &World, reason: &str, text: &str) {
    let why = world.wait_condition("node", "BirdSupported", "False", reason);
    assert!(why.contains(text), "{why}");
    world.wait_polls("sessions", 3);
    assert_eq!(
        log(world).matches(text).count() - log(world).matches("error=").count(),
        1,
        "{}",
        log(world)
    );
    let plan = world
        .router
        .inside
        .try_shell(&format!("{} 2>&1; true", world.router.command("plan")))
        .unwrap();
    assert!(plan.contains(text), "{plan}");
}

#[test]
fn a_bird_that_was_never_tested_is_told_of_and_used() {
    let mut world = world("3.0.1");
    world.router.start_agent();
    told(&world, "NeverTested", "never tested with BIRD 3.0.1");
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
fn a_bird_that_cannot_read_the_files_is_left_as_it_is() {
    let mut world = world("2.0.7");
    let main = world.router.bird.folder.join("bird.conf");
    let before = std::fs::read_to_string(&main).unwrap();
    world.router.start_agent();
    told(&world, "TooOld", "BIRD 2.0.7 cannot read");
    assert_eq!(std::fs::read_to_string(&main).unwrap(), before);
    assert!(!world.router.bird.folder.join("moenet").exists());
}
