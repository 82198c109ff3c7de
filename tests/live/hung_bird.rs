//! A BIRD that accepts connections and never answers holds up nothing but itself.

use std::time::{Duration, Instant};

use crate::lab::cli::agent;
use crate::lab::router::PREFIX4;
use crate::lab::wait_until;
use crate::lab::world::{World, interface};

/// The MTU and the addresses of the first session's link.
fn link(world: &World) -> String {
    let link = interface(1);
    let line = format!(
        "ip -o addr show dev {link} | awk '{{print $4}}' | sort; cat /sys/class/net/{link}/mtu"
    );
    world.router.inside.shell(&line)
}

/// Gives the link another MTU and an address, and waits until it is as before.
#[track_caller]
fn spoil_and_wait(world: &World) {
    let (before, name) = (link(world), interface(1));
    assert!(before.contains("fe80::"), "{before}");
    world.router.inside.shell(&format!(
        "ip link set {name} mtu 1300; ip -6 addr add fd00:bad::1/64 dev {name}"
    ));
    wait_until("the link is as before", 5, || match link(world) {
        now if now == before => Ok(()),
        now => Err(now),
    });
}

fn maintenance(world: &World, act: &str) -> (u16, String) {
    world.router.api("-X POST", &format!("/maintenance/{act}"))
}

#[test]
fn hung_bird_delays_neither_repair_nor_stop() {
    let mut world = World::converged_without_polls(1);
    let ages = world.ages();
    world.router.bird.hang();
    let (code, body) = maintenance(&world, "start");
    assert_eq!(code, 202, "{body}");
    assert!(body.contains("\"pending\""), "{body}");
    assert!(world.read("maintenance.yaml").contains("enabled: true"));
    spoil_and_wait(&world);
    world.wait_log("it hangs or is overloaded");
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

#[test]
fn plan_says_that_drift_of_a_hung_bird_is_unknown() {
    let world = World::converged_without_polls(1);
    world.wait_phase(1, "Established");
    agent(&world.router, &["plan"]).ended(0);
    world.router.bird.hang();
    let plan = agent(&world.router, &["plan"]).ended(1);
    plan.says("its drift is unknown");
    assert!(!plan.out.contains("No changes"), "{}", plan.out);
    world.router.bird.go_on();
}
