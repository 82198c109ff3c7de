//! The agent, BIRD and the Control Plane come and go; what works keeps working.

use crate::lab::control_plane::Answer;
use crate::lab::watch::{BirdHistory, NetlinkEvents, bird_history};
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};

fn nothing_happened(world: &World, events: &NetlinkEvents, before: &BirdHistory) {
    assert_eq!(events.seen(), Vec::<String>::new(), "netlink events");
    assert_eq!(
        bird_history(&world.router),
        *before,
        "a BIRD reload or session reset"
    );
}

#[test]
fn killing_and_starting_the_agent_disturbs_nothing() {
    let mut world = World::converged(3);
    world.wait_polls("sessions", 3);
    let (events, before) = (
        NetlinkEvents::record(&world.router),
        bird_history(&world.router),
    );
    world.router.kill_agent();
    world.router.start_agent();
    world.wait_polls("sessions", 4);
    world.wait_polls("bird-config", 2);
    nothing_happened(&world, &events, &before);
}

#[test]
fn an_agent_at_rest_changes_nothing() {
    let world = World::converged(1);
    world.wait_polls("sessions", 3);
    let (events, before) = (
        NetlinkEvents::record(&world.router),
        bird_history(&world.router),
    );
    world.wait_polls("sessions", 5);
    nothing_happened(&world, &events, &before);
}

#[test]
fn the_agent_starts_before_bird_does() {
    let mut world = World::new(1);
    world.router.bird.kill();
    world.router.start_agent();
    wait_until("the tunnel is there without BIRD", 20, || {
        contains(&world.router.inside.try_shell("ip -o link")?, &interface(1))
    });
    world.router.start_bird();
    world.wait_established();
}

#[test]
fn the_agent_survives_a_restart_of_bird() {
    let mut world = World::converged(2);
    world.router.bird.kill();
    world.router.start_bird();
    world.wait_established();
    world.wait_polls("sessions", 2);
    assert_eq!(world.router.api("", "/status").0, 200);
}

#[test]
fn agent_converges_from_disk_without_control_plane() {
    let mut world = World::converged(2);
    world.wait_polls("sessions", 2);
    world.router.kill_agent();
    for endpoint in ["sessions", "config", "bird-config", "mesh"] {
        let down = Answer::Text {
            status: 503,
            kind: "text/plain",
            body: "down".into(),
        };
        world.control_plane.answer(endpoint, down);
    }
    for number in 1..=2 {
        world
            .router
            .inside
            .shell(&format!("ip link del {}", interface(number)));
    }
    world.router.start_agent();
    world.wait_established();
}
