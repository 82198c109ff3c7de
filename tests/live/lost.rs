//! A start without the state directory, when the evidence of an earlier run cannot be read.

use crate::identity::{Second, aliases, bird_files, entries, unmount, wait_missing};
use crate::lab::bird;
use crate::lab::hands::Age;
use crate::lab::neighbour::Neighbour;
use crate::lab::watch::NetlinkEvents;
use crate::lab::world::World;
use crate::lab::{contains, wait_until};

/// Runs a program whose calls of `socket(AF_NETLINK, ...)` fail, as under systemd's `RestrictAddressFamilies=`.
const NO_NETLINK: &str = r#"
import ctypes, os, platform, struct, sys
socket = {"x86_64": 41, "aarch64": 198}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x15, 0, 2, socket), (0x20, 0, 0, 16), (0x15, 1, 0, 16),
         (0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, 0x00050000 | 97)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

const UNLISTED: &str = "the kernel's links cannot be listed";

#[test]
fn unlistable_links_make_no_new_identity() {
    let mut world = World::converged(1);
    let (identity, ages, marks) = (world.router.identity(), world.ages(), aliases(&world));
    world.router.kill_agent();
    unmount(&world);
    let key = world.router.path("private.key");
    std::fs::remove_file(&key).unwrap();
    let (filter, files) = (world.router.path("no-netlink.py"), bird_files(&world));
    std::fs::write(&filter, NO_NETLINK).unwrap();
    let filter = filter.display().to_string();
    let events = NetlinkEvents::record(&world.router);

    world.router.start_agent_with(&["python3", &filter]);
    wait_until("/status says that links cannot be listed", 20, || {
        let status = world.router.api("", "/status").1;
        contains(&status, "\"status\":\"failed\"")?;
        contains(&status, "StateDirectoryMissing")?;
        contains(&status, UNLISTED)?;
        contains(&status, "AF_NETLINK")
    });
    assert_eq!(world.router.api("", "/readyz").0, 503);
    for verb in ["plan", "apply --once", "approve --state-lost"] {
        let command = world.router.command(verb);
        let line = format!("python3 {filter} {command}");
        let refused = world.router.inside.try_shell(&line).unwrap_err();
        contains(&refused, UNLISTED).unwrap();
    }
    let untouched = |world: &World| {
        assert_eq!(entries(&world.router.path("state")), 0);
        assert!(!key.exists(), "a key was made");
        assert_eq!(bird_files(world), files);
        assert_eq!(world.ages(), ages);
    };
    untouched(&world);
    assert_eq!(aliases(&world), marks);
    assert_eq!(events.seen(), Vec::<String>::new());
    drop(events);

    // Listed links are further evidence, and what is found later is named, too.
    world.router.kill_agent();
    world.router.start_agent();
    wait_missing(&world);
    world.router.inside.shell(&format!(
        "ip link add br9 type bridge && ip link set br9 alias moenet-agent:2:{identity}:later"
    ));
    wait_until("/status names the further link", 20, || {
        contains(&world.router.api("", "/status").1, "br9")
    });
    world.wait_log("still waiting for the state directory");
    untouched(&world);
    world.router.inside.shell("ip link del br9");

    std::fs::write(&key, format!("{}\n", world.router.keys.private)).unwrap();
    std::fs::remove_dir(world.router.path("state")).unwrap();
    std::fs::rename(world.router.path("away"), world.router.path("state")).unwrap();
    wait_until("the agent goes on", 30, || {
        let status = "curl -sf http://127.0.0.1:24368/status";
        contains(&world.router.inside.try_shell(status)?, "\"active\":1")
    });
    assert_eq!(world.router.identity(), identity);
    assert_eq!(aliases(&world), marks);
    assert_eq!(world.ages(), ages);
}

#[test]
fn links_of_an_agent_with_an_unreadable_directory_stay_foreign() {
    let mut world = World::converged(1);
    let mut second = Second::new();
    let far = second.far_end();
    world.join(Neighbour::new(2), 2, |neighbour, _| {
        neighbour.start_bird(&bird::version(), &far);
    });
    world.router.kill_agent();
    let (age, marks) = (Age::of(&world.neighbours[0]), aliases(&world));
    let state = world.router.path("state");
    std::fs::rename(&state, world.router.path("away")).unwrap();
    // As with a disk error, the path exists and cannot be read.
    std::os::unix::fs::symlink(&state, &state).unwrap();

    second.start(&world, &world.neighbours[1]);
    wait_until("the second has its tunnel", 60, || {
        contains(&aliases(&world).join("\n"), "local/sessions/second")
    });
    let still = |world: &World| {
        let now = aliases(world);
        assert!(marks.iter().all(|mark| now.contains(mark)), "{now:?}");
        assert_eq!(Age::of(&world.neighbours[0]), age);
    };
    still(&world);
    let log = second.log();
    assert!(!log.contains("StateDirectoryMissing"), "{log}");

    // A directory that does not exist may have been moved: a further first start asks the operator.
    std::fs::remove_file(&state).unwrap();
    let third = Second::new();
    third.prepare(&world, &world.neighbours[1], |_| {});
    let plan = third.says(&world, "plan");
    contains(&plan, "StateDirectoryMissing").unwrap();
    let named = format!("were made with the state directory {}", state.display());
    contains(&plan, &named).unwrap();
    still(&world);
}
