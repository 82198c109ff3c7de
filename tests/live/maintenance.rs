//! Draining, as the neighbour sees it.

use crate::lab::router::{PREFIX4, PREFIX6};
use crate::lab::wait_until;
use crate::lab::watch::session_ages;
use crate::lab::world::World;
use serde_json::Value;

fn without_community(world: &World, prefix: &str) -> Result<(), String> {
    let route = world.neighbours[0].route(prefix)?;
    if !route.contains(prefix) || route.contains("65535") { Err(route) } else { Ok(()) }
}

/// The routes whose drain is watched: our own and one in transit, of both families.
fn watched(world: &World) -> [&str; 4] {
    [PREFIX4, PREFIX6, &world.neighbours[1].prefix4, &world.neighbours[1].prefix6]
}

fn local_preference_is_zero(world: &World) -> Result<(), String> {
    let prefix = &world.neighbours[1].prefix4;
    let route = world.router.bird.try_ask(&world.router.inside, &format!("show route {prefix} all"))?;
    let value = route
        .lines()
        .find(|line| line.contains("local_pref"))
        .and_then(|line| line.rsplit([' ', ':']).next());
    if value == Some("0") { Ok(()) } else { Err(route) }
}

#[test]
fn maintenance_drains_every_route_without_a_reset_survives_a_restart_and_stop_restores() {
    let mut world = World::converged(2);
    for prefix in watched(&world) {
        wait_until("the route is there undrained", 15, || without_community(&world, prefix));
    }
    let ages = session_ages(&world.router);
    let (code, body) = world.router.api("-X POST", "/maintenance/start");
    assert_eq!((code, body.contains("Maintenance mode enabled")), (200, true), "{body}");
    for prefix in watched(&world) {
        world.neighbours[0].wait_route(prefix, "(65535,0)", 15);
    }
    wait_until("imports have local preference 0", 15, || local_preference_is_zero(&world));
    world.router.kill_agent();
    world.router.start_agent();
    let state: Value = serde_json::from_str(&world.router.api("", "/maintenance").1).unwrap();
    assert_eq!(state["enabled"], true, "{state}");
    assert_eq!(world.router.api("", "/sync").0, 503);
    assert_eq!(world.router.api("-X POST", "/maintenance/stop").0, 200);
    for prefix in watched(&world) {
        wait_until("the route is restored", 15, || without_community(&world, prefix));
    }
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}
