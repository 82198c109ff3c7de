//! Pipes, directories and huge files in place of the files that the agent reads: none hangs a pass, and none is read whole.

use crate::lab::contains;
use crate::lab::world::{World, interface};
use serde_json::json;

/// Makes what cannot be read of a path.
const KINDS: [&str; 3] = ["mkfifo", "mkdir", "truncate -s 3G"];
/// Files that the agent reads again while it runs or at its next start, below the router's folder.
const FILES: [&str; 20] = [
    "token",
    "templates/session.conf",
    "templates/moenet/bgp.conf",
    "bird/moenet/sessions/junk.conf",
    "state/sessions/junk.yaml",
    "state/mesh/junk.yaml",
    "state/ibgp/junk.yaml",
    "state/maintenance.yaml",
    "state/overrides/sessions/junk.yaml",
    "state/applied/sessions/junk.yaml",
    "state/status/sessions/junk.yaml",
    "state/outbox/junk.json",
    "state/secrets/junk.psk",
    "state/classes.json",
    "state/roa.conf",
    "state/rpki.json",
    "state/held.yaml",
    "state/public-key",
    "state/.git/moenet-removed",
    "state/.git/moenet-outbox",
];
/// The agent uses a tenth of it; a 3 GiB file that is read whole is far beyond.
const MEMORY_KB: u64 = 400_000;

/// Replaces every file; those that exist are kept.
fn spoil(world: &World, make: &str) {
    for file in FILES {
        let path = world.router.path(file).display().to_string();
        let folder = world.router.path(file);
        let folder = folder.parent().unwrap().display();
        world.router.inside.shell(&format!(
            "mkdir -p {folder}; if [ -e {path} ]; then mv {path} {path}.kept; fi; {make} {path}"
        ));
    }
}

fn restore(world: &World) {
    for file in FILES {
        let path = world.router.path(file).display().to_string();
        world.router.inside.shell(&format!(
            "if [ -e {path}.kept ]; then rm -rf {path}; mv {path}.kept {path}; else rm -rf {path} {path}.broken*; fi"
        ));
    }
}

/// Passes go on, and the API answers.
fn works(world: &World) {
    let link = interface(1);
    let drift = format!("ip link set {link} mtu 1300");
    world.router.inside.shell(&drift);
    world.wait_mtu(1, 1420);
    assert_eq!(world.router.api("", "/status").0, 200);
    let status = "grep ^VmHWM /proc/$(pgrep -xo moenet-agent)/status";
    let peak = world.router.inside.shell(status);
    let kilobytes = peak.split_whitespace().nth(1).unwrap();
    assert!(kilobytes.parse::<u64>().unwrap() < MEMORY_KB, "{peak}");
}

#[test]
fn unreadable_file_of_any_kind_hangs_no_pass() {
    let mut world = World::new(1);
    let (token, templates) = (world.router.path("token"), world.router.path("templates"));
    std::fs::write(&token, "lab-token\n").unwrap();
    std::fs::create_dir_all(templates.join("moenet")).unwrap();
    let built_in = include_str!("../../templates/session.conf");
    std::fs::write(templates.join("session.conf"), built_in).unwrap();
    world.router.reconfigure(|config| {
        let control_plane = config["controlPlane"].as_object_mut().unwrap();
        control_plane.remove("token");
        control_plane.insert("tokenFile".into(), json!(token));
        config["bird"]["templates"] = json!(templates);
    });
    world.router.start_agent();
    world.wait_established();
    world.wait_measured();
    let ages = world.ages();
    for make in KINDS {
        eprintln!("{make}");
        spoil(&world, make);
        works(&world);
        world.wait_polls("mesh", 2);
        works(&world);
        world.router.kill_agent();
        world.router.start_agent();
        works(&world);
        let validate = format!("timeout 60 {}", world.router.command("validate"));
        let said = world.router.inside.try_shell(&validate).unwrap_err();
        for file in ["token", "templates", "state/sessions/junk.yaml"] {
            let path = world.router.path(file).display().to_string();
            contains(&said, &path).unwrap();
        }
        world.router.signal_agent("-HUP");
        works(&world);
        restore(&world);
        world.wait_polls("sessions", 2);
        assert_eq!(world.ages(), ages, "{make}");
    }
    assert!(world.router.agent_runs());
    // A file that stays unreadable is no news at each pass.
    let log = world.router.log();
    let said = log.matches("saved ROA table not readable").count();
    assert!(said <= 2 * KINDS.len(), "{said} lines");
}
