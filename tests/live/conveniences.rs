//! A convenience that fails never takes the work down: sessions are Established on the neighbour's side regardless,
//! and a condition of the node says what fails and what to do.

use crate::lab::namespace::Process;
use crate::lab::router::{Router, agent_program};
use crate::lab::watch::{ifindex, session_ages};
use crate::lab::world::{World, interface, session};
use crate::lab::{contains, wait_until};
use std::path::Path;

/// Starts the agent with its standard error where `redirection` says.
fn start_with_log(router: &mut Router, redirection: &str) {
    let script = format!("exec \"$@\" {redirection}");
    router.start_agent_with(&["sh", "-c", &script, "sh"]);
}

/// The second neighbour's session comes while the first runs.
fn add_second_session(world: &World) {
    world.control_plane.sessions(&world.sessions());
    world.wait_established();
}

/// Two neighbours, of whom the Control Plane lists the first.
fn world_with_one_listed() -> World {
    let world = World::new(2);
    let first = session(1, &world.neighbours[0]);
    world.control_plane.sessions(&[first]);
    world
}

fn converges_with_log(redirection: &str) {
    let mut world = world_with_one_listed();
    start_with_log(&mut world.router, redirection);
    world.neighbours[0].wait_established(40);
    add_second_session(&world);
    world.wait_reported(&crate::lab::world::uuid(2), 1, "");
    assert!(world.router.agent_runs());
}

#[test]
fn a_log_that_cannot_be_written_holds_nothing_up() {
    converges_with_log("2>/dev/full");
}

#[test]
fn a_log_pipe_without_reader_holds_nothing_up() {
    // `true` ends at once, and every write ends with EPIPE.
    converges_with_log("2> >(true)".replace("2> >(true)", "2>&1 | true").as_str());
}

#[test]
fn a_log_pipe_whose_reader_stands_still_holds_nothing_up() {
    let mut world = world_with_one_listed();
    let pipe = world.router.path("log.pipe").display().to_string();
    world.router.inside.shell(&format!("mkfifo {pipe}"));
    let reader = world.router.inside.spawn(
        Path::new("/dev/null"),
        "sh".as_ref(),
        &["-c", &format!("exec 3<{pipe}; sleep 3600")],
    );
    // The pipe holds 64 KiB, so no line of the agent fits any more.
    let script = format!("exec 2>{pipe}; head -c 65536 /dev/zero >&2; exec \"$@\"");
    world
        .router
        .start_agent_with(&["RUST_LOG=trace", "sh", "-c", &script, "sh"]);
    world.neighbours[0].wait_established(40);
    add_second_session(&world);
    drop(reader);
}

#[test]
fn lines_come_again_when_the_disk_has_room() {
    let mut world = world_with_one_listed();
    let folder = world.router.path("small").display().to_string();
    let log = format!("{folder}/agent.log");
    world.router.inside.shell(&format!(
        "mkdir {folder} && mount -t tmpfs -o size=64k tmpfs {folder} && (cat /dev/zero >{folder}/full 2>/dev/null; true)"
    ));
    start_with_log(&mut world.router, &format!("2>>{log}"));
    world.neighbours[0].wait_established(40);
    world.router.inside.shell(&format!("rm {folder}/full"));
    add_second_session(&world);
    let read = || world.router.inside.shell(&format!("cat {log}"));
    wait_until("the log names the gap and goes on", 30, || {
        contains(&read(), "log lines dropped")?;
        contains(&read(), &interface(2))
    });
}

