//! A disk without room, and one that is read-only.

use crate::lab::hands::{Untouched, mtu_exception, override_of};
use crate::lab::world::World;

/// A router whose state directory is a disk of its own, of two megabytes.
fn on_a_small_disk() -> World {
    let mut world = World::new(1);
    let state = world.router.path("state").display().to_string();
    world.router.inside.shell(&format!(
        "mkdir -p {state} && mount -t tmpfs -o size=2m small {state}"
    ));
    world.router.start_agent();
    world.wait_established();
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.wait_phase(1, "Established");
    world.wait_measured();
    world.wait_polls("sessions", 3);
    world
}

/// The Control Plane changes a session, and adds one that nobody answers.
fn changed(world: &World) -> Vec<serde_json::Value> {
    let mut sessions = world.sessions();
    let mut second = sessions[0].clone();
    second["uuid"] = crate::lab::world::uuid(7).into();
    second["interface"] = crate::lab::world::interface(7).into();
    second["listenPort"] = 29_999.into();
    second["ipv6LinkLocal"] = "fe80::7:7".into();
    sessions[0]["description"] = "changed".into();
    sessions.push(second);
    sessions
}

fn nothing_happens_and_all_goes_on(mut world: World, spoil: &str, notice: &str, mend: &str) {
    let untouched = Untouched::since_now(&world);
    world.in_state(spoil);
    world.control_plane.sessions(&changed(&world));
    world.wait_ready(false, notice);
    world.wait_log(notice);
    assert_eq!(world.metric("moenet_agent_state_broken"), 1);
    world.wait_polls("sessions", 3);
    untouched.assert(&world);
    let lines = world
        .log()
        .lines()
        .filter(|line| line.contains(notice))
        .count();
    assert!(
        lines <= 2,
        "it is said once, not at every poll:\n{}",
        world.log()
    );

    // An editor on such a disk leaves an empty file, if it leaves one; and the agent starts all the same.
    let _ = world.router.inside.try_shell(&format!(
        "cd {}; echo x > {}",
        world.router.path("state").display(),
        override_of(1)
    ));
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_ready(false, notice);
    world.wait_polls("sessions", 2);
    untouched.assert_across_restart(&world);
    world.wait_mtu(1, 1380);

    world.in_state(mend);
    world.wait_ready(true, "");
    world.wait_file("sessions/wg_4242421001.yaml", "description: changed");
    crate::lab::wait_until("the new session is there", 40, || world.has_link(7));
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    world.wait_phase(1, "Established");
    assert_eq!(world.metric("moenet_agent_state_broken"), 0);
    assert_eq!(world.ages(), untouched.ages);
    crate::lab::wait_until("the history goes on", 60, || {
        crate::lab::contains(&world.git(&format!("log -p -- {}", override_of(1))), "1340")
    });
}

#[test]
fn full_disk_is_reported_and_keeps_last_good_state() {
    let fill = "cat /dev/zero > ballast 2>/dev/null; for n in 1 2 3; do head -c 100 /dev/zero > b$n; done 2>/dev/null; true";
    nothing_happens_and_all_goes_on(
        on_a_small_disk(),
        fill,
        "The disk is full",
        "rm -f ballast b1 b2 b3",
    );
}

#[test]
fn read_only_disk_is_reported_and_keeps_last_good_state() {
    // The agent has its lock open for writing, by which a plain remount is refused; a disk with errors is not.
    let spoil = "mount --bind $PWD $PWD && cd $PWD && mount -o remount,bind,ro $PWD";
    let mend = "umount -l $PWD";
    nothing_happens_and_all_goes_on(on_a_small_disk(), spoil, "read-only", mend);
}
