//! Draining, as the neighbour sees it: by the API, by hand, and of one session alone.

use crate::drain::{same, unmeasured};
use crate::lab::backbone::{Backbone, each_route, edge};
use crate::lab::hands::{exception, override_of};
use crate::lab::neighbour::Neighbour;
use crate::lab::router::{PREFIX4, PREFIX6, Router};
use crate::lab::watch::session_ages;
use crate::lab::world::{Speaker, World, interface};
use crate::lab::{bird, contains, wait_until};
use serde_json::{Value, json};

const SHUTDOWN: &str = "(65535,0)";

fn without_community(world: &World, prefix: &str) -> Result<(), String> {
    undrained(&world.neighbours[0], prefix)
}

fn undrained(neighbour: &Neighbour, prefix: &str) -> Result<(), String> {
    let route = neighbour.route(prefix)?;
    if !route.contains(prefix) || route.contains("65535") {
        Err(route)
    } else {
        Ok(())
    }
}

/// The routes whose drain is watched: our own and one in transit, of both families.
fn watched(world: &World) -> [&str; 4] {
    [
        PREFIX4,
        PREFIX6,
        &world.neighbours[1].prefix4,
        &world.neighbours[1].prefix6,
    ]
}

fn local_preference_is_zero(world: &World) -> Result<(), String> {
    match local_preference(world, &world.neighbours[1].prefix4)? {
        0 => Ok(()),
        other => Err(other.to_string()),
    }
}

/// What the router prefers a route by.
fn local_preference(world: &World, prefix: &str) -> Result<u32, String> {
    let route = world
        .router
        .bird
        .try_ask(&world.router.inside, &format!("show route {prefix} all"))?;
    let line = route.lines().find(|line| line.contains("local_pref"));
    line.and_then(|line| line.rsplit([' ', ':']).next()?.parse().ok())
        .ok_or(route)
}

/// `maintenance.yaml` as somebody writes it by hand.
fn by_hand(spec: &str) -> String {
    format!(
        "apiVersion: moenet.work/v1\nkind: Maintenance\nmetadata: {{name: maintenance}}\nspec:\n  {spec}\n"
    )
}

fn maintenance(router: &Router) -> Value {
    serde_json::from_str(&router.api("", "/maintenance").1).unwrap()
}

