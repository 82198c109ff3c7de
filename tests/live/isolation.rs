//! One session's fault is its own.

use crate::lab::world::{World, uuid};
use serde_json::Value;

/// Ten sessions, each with a neighbour behind it, of which four are hostile or broken.
fn ten_sessions(world: &World) -> Vec<Value> {
    let mut sessions = world.sessions();
    sessions[2]["name"] = "x\"; }\nprotocol static evil { ipv4; }\r\n# ' \\ \u{2028} \u{0}".into();
    sessions[3]["credential"]["publicKey"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==".into();
    sessions[4]["interface"] = "lo".into();
    sessions[5]["interface"] = "../../etc/cron.d/x".into();
    sessions
}

#[test]
fn bad_sessions_are_reported_and_the_rest_is_established() {
    let mut world = World::new(10);
    let loopback = world.router.inside.shell("ip -d link show lo");
    world.control_plane.sessions(&ten_sessions(&world));
    world.router.start_agent();
    world.wait_reported(&uuid(4), 2, "publicKey");
    world.wait_reported(&uuid(5), 2, "lo");
    world.wait_reported(&uuid(6), 2, "interface");
    for number in [1u32, 2, 3, 7, 8, 9, 10] {
        world.wait_reported(&uuid(number), 1, "");
        world.neighbours[number as usize - 1].wait_established(40);
    }
    assert_eq!(world.router.inside.shell("ip -d link show lo"), loopback);
    let protocols = world
        .router
        .bird
        .ask(&world.router.inside, "show protocols");
    assert!(
        !protocols.contains("evil"),
        "text from outside became configuration:\n{protocols}"
    );
}
