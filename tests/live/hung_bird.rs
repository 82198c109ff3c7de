//! A BIRD that accepts connections and never answers holds up nothing but itself.

use std::time::{Duration, Instant};

use crate::lab::router::PREFIX4;
use crate::lab::wait_until;
use crate::lab::world::{World, interface};

/// The addresses of the first session's link.
fn addresses(world: &World) -> String {
    let link = interface(1);
    let line = format!("ip -o -6 addr show dev {link} | awk '{{print $4}}' | sort");
    world.router.inside.shell(&line)
}

/// Takes the link's addresses away, and waits until they are back.
#[track_caller]
fn spoil_and_wait(world: &World) {
    let before = addresses(world);
    assert!(before.contains("fe80::"), "{before}");
    let link = interface(1);
    world
        .router
        .inside
        .shell(&format!("ip -6 addr flush dev {link}"));
    wait_until("the addresses are back", 5, || match addresses(world) {
        now if now == before => Ok(()),
        now => Err(now),
    });
}

fn maintenance(world: &World, act: &str) -> (u16, String) {
    world.router.api("-X POST", &format!("/maintenance/{act}"))
}

#[test]
fn hung_bird_delays_neither_repair_nor_stop_and_is_told_later() {
    let mut world = World::converged_without_polls(1);
    let ages = world.ages();
    world.router.bird.hang();
    let (code, body) = maintenance(&world, "start");
    assert_eq!(code, 202, "{body}");
    assert!(body.contains("\"pending\""), "{body}");
    assert!(world.read("maintenance.yaml").contains("enabled: true"));
    spoil_and_wait(&world);
    world.wait_log("BIRD does not answer");
    spoil_and_wait(&world);
    for act in ["stop", "start"] {
        let (code, body) = maintenance(&world, act);
        assert!(
            code == 503 && body.contains("BIRD_UNAVAILABLE"),
            "{code} {body}"
        );
    }
    assert!(world.read("maintenance.yaml").contains("enabled: true"));
    let asked = Instant::now();
    world.router.stop_agent();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(4), "the stop took {took:?}");
    world.router.start_agent();
    spoil_and_wait(&world);
    world.router.bird.go_on();
    world.neighbours[0].wait_route(PREFIX4, "(65535,0)", 40);
    assert_eq!(maintenance(&world, "start").0, 200);
    assert_eq!(maintenance(&world, "stop").0, 200);
    assert_eq!(world.ages(), ages, "a session was reset");
}

#[test]
fn maintenance_without_bird_is_unavailable_and_takes_effect_later() {
    let mut world = World::converged_without_polls(1);
    world.router.bird.kill();
    let (code, body) = maintenance(&world, "start");
    assert!(
        code == 503 && body.contains("BIRD_UNAVAILABLE"),
        "{code} {body}"
    );
    world.router.start_bird();
    world.neighbours[0].wait_route(PREFIX4, "(65535,0)", 60);
    assert_eq!(maintenance(&world, "stop").0, 200);
}