fn condition_is_true(world: &World, about: &str) {
    wait_until(&format!("{about} is True"), 60, || {
        let status = world.status("node");
        let all = status["conditions"].as_array().ok_or("no conditions")?;
        match all.iter().find(|condition| condition["type"] == about) {
            Some(condition) if condition["status"] == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn taken_api_port_blocks_nothing_and_is_retried() {
    let mut world = World::new(1);
    let taker = take_port(&world.router);
    world.router.spawn_agent(&[]);
    world.wait_established();
    let message = world.wait_condition("node", "ApiListening", "False", "AddressTaken");
    assert!(message.contains("127.0.0.1:24368"), "{message}");
    world.wait_log("local API does not listen");
    drop(taker);
    wait_until("the API answers", 60, || {
        world
            .router
            .inside
            .try_shell("curl -sf http://127.0.0.1:24368/healthz")
            .map(drop)
    });
    condition_is_true(&world, "ApiListening");
}

/// Another program on the API's address.
fn take_port(router: &Router) -> Process {
    let program = "import socket,time; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); \
                   s.bind(('127.0.0.1', 24368)); s.listen(); print('ready', flush=True); time.sleep(3600)";
    let log = router.path("taker.log");
    let taker = router
        .inside
        .spawn(&log, "python3".as_ref(), &["-c", program]);
    wait_until("the port is taken", 10, || {
        contains(&std::fs::read_to_string(&log).unwrap(), "ready")
    });
    taker
}

#[test]
fn second_agent_reports_the_lock_of_the_first() {
    let world = World::converged(1);
    let second = world.router.inside.shell(&format!(
        "timeout 20 {} 2>&1; echo code $?",
        world.router.command("run")
    ));
    assert!(second.contains("code 1"), "{second}");
    assert!(
        second.to_lowercase().contains("lock") || second.contains("another agent"),
        "{second}"
    );
    assert!(!second.contains("24368"), "{second}");
    world.wait_established();
}

/// A `PATH` that lacks these programs.
fn path_without(router: &Router, missing: &[&str]) -> String {
    let folder = router.path("programs");
    std::fs::create_dir_all(&folder).unwrap();
    for place in [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/local/bin",
        "/usr/local/sbin",
    ] {
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if missing.iter().all(|missing| name != *missing) {
                let _ = std::os::unix::fs::symlink(entry.path(), folder.join(name));
            }
        }
    }
    format!("PATH={}", folder.display())
}

#[test]
fn without_git_sessions_converge_and_a_condition_says_so() {
    let mut world = World::new(1);
    let path = path_without(&world.router, &["git"]);
    world.router.start_agent_with(&[&path]);
    world.wait_established();
    let message = world.wait_condition("node", "HistoryRecorded", "False", "Failed");
    assert!(message.contains("git"), "{message}");
    assert!(message.contains("install"), "{message}");
}

#[test]
fn without_nft_sessions_converge_and_a_condition_says_so() {
    let mut world = World::new(1);
    world
        .router
        .reconfigure(|config| config["firewall"]["enabled"] = true.into());
    let path = path_without(&world.router, &["nft"]);
    world.router.start_agent_with(&[&path]);
    world.wait_established();
    let message = world.wait_condition("node", "FirewallConfigured", "False", "Failed");
    assert!(message.contains("nft"), "{message}");
}

#[test]
fn without_writable_sysctls_sessions_converge_and_a_condition_says_so() {
    let mut world = World::new(1);
    world.router.inside.shell(
        "mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,ro /proc/sys/net",
    );
    world.router.start_agent();
    world.wait_established();
    world.wait_reported(&crate::lab::world::uuid(1), 1, "");
    let message = world.wait_condition("node", "SysctlsConfigured", "False", "NotSet");
    assert!(
        message.contains("/proc/sys/net") && message.contains("Read-only"),
        "{message}"
    );
    world.wait_log("sysctl not set");
    world.wait_polls("sessions", 12);
    let told = world.router.log().matches("sysctl not set").count();
    assert_eq!(told, 1, "said once");
    let index = ifindex(&world.router, &interface(1));
    world
        .router
        .inside
        .shell("mount -o remount,bind,rw /proc/sys/net");
    wait_until("the sysctls are set", 90, || {
        let file = format!("/proc/sys/net/ipv4/conf/{}/forwarding", interface(1));
        let found = world.router.inside.shell(&format!("cat {file}"));
        if found.trim() == "1" {
            Ok(())
        } else {
            Err(found)
        }
    });
    condition_is_true(&world, "SysctlsConfigured");
    assert_eq!(ifindex(&world.router, &interface(1)), index);
}

#[test]
fn a_rotated_token_is_used_without_a_restart() {
    let mut world = World::new(1);
    let file = world.router.path("token");
    world.router.reconfigure(|config| {
        let section = config["controlPlane"].as_object_mut().unwrap();
        section.remove("token");
        section.insert("tokenFile".into(), file.display().to_string().into());
    });
    world.router.start_agent();
    wait_until("the missing file is a notice", 30, || {
        contains(&world.router.api("", "/status").1, "token file")
    });
    assert_eq!(world.control_plane.asked("sessions"), 0);
    std::fs::write(&file, "first\n").unwrap();
    world.wait_established();
    std::fs::write(&file, "second\n").unwrap();
    wait_until("the new token is sent", 20, || {
        contains(&world.control_plane.tokens().join(" "), "Bearer second")
    });
    let ages = session_ages(&world.router);
    std::fs::remove_file(&file).unwrap();
    wait_until("the loss is told", 20, || {
        contains(&world.router.log(), "using the last one")
    });
    world.wait_polls("sessions", 3);
    assert_eq!(session_ages(&world.router), ages);
    for secret in ["first", "second"] {
        assert!(
            !world.router.log().contains(secret),
            "{secret} is in the log"
        );
    }
}

#[test]
fn missing_server_token_file_closes_the_api() {
    let mut world = World::new(1);
    let file = world.router.path("api-token");
    world.router.reconfigure(|config| {
        config["server"]["tokenFile"] = file.display().to_string().into();
    });
    world.router.start_agent();
    world.wait_established();
    assert_eq!(world.router.api("", "/status").0, 401);
    std::fs::write(&file, "s3cret-of-the-api\n").unwrap();
    let right = "-H 'Authorization: Bearer s3cret-of-the-api'";
    wait_until("the token is taken", 20, || {
        match world.router.api(right, "/status").0 {
            200 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    assert_eq!(world.router.api("", "/status").0, 401);
}

#[test]
fn templates_missing_at_the_start_leave_every_session_up() {
    let mut world = World::converged(1);
    world.router.kill_agent();
    let folder = world.router.path("templates");
    let ages = session_ages(&world.router);
    world.router.reconfigure(|config| {
        config["bird"]["templates"] = folder.display().to_string().into();
    });
    world.router.start_agent();
    let message = world.wait_condition("node", "TemplatesAccepted", "False", "Refused");
    assert!(message.contains("templates"), "{message}");
    world.wait_polls("sessions", 3);
    assert_eq!(session_ages(&world.router), ages);
    std::fs::create_dir(&folder).unwrap();
    condition_is_true(&world, "TemplatesAccepted");
    assert_eq!(session_ages(&world.router), ages);
}

#[test]
fn output_to_full_disk_fails_and_closed_pipe_succeeds() {
    let world = World::new(0);
    let program = agent_program().display().to_string();
    let code = |line: &str| {
        let line = format!("{line}; echo code $?");
        world.router.inside.shell(&line)
    };
    for verb in ["schema BgpSession", "completions bash", "man", "--help"] {
        let said = code(&format!("{program} {verb} 2>&1 >/dev/full"));
        assert!(said.contains("code 1"), "{verb}: {said}");
        assert!(said.contains("write the output"), "{verb}: {said}");
        let said = world.router.inside.shell(&format!(
            "bash -c '{program} {verb} 2>{folder}/err | true; echo code ${{PIPESTATUS[0]}}; cat {folder}/err'",
            folder = world.router.path("").display()
        ));
        assert_eq!(said.trim(), "code 0", "{verb}");
    }
}
