//! The process is whole or it ends: no task dies in silence. SIGHUP reloads.

use crate::lab::router::Router;
use crate::lab::watch::session_ages;
use crate::lab::world::World;
use crate::lab::{contains, wait_until};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The names of the tasks that a running agent has started.
fn tasks(router: &mut Router) -> BTreeSet<String> {
    router.start_agent_with(&["RUST_LOG=debug"]);
    let names = |log: &str| -> BTreeSet<String> {
        let started = log.lines().filter(|line| line.contains("task started"));
        let name = |line: &str| Some(line.split_once("task=\"")?.1.split_once('"')?.0.to_owned());
        started.filter_map(name).collect()
    };
    router.kill_agent();
    let found = names(&router.log());
    std::fs::remove_file(router.path("agent.log")).unwrap();
    found
}

#[test]
fn the_end_of_any_task_ends_the_process() {
    let mut world = World::new(0);
    let names = tasks(&mut world.router);
    for known in [
        "controller",
        "committer",
        "builds",
        "applied-changes",
        "history",
        "resolver",
        "control-plane",
    ] {
        assert!(names.contains(known), "no {known} in {names:?}");
    }
    for (number, name) in names.iter().enumerate() {
        // A panic and an early end take turns.
        let way = ["panic", "return"][number % 2];
        let hook = format!("MOENET_AGENT_END_TASK={name}:{way}");
        world.router.spawn_agent(&[&hook]);
        // A second until the task ends, and five for the process.
        let began = Instant::now();
        let code = world.router.wait_agent_end(20);
        assert!(began.elapsed() < Duration::from_secs(8), "{name} {way}");
        assert_eq!(code, Some(1), "{name} {way}");
        let log = world.router.log();
        assert!(
            log.contains("task ended early") && log.contains(&format!("task=\"{name}\"")),
            "{name}: {log}"
        );
        std::fs::remove_file(world.router.path("agent.log")).unwrap();
    }
}

#[test]
fn a_broken_configuration_on_sighup_changes_nothing() {
    let mut world = World::converged(1);
    let ages = session_ages(&world.router);
    let config = world.router.path("config.yaml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, "node:\n  name: jp1\n  nmae: x\n").unwrap();
    world.router.signal_agent("-HUP");
    wait_until("the error has its place", 20, || {
        contains(&world.router.log(), "configuration not reloaded")?;
        contains(&world.router.log(), "config.yaml:3:")
    });
    std::fs::write(&config, good).unwrap();
    world.router.signal_agent("-HUP");
    wait_until("the good one is loaded", 20, || {
        contains(&world.router.log(), "configuration reloaded")
    });
    world.wait_polls("sessions", 2);
    assert!(world.router.agent_runs());
    assert_eq!(session_ages(&world.router), ages);
}

#[test]
fn sighup_with_an_unreadable_token_file_keeps_the_token() {
    let world = World::converged(1);
    let ages = session_ages(&world.router);
    let before = world.control_plane.tokens();
    let file = world.router.path("new-token");
    world.router.reconfigure(|config| {
        let section = config["controlPlane"].as_object_mut().unwrap();
        section.remove("token");
        section.insert("tokenFile".to_owned(), file.display().to_string().into());
        config["controlPlane"]["syncInterval"] = 1.into();
    });
    world.router.signal_agent("-HUP");
    wait_until("the missing file is named", 20, || {
        contains(&world.router.log(), "token not readable")?;
        contains(&world.router.log(), "new-token")
    });
    let message = world.wait_condition("node", "TokensReadable", "False", "NotReadable");
    assert!(message.contains("new-token"), "{message}");
    world.wait_polls("sessions", 3);
    assert_eq!(
        world.control_plane.tokens(),
        before,
        "another token was sent"
    );
    assert_eq!(session_ages(&world.router), ages);
    std::fs::write(&file, "filed-token\n").unwrap();
    wait_until("the new token is sent", 60, || {
        contains(
            &world.control_plane.tokens().join(" "),
            "Bearer filed-token",
        )
    });
}

#[test]
fn sighup_takes_intervals_level_and_token_and_names_the_rest() {
    let mut world = World::new(1);
    world
        .router
        .reconfigure(|config| config["controlPlane"]["syncInterval"] = 3600.into());
    world.router.start_agent();
    world.wait_established();
    let ages = session_ages(&world.router);
    world.router.reconfigure(|config| {
        config["controlPlane"]["syncInterval"] = 1.into();
        config["controlPlane"]["token"] = "another-token".into();
        config["log"]["level"] = "debug".into();
        config["probe"]["count"] = 2.into();
    });
    world.router.signal_agent("-HUP");
    wait_until("the reload is told", 20, || {
        let log = world.router.log();
        contains(
            &log,
            "controlPlane.syncInterval controlPlane.token log.level",
        )?;
        contains(&log, "probe.count")?;
        contains(&log, "DEBUG")
    });
    world.wait_polls("sessions", 4);
    wait_until("the new token is sent", 20, || {
        contains(
            &world.control_plane.tokens().join(" "),
            "Bearer another-token",
        )
    });
    assert!(!world.router.log().contains("another-token"));
    assert_eq!(session_ages(&world.router), ages);
}
