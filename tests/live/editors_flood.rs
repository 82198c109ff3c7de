//! More events than anybody can hear, and none at all.

use crate::lab::cli::agent;
use crate::lab::hands::{Untouched, mtu_exception, override_of};
use crate::lab::router::agent_program;
use crate::lab::wait_until;
use crate::lab::world::{World, interface};

#[test]
fn thousands_of_file_changes_delay_no_session_or_edit() {
    let world = World::converged(1);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    let untouched = Untouched::since_now(&world);
    world
        .in_state("for n in $(seq 200); do : > sessions/empty$n.yaml; : > mesh/empty$n.yaml; done");
    for number in 1..=3000 {
        let text = mtu_exception(1, 1300).replace(&interface(1), &format!("nobody{number}"));
        world.write(&format!("overrides/sessions/nobody{number}.yaml"), &text);
    }
    // `/status` names some of them and counts the others; `get` lists them all.
    wait_until("the empty ones are named", 60, || {
        crate::lab::contains(&world.router.api("", "/status").1, "empty1.yaml")
    });
    let listed = agent(&world.router, &["get", "-o", "json"]);
    assert!(listed.out.contains("empty200"), "{}", listed.out);
    wait_until(
        "the history has what nobody could hear of one by one",
        60,
        || {
            crate::lab::contains(
                &world.git("ls-tree -r --name-only main overrides"),
                "nobody3000.yaml",
            )
        },
    );
    untouched.assert(&world);
    world.write(&override_of(1), &mtu_exception(1, 1380));
    world.wait_mtu(1, 1380);
    world.in_state("rm -f overrides/sessions/nobody* sessions/empty* mesh/empty*");
    wait_until("they are forgotten", 60, || {
        let status = world.router.api("", "/status").1;
        if status.contains("empty") {
            Err(status)
        } else {
            Ok(())
        }
    });
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    assert_eq!(world.ages(), untouched.ages);
}

#[test]
fn an_edit_is_found_though_the_kernel_dropped_its_event() {
    let world = World::converged(1);
    world.wait_phase(1, "Established");
    world.wait_polls("sessions", 2);
    let ages = world.ages();
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let many: u32 = limit.trim().parse().unwrap();
    // While the agent stands still its queue fills up, and the last event of all is of the edit.
    world.router.while_agent_stands_still(|| {
        world.in_state(&format!(
            "i=0; while [ $i -lt {many} ]; do : > sessions/a~; : > sessions/b~; i=$((i+2)); done; rm sessions/?~"
        ));
        world.write(&override_of(1), &mtu_exception(1, 1380));
    });
    world.wait_mtu(1, 1380);
    world.write(&override_of(1), &mtu_exception(1, 1340));
    world.wait_mtu(1, 1340);
    wait_until("the history has both, or the later one", 30, || {
        crate::lab::contains(&world.git(&format!("log -p -- {}", override_of(1))), "1340")
    });
    assert_eq!(world.ages(), ages);
}

/// What the agent needs of root's powers.
const CAPS: &str = "+net_admin,+net_raw,+net_bind_service,+dac_override,+fowner,+chown";
/// A user that nothing else on this machine runs as, another run of these tests included: the kernel counts
/// instances by user, so that nobody else misses those that are taken (measured: with all 128 of one user
/// taken, another has its own 128).
fn nobody_else() -> u32 {
    2_000_000_000 + std::process::id()
}

#[test]
fn edit_is_found_without_inotify_watches_and_watches_return() {
    let (world, user) = (World::new(1), nobody_else());
    let become_user =
        format!("setpriv --reuid {user} --clear-groups --inh-caps {CAPS} --ambient-caps {CAPS}");
    let hog = "import ctypes, time; inotify = ctypes.CDLL(None).inotify_init\nwhile inotify() >= 0: pass\n\
               print('full', flush=True); time.sleep(600)";
    std::fs::write(world.router.path("hog.py"), hog).unwrap();
    let folder = world.router.path("").display().to_string();
    world
        .router
        .inside
        .shell(&format!("mkdir {folder}/state; chown -R {user} {folder}"));
    let start = |log: &str, line: &str| {
        let line = format!("exec {become_user} {line}");
        world
            .router
            .inside
            .spawn(&world.router.path(log), "sh".as_ref(), &["-c", &line])
    };
    let hog = start("hog.log", &format!("python3 {folder}/hog.py"));
    wait_until("no inotify instance is left", 20, || {
        let log = std::fs::read_to_string(world.router.path("hog.log")).unwrap_or_default();
        crate::lab::contains(&log, "full")
    });
    let _agent = start(
        "agent.log",
        &format!(
            "{} --config {folder}/config.yaml run",
            agent_program().display()
        ),
    );
    world.wait_log("inotify does not watch the state directory");
    // WireGuard in userspace wants one too, and has the same user.
    drop(hog);
    world.wait_established();
    let ages = world.ages();
    for mtu in [1380, 1340, 1300] {
        world.write(&override_of(1), &mtu_exception(1, mtu));
        world.wait_mtu(1, mtu);
    }
    world.wait_log("inotify watches the state directory again");
    for mtu in [1310, 1320] {
        world.write(&override_of(1), &mtu_exception(1, mtu));
        world.wait_mtu(1, mtu);
    }
    world.remove(&override_of(1));
    world.wait_mtu(1, 1420);
    let log = world.log();
    assert_eq!(
        log.matches("inotify does not watch").count(),
        1,
        "said once:\n{log}"
    );
    assert_eq!(
        log.matches("inotify watches").count(),
        1,
        "said once:\n{log}"
    );
    assert_eq!(world.ages(), ages);
}