fn wait_maintenance(router: &Router, enabled: bool) {
    wait_until(&format!("/maintenance says {enabled}"), 30, || {
        let state = maintenance(router);
        if state["enabled"] == enabled {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
}

fn wait_drained(world: &World) {
    for prefix in watched(world) {
        world.neighbours[0].wait_route(prefix, SHUTDOWN, 30);
    }
}

fn wait_undrained(world: &World) {
    for prefix in watched(world) {
        wait_until("the route is there undrained", 30, || {
            without_community(world, prefix)
        });
    }
}

#[test]
fn maintenance_drains_without_reset_and_survives_a_restart() {
    let mut world = World::converged(2);
    for prefix in watched(&world) {
        wait_until("the route is there undrained", 15, || {
            without_community(&world, prefix)
        });
    }
    let ages = session_ages(&world.router);
    let (code, body) = world.router.api("-X POST", "/maintenance/start");
    assert_eq!(
        (code, body.contains("Maintenance mode enabled")),
        (200, true),
        "{body}"
    );
    for prefix in watched(&world) {
        world.neighbours[0].wait_route(prefix, "(65535,0)", 15);
    }
    wait_until("imports have local preference 0", 15, || {
        local_preference_is_zero(&world)
    });
    world.router.kill_agent();
    world.router.start_agent();
    let state: Value = serde_json::from_str(&world.router.api("", "/maintenance").1).unwrap();
    assert_eq!(state["enabled"], true, "{state}");
    assert_eq!(world.router.api("", "/sync").0, 503);
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    for prefix in watched(&world) {
        wait_until("the route is restored", 15, || {
            without_community(&world, prefix)
        });
    }
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}

#[test]
fn maintenance_by_hand_does_what_the_call_does() {
    let world = World::converged(2);
    wait_undrained(&world);
    let ages = session_ages(&world.router);
    world.write(
        "maintenance.yaml",
        &by_hand("{enabled: true, since: '2026-11-01T10:00:00Z'}"),
    );
    wait_drained(&world);
    wait_until("imports have local preference 0", 30, || {
        local_preference_is_zero(&world)
    });
    wait_maintenance(&world.router, true);
    assert_eq!(maintenance(&world.router)["since"], "2026-11-01T10:00:00Z");
    assert_eq!(world.router.api("", "/sync").0, 503);
    world.replace("maintenance.yaml", "enabled: true", "enabled: false");
    wait_undrained(&world);
    wait_maintenance(&world.router, false);
    assert_eq!(maintenance(&world.router)["since"], Value::Null);
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}

#[test]
fn unreadable_or_missing_maintenance_file_keeps_the_drain() {
    let mut world = World::converged_without_polls(2);
    wait_undrained(&world);
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    wait_drained(&world);
    wait_until("the drain is on record", 30, || {
        std::fs::read_to_string(world.state("applied/maintenance.yaml"))
            .map(drop)
            .map_err(|e| e.to_string())
    });
    let since = maintenance(&world.router)["since"].clone();
    world.write("maintenance.yaml", &by_hand("enabled: perhaps"));
    let said = |world: &World| contains(&world.router.api("", "/status").1, "maintenance.yaml:5:");
    wait_until("/status says file, line and column", 30, || said(&world));
    world.router.kill_agent();
    world.router.start_agent();
    wait_until("the next agent says so too", 30, || said(&world));
    assert_eq!(
        maintenance(&world.router),
        json!({"enabled": true, "since": since})
    );
    // What somebody is writing is theirs: the call says what is wrong with it.
    let (code, body) = world.router.api("-X POST", "/maintenance/stop");
    assert!(
        code == 500 && body.contains("maintenance.yaml:5:"),
        "{code} {body}"
    );
    // The file goes, and a folder with it: nobody knows whether it was meant to.
    world.in_state("mv sessions .. && rm maintenance.yaml");
    wait_until("the agent has seen it", 30, || {
        let status = world.router.api("", "/status").1;
        if status.contains("maintenance.yaml") {
            Err(status)
        } else {
            Ok(())
        }
    });
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(maintenance(&world.router)["enabled"], true);
    wait_drained(&world);
    world.in_state("rmdir sessions 2>/dev/null; mv ../sessions .");
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    wait_undrained(&world);
    wait_maintenance(&world.router, false);
}

#[test]
fn pending_drain_and_its_end_survive_a_broken_file() {
    let mut world = World::converged_without_polls(2);
    wait_undrained(&world);
    world.router.bird.kill();
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 503);
    world.write("maintenance.yaml", &by_hand("enabled: perhaps"));
    let said = |world: &World| contains(&world.router.api("", "/status").1, "maintenance.yaml:5:");
    wait_until("/status says file, line and column", 30, || said(&world));
    assert_eq!(maintenance(&world.router)["enabled"], true);
    world.router.kill_agent();
    world.router.start_agent();
    wait_until("the next agent says so too", 30, || said(&world));
    assert_eq!(maintenance(&world.router)["enabled"], true);
    world.router.start_bird();
    wait_drained(&world);

    world.router.bird.kill();
    world.write("maintenance.yaml", &by_hand("enabled: false"));
    wait_maintenance(&world.router, false);
    world.write("maintenance.yaml", &by_hand("enabled: perhaps"));
    wait_until("/status says file, line and column again", 30, || {
        said(&world)
    });
    assert_eq!(maintenance(&world.router)["enabled"], false);
    world.router.start_bird();
    wait_undrained(&world);
}

#[test]
fn override_drains_one_session_only() {
    let world = World::converged_without_polls(2);
    wait_undrained(&world);
    let prefer =
        |number: usize| local_preference(&world, &world.neighbours[number].prefix4).unwrap();
    let (ages, before) = (session_ages(&world.router), [prefer(0), prefer(1)]);
    world.write(
        &override_of(1),
        &exception(
            &interface(1),
            "reason: leaving\nset: {bgp: {drained: true}}",
        ),
    );
    wait_drained(&world);
    wait_until("its imports have local preference 0", 30, || {
        match prefer(0) {
            0 => Ok(()),
            other => Err(other.to_string()),
        }
    });
    // The first neighbour's own routes are about to go; that is not told in our name.
    let others = [
        PREFIX4,
        PREFIX6,
        &world.neighbours[0].prefix4,
        &world.neighbours[0].prefix6,
    ];
    for prefix in others {
        undrained(&world.neighbours[1], prefix).unwrap();
    }
    assert_eq!(prefer(1), before[1]);
    assert_eq!(maintenance(&world.router)["enabled"], false);
    world.remove(&override_of(1));
    wait_undrained(&world);
    wait_until("local preference is as before", 30, || {
        let now = [prefer(0), prefer(1)];
        if now == before {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}

#[test]
fn graceful_shutdown_of_a_neighbour_is_not_propagated() {
    let leaving = |family: u8, prefix: &str| {
        format!(
            "protocol static says{family} {{ ipv{family}; \
             route {prefix} blackhole {{ bgp_community.add((65535, 0)); }}; }}\n"
        )
    };
    let prefixes = ["172.20.50.0/24", "fd42:50::/48"];
    let says = leaving(4, prefixes[0]) + &leaving(6, prefixes[1]);
    let speakers = vec![Speaker::Bird(says), Speaker::Bird(String::new())];
    let mut world = World::with_speakers(&bird::version(), speakers);
    world.router.start_agent();
    world.wait_established();
    for prefix in prefixes {
        wait_until("the route goes on without the community", 30, || {
            undrained(&world.neighbours[1], prefix)
        });
        assert_eq!(local_preference(&world, prefix), Ok(0));
    }
    assert_ne!(
        local_preference(&world, &world.neighbours[0].prefix4),
        Ok(0)
    );
    assert_eq!(world.router.api("-X POST", "/maintenance/start").0, 200);
    for prefix in prefixes {
        world.neighbours[1].wait_route(prefix, SHUTDOWN, 30);
    }
}

/// The session of a network with jp1, as the network's BIRD tells it.
fn seen_by_the_network(backbone: &Backbone) -> Result<String, String> {
    backbone.networks[0].ask("show protocols all to_jp1")
}

#[test]
fn long_maintenance_closes_external_sessions_only() {
    let mut backbone = Backbone::new(&[edge(1, "jp1"), edge(2, "jp2")]);
    backbone.full_mesh();
    backbone.network(1, &[("jp1", 100)]);
    backbone.network(2, &[("jp2", 100)]);
    backbone
        .at("jp1")
        .router
        .reconfigure(|config| config["maintenance"] = json!({"disableAfter": 15}));
    backbone.start();
    backbone.wait_established();
    let ibgp = |backbone: &Backbone| session_ages(&backbone.at("jp1").router).named("ibgp_jp2");
    let age = ibgp(&backbone);
    let files = |backbone: &Backbone| unmeasured(&backbone.at("jp1").bird_files());
    let files_before = files(&backbone);
    // By hand, so without since when: that is when it was first seen.
    let file = backbone.at("jp1").router.path("state/maintenance.yaml");
    let text = by_hand("enabled: true");
    backbone
        .at("jp1")
        .router
        .inside
        .shell(&format!("cat >{} <<'END'\n{text}END\n", file.display()));
    wait_until("the network is told first", 60, || {
        each_route(&backbone.networks[0].table_from("jp1")?, SHUTDOWN)
    });
    // What BIRD says of a session that its configuration disables (RFC 4486, Cease 3).
    wait_until("then the session is closed, and why", 60, || {
        contains(&backbone.networks[0].log(), "Received: Peer de-configured")
    });
    wait_until("the record says so", 30, || {
        let record = backbone
            .at("jp1")
            .router
            .path("state/applied/maintenance.yaml");
        let record = backbone
            .at("jp1")
            .router
            .inside
            .try_shell(&format!("cat {}", record.display()))?;
        contains(&record, "externalSessionsDisabled: true")
    });
    let since = maintenance(&backbone.at("jp1").router)["since"].clone();
    assert!(since.is_string(), "{since}");
    assert_eq!(ibgp(&backbone), age, "the internal session was reset");

    backbone.at_mut("jp1").router.kill_agent();
    backbone.at_mut("jp1").router.start_agent();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(
        maintenance(&backbone.at("jp1").router)["since"],
        since,
        "a restart began the time anew"
    );
    assert!(
        !seen_by_the_network(&backbone)
            .unwrap()
            .contains("Established")
    );

    assert_eq!(
        backbone
            .at("jp1")
            .router
            .api("-X POST", "/maintenance/stop")
            .0,
        200
    );
    backbone.wait_established();
    wait_until("no route is about to go", 60, || {
        let table = backbone.networks[0].table_from("jp1")?;
        each_route(&table, "AS")?;
        if table.contains("65535") {
            Err(table)
        } else {
            Ok(())
        }
    });
    wait_until("BIRD's files are as before", 30, || {
        same(&files_before, &files(&backbone))
    });
    assert_eq!(ibgp(&backbone), age, "the internal session was reset");
}
