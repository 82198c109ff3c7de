//! A missing private key never means a new one: neighbours know the old public key.

use crate::lab::watch::{ifindex, session_ages};
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

fn key_file(world: &World) -> PathBuf {
    world.router.path("private.key")
}

/// The public key that the kernel has on a neighbour's tunnel.
fn kernel_key(world: &World, number: u32) -> String {
    let line = format!("wg show {} public-key", interface(number));
    world.router.inside.shell(&line).trim().to_owned()
}

/// Since when the neighbour has its session.
fn since(world: &World, number: usize) -> String {
    let said = world.neighbours[number].session().unwrap();
    let line = said.lines().find(|line| line.contains("moe_router"));
    line.unwrap().to_owned()
}

#[track_caller]
fn wait_missing(world: &World) -> String {
    let why = world.wait_condition("node", "KeyAvailable", "False", "Missing");
    contains(&why, &world.router.keys.public).unwrap();
    why
}

#[test]
fn lost_key_file_keeps_tunnels_and_creates_no_key() {
    let mut world = World::converged(2);
    wait_until("the public key is recorded", 10, || {
        let record = fs::read_to_string(world.router.path("state/public-key"));
        contains(&record.unwrap_or_default(), &world.router.keys.public)
    });
    let (ages, age) = (session_ages(&world.router), since(&world, 0));
    let links = [1, 2].map(|number| ifindex(&world.router, &interface(number)));
    let away = world.router.path("away.key");
    fs::rename(key_file(&world), &away).unwrap();
    let why = wait_missing(&world);
    assert!(why.contains("does not exist"), "{why}");
    let (_, status) = world.router.api("", "/status");
    assert!(status.contains(&world.router.keys.public), "{status}");

    // A restart of the agent meanwhile, a plan, and a restart of a tunnel change nothing.
    world.router.kill_agent();
    let plan = format!("{} 2>&1", world.router.command("plan"));
    let plan = world.router.inside.try_shell(&plan);
    assert!(format!("{plan:?}").contains("private key"), "{plan:?}");
    world.router.start_agent();
    wait_missing(&world);
    let body = json!({"interface": interface(1)});
    let (code, why) = world.router.api(
        &format!("-X POST -d '{body}' -H content-type:application/json"),
        "/restart",
    );
    assert_eq!(code, 500, "{why}");
    // Drift of everything but the key is repaired meanwhile.
    world
        .router
        .inside
        .shell(&format!("ip link set {} mtu 1300", interface(2)));
    wait_until("the MTU is repaired", 20, || {
        let line = format!("ip link show {}", interface(2));
        contains(&world.router.inside.shell(&line), "mtu 1420")
    });
    // A new session cannot be configured, and says why.
    let mut sessions = world.sessions();
    let mut new = sessions[0].clone();
    new["uuid"] = json!("new");
    new["interface"] = json!("wg_new");
    new["listenPort"] = json!(29_999);
    new["credential"]["publicKey"] = json!(KeyPair::new().public);
    sessions.push(new);
    world.control_plane.sessions(&sessions);
    world.wait_reported("new", 2, "private key");
    world.wait_log("WireGuard private key missing");
    let log = world.router.log();
    assert!(!log.contains("generated a WireGuard private key"), "{log}");
    assert!(!key_file(&world).exists(), "a key was created");

    // What is no key is not one either, and it is left as it is.
    for content in ["", "hunter2\n", "AAAA"] {
        fs::write(key_file(&world), content).unwrap();
        wait_until("the reason follows", 10, || {
            contains(&wait_missing(&world), "holds no WireGuard private key")
        });
        assert_eq!(fs::read_to_string(key_file(&world)).unwrap(), content);
    }
    fs::remove_file(key_file(&world)).unwrap();
    // Mode 000 does not stop root: a directory and a pipe are what cannot be read.
    for (make, remove) in [("mkdir", "rmdir"), ("mkfifo", "rm")] {
        let path = key_file(&world).display().to_string();
        world.router.inside.shell(&format!("{make} {path}"));
        wait_until("the reason follows", 10, || {
            contains(&wait_missing(&world), &format!("cannot read {path}"))
        });
        world.router.kill_agent();
        world.router.start_agent();
        wait_missing(&world);
        let plan = format!("{} 2>&1", world.router.command("plan"));
        let plan = world.router.inside.try_shell(&plan);
        assert!(format!("{plan:?}").contains("private key"), "{plan:?}");
        world.router.inside.shell(&format!("{remove} {path}"));
    }
    let log = world.router.log();
    assert!(!log.contains("generated a WireGuard private key"), "{log}");
    assert_eq!(
        [1, 2].map(|number| kernel_key(&world, number)),
        [
            world.router.keys.public.clone(),
            world.router.keys.public.clone(),
        ]
    );
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
    assert_eq!(since(&world, 0), age, "the neighbour's session was reset");

    fs::rename(&away, key_file(&world)).unwrap();
    world.wait_condition("node", "KeyAvailable", "True", "Read");
    world.wait_reported("new", 1, "");
    assert_eq!(session_ages(&world.router).also_in(&ages), ages);
    assert_eq!(since(&world, 0), age, "the neighbour's session was reset");
    let after = [1, 2].map(|number| ifindex(&world.router, &interface(number)));
    assert_eq!(after, links, "a link was created again");
    assert!(world.router.agent_runs());
}

