//! The state directory as a whole goes, comes back, and goes back in time.

use crate::lab::hands::{Untouched, document_of, mtu_exception, override_of};
use crate::lab::wait_until;
use crate::lab::world::World;

/// Removing, restoring and mounting happen beside the directory.
fn beside(world: &World, line: &str) -> String {
    world
        .router
        .inside
        .shell(&format!("cd {} && {line}", world.router.path("").display()))
}

#[test]
fn removed_state_directory_removes_nothing_and_recovers() {
    let world = World::converged(2);
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.wait_phase(2, "Established");
    world.wait_polls("sessions", 2);
    let untouched = Untouched::since_now(&world);
    // It goes on working while it is removed, so the last folder may not be empty at once.
    beside(&world, "cp -a state backup; until rm -rf state; do :; done");
    world.wait_ready(false, "is not there; nothing is removed until it is back");
    world.wait_polls("sessions", 2);
    assert!(
        !world.router.path("state").exists(),
        "nobody asked for a new one"
    );
    beside(&world, "mkdir state");
    world.wait_ready(false, "is another directory than the one that was opened");
    world.wait_polls("sessions", 2);
    assert_eq!(
        beside(&world, "ls -A state"),
        "",
        "nothing is written where the directory is not"
    );
    beside(&world, "rmdir state && mv backup state");
    world.wait_ready(true, "");
    world.wait_polls("sessions", 2);
    untouched.assert(&world);
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);

    // Everything in it removed by a careless hand: the Control Plane's documents come back, nothing goes.
    world.wait_phase(1, "Established");
    world.remove(&override_of(1));
    world.wait_mtu(1, 1420);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    let untouched = Untouched::since_now(&world);
    world.in_state("rm -rf *");
    world.wait_file(&document_of(1), "mtu: 1420");
    world.wait_file(&document_of(2), "mtu: 1420");
    world.wait_polls("sessions", 3);
    untouched.assert(&world);
    world.in_state("mkdir -p overrides/sessions");
    world.write(&override_of(1), &mtu_exception(1, 1360));
    world.wait_mtu(1, 1360);
    let log = world.log();
    let told = log.matches("state directory not usable").count();
    assert!(
        told <= 3,
        "missing, another one, and missing again while it is moved back:\n{log}"
    );
    assert!(
        log.matches("no routes are exchanged").count() <= 1,
        "a removed policy.yaml withdraws no routes; only the first start had none:\n{log}"
    );
    assert!(
        !log.contains("watch descriptor"),
        "the words of a library:\n{log}"
    );
}

#[test]
fn unmounted_state_directory_is_reported_and_recovers() {
    let mut world = World::new(1);
    beside(&world, "mkdir -p disk state && mount --bind disk state");
    world.router.start_agent();
    world.wait_established();
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    world.wait_measured();
    let untouched = Untouched::since_now(&world);
    beside(&world, "umount -l state");
    world.wait_ready(false, "is another directory than the one that was opened");
    world.control_plane.sessions(&[]);
    world.wait_polls("sessions", 3);
    assert_eq!(
        beside(&world, "ls -A state"),
        "",
        "nothing is written below the mount point"
    );
    world.control_plane.sessions(&world.sessions());
    beside(&world, "mount --bind disk state");
    world.wait_ready(true, "");
    world.wait_polls("sessions", 2);
    untouched.assert(&world);
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    assert_eq!(world.ages(), untouched.ages);
}

#[test]
fn checkout_of_older_state_resets_nothing() {
    let world = World::converged(2);
    world.wait_phase(1, "Established");
    world.wait_phase(2, "Established");
    let ages = world.ages();
    let tip = || world.git("rev-parse refs/heads/main").trim().to_owned();
    let committed = |what: &str| {
        wait_until(what, 30, || {
            let status = world.git("status --porcelain");
            if status.is_empty() {
                Ok(())
            } else {
                Err(status)
            }
        });
        tip()
    };
    let bare = committed("the first state is in the history");
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    let old = committed("the first override is in the history");
    let mut sessions = world.sessions();
    sessions[1]["mtu"] = 1400.into();
    world.control_plane.sessions(&sessions);
    world.wait_mtu(2, 1400);
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    committed("the second override is in the history");

    world.git(&format!("checkout -q {old} -- overrides"));
    world.wait_mtu(1, 1380);
    // Everything as it was, what the sync and the agent itself wrote included.
    committed("the checkout is in the history");
    world.git(&format!("checkout -q {bare} -- ."));
    world.wait_mtu(2, 1420);
    world.wait_file(&override_of(2), "edited in place");
    world.wait_file(&document_of(2), "mtu: 1400");
    committed("the older state is in the history");
    world.git(&format!("reset -q --hard {old}"));
    world.wait_polls("sessions", 3);
    world.wait_mtu(1, 1380);
    world.wait_file(&document_of(2), "mtu: 1400");
    world.in_state("rm -f overrides/sessions/*");
    world.wait_mtu(1, 1420);
    world.wait_mtu(2, 1400);
    assert_eq!(world.ages(), ages);
}
