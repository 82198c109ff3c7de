//! Files of others among the agent's files of BIRD: valid ones stay, broken ones are quarantined.

use crate::lab::hands::{exception, override_of};
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

fn sessions(world: &World) -> PathBuf {
    world.router.path("bird/moenet/sessions")
}

#[track_caller]
fn wait_quarantined(world: &World, name: &str) {
    let (file, broken) = (
        sessions(world).join(name),
        sessions(world).join(format!("{name}.broken")),
    );
    wait_until(&format!("{name} is quarantined"), 60, || {
        match (
            std::fs::symlink_metadata(&file),
            std::fs::symlink_metadata(&broken),
        ) {
            (Err(_), Ok(_)) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
}

#[test]
fn stranger_broken_file_is_quarantined_and_a_valid_one_stays() {
    let mut world = World::converged(2);
    let ages = world.ages();
    let valid = sessions(&world).join("stranger.conf");
    let text = "protocol static stranger1 { ipv4; route 172.20.99.0/24 unreachable; }\n";
    std::fs::write(&valid, text).unwrap();
    let inode = std::fs::metadata(&valid).unwrap().ino();
    let broken = "protocol bgp stranger2 { neighbor";
    std::fs::write(sessions(&world).join("broken.conf"), broken).unwrap();
    std::fs::write(sessions(&world).join("with space.conf"), broken).unwrap();
    std::fs::create_dir(sessions(&world).join("folder.conf")).unwrap();
    std::os::unix::fs::symlink("/nowhere", sessions(&world).join("link.conf")).unwrap();
    world
        .router
        .inside
        .shell(&format!("mkfifo {}/pipe.conf", sessions(&world).display()));
    for name in [
        "broken.conf",
        "with space.conf",
        "folder.conf",
        "link.conf",
        "pipe.conf",
    ] {
        wait_quarantined(&world, name);
    }
    let kept = std::fs::read_to_string(sessions(&world).join("broken.conf.broken")).unwrap();
    assert_eq!(kept, broken);
    world.wait_log("file quarantined");
    let said = world.wait_condition("node", "BirdFilesAccepted", "False", "Quarantined");
    contains(&said, "broken.conf").unwrap();

    // Commits go on, and the valid file stays as it is.
    let set = "reason: lab\nset: {bgp: {importLimit: 77}}";
    world.write(&override_of(1), &exception(&interface(1), set));
    wait_until("BIRD has the new limit", 40, || {
        let files = format!("cat {}/*.conf", sessions(&world).display());
        contains(&world.router.inside.try_shell(&files)?, "import limit 77")
    });
    let files = format!("rm -r {}/*.broken", sessions(&world).display());
    world.router.inside.shell(&files);
    wait_until("the notice names the valid file", 60, || {
        contains(
            &world.router.api("", "/status").1,
            "moenet/sessions/stranger.conf",
        )
    });
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_accepted(1);
    assert_eq!(std::fs::read_to_string(&valid).unwrap(), text);
    assert_eq!(std::fs::metadata(&valid).unwrap().ino(), inode);
    assert_eq!(world.ages(), ages, "a session was reset");
}