#[test]
fn key_is_created_once_and_changed_in_place() {
    let mut world = World::new(1);
    fs::remove_file(key_file(&world)).unwrap();
    // Neither a look nor a refused start creates a key or a state directory.
    for verb in ["plan", "validate"] {
        let line = world.router.command(verb);
        let _ = world.router.inside.try_shell(&line);
        assert!(!key_file(&world).exists(), "{verb} created a key");
        assert!(!world.router.path("state").exists(), "{verb}");
    }
    world
        .router
        .reconfigure(|config| config["server"]["listen"] = json!("0.0.0.0:24368"));
    let line = world.router.command("run");
    assert!(world.router.inside.try_shell(&line).is_err());
    assert!(!key_file(&world).exists(), "a refused start created a key");
    assert!(!world.router.path("state").exists());
    world
        .router
        .reconfigure(|config| config["server"]["listen"] = json!("127.0.0.1:24368"));
    world.router.start_agent();
    world.wait_condition("node", "KeyAvailable", "True", "Read");
    let record = || fs::read_to_string(world.router.path("state/public-key")).unwrap_or_default();
    wait_until("the key is created and recorded", 10, || {
        let public = record();
        if public.trim().is_empty() {
            Err("no record".into())
        } else {
            Ok(())
        }
    });
    let first = record().trim().to_owned();
    wait_until("the tunnel has it", 20, || {
        let line = format!("wg show {} public-key", interface(1));
        contains(&world.router.inside.try_shell(&line)?, &first)
    });

    // An operator changes the key on purpose: in place, and to the one that the neighbour knows.
    let link = ifindex(&world.router, &interface(1));
    fs::write(key_file(&world), &world.router.keys.private).unwrap();
    world.neighbours[0].wait_established(60);
    assert_eq!(kernel_key(&world, 1), world.router.keys.public);
    assert_eq!(ifindex(&world.router, &interface(1)), link);
    wait_until("the change is logged with both keys", 10, || {
        let log = world.router.log();
        contains(&log, "WireGuard private key changed")?;
        contains(&log, &first)?;
        contains(&record(), &world.router.keys.public)
    });
}

#[test]
fn applied_objects_without_record_prevent_new_key() {
    // As an earlier build leaves a router, and as a first start leaves it that ended before the record.
    let mut world = World::converged(1);
    let age = since(&world, 0);
    world.router.kill_agent();
    fs::remove_file(world.router.path("state/public-key")).unwrap();
    fs::remove_file(key_file(&world)).unwrap();
    world.router.start_agent();
    // The kernel still knows which key it was.
    wait_missing(&world);
    assert!(!key_file(&world).exists(), "a key was created");
    world.wait_polls("sessions", 2);
    assert_eq!(since(&world, 0), age, "the neighbour's session was reset");
    assert_eq!(kernel_key(&world, 1), world.router.keys.public);
}

/// The key file's public key; none while there is no file.
fn public_of_file(world: &World) -> Option<String> {
    let path = key_file(world);
    let line = format!("wg pubkey < {}", path.display());
    path.exists()
        .then(|| world.router.inside.shell(&line).trim().to_owned())
}

/// Removes links, state and files of a killed agent. Its helpers outlive it: git still writes, and WireGuard may make its
/// link a moment later. Nothing reaps them here when they have ended.
fn forget_everything(world: &World) {
    let links = format!(
        "ip link del {} 2>/dev/null; ip link del dummy0 2>/dev/null; ! ps -eo stat=,comm= | grep -v ^Z | grep -E ' (wireguard-go|git)$'",
        interface(1)
    );
    wait_until("no helper is left", 20, || {
        world.router.inside.try_shell(&links).map(drop)
    });
    let _ = fs::remove_file(key_file(world));
    for folder in [
        world.router.path("state"),
        world.router.bird.folder.join("moenet"),
    ] {
        match fs::remove_dir_all(&folder) {
            Err(error) if folder.exists() => panic!("{}: {error}", folder.display()),
            _ => {}
        }
    }
}

#[test]
fn crash_while_the_key_is_made_leaves_exactly_one() {
    let mut world = World::new(1);
    let record = |world: &World| {
        fs::read_to_string(world.router.path("state/public-key"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let mut kills = 0;
    for round in 0u64..12 {
        // A router that has never had a key.
        forget_everything(&world);
        fs::write(
            world.router.bird.folder.join("bird.conf"),
            "protocol device {}\n",
        )
        .unwrap();
        let log = world.router.log().len();

        world.router.spawn_agent(&[]);
        if round % 2 == 0 {
            // The moment that it appears: before the record, or just after it.
            let begun = std::time::Instant::now();
            while !key_file(&world).exists() {
                assert!(begun.elapsed().as_secs() < 20, "no key was made");
            }
        } else {
            std::thread::sleep(std::time::Duration::from_millis(40 * round));
        }
        world.router.kill_agent();
        kills += 1;
        let (made, recorded) = (public_of_file(&world), record(&world));
        assert!(
            recorded.is_empty() || made.as_deref() == Some(&recorded),
            "a record without its key"
        );
        if made.is_some() && round % 4 == 0 {
            // Killed between the key and its record, however fast the disk is.
            let _ = fs::remove_file(world.router.path("state/public-key"));
        }

        world.router.start_agent();
        wait_until("the key is recorded", 20, || match public_of_file(&world) {
            Some(public) if public == record(&world) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let public = record(&world);
        assert!(
            made.is_none_or(|made| made == public),
            "a second key was made"
        );
        wait_until("the tunnel has it", 30, || {
            let line = format!("wg show {} public-key", interface(1));
            contains(&world.router.inside.try_shell(&line)?, &public)
        });
        let log = world.router.log()[log..].to_owned();
        let generated = log.matches("generated a WireGuard private key").count();
        assert!(generated <= 1, "{log}");
        let keys = format!("ls -A {} | grep -c key", world.router.path("").display());
        assert_eq!(
            world.router.inside.shell(&keys).trim(),
            "1",
            "in round {round}"
        );
        world.router.kill_agent();
    }
    assert_eq!(kills, 12);
}
