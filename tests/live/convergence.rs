//! From what the Control Plane says to Established sessions.

use crate::lab::router::{PREFIX4, PREFIX6};
use crate::lab::world::{World, uuid};

/// In the guest it is the kernel path that is tested, not a userspace stand-in.
fn assert_kernel_path(world: &World) {
    let links = world.router.inside.shell("ip -d -o link");
    assert_eq!(
        links.matches(" wireguard ").count(),
        world.neighbours.len(),
        "not kernel WireGuard:\n{links}"
    );
    assert!(
        world
            .router
            .inside
            .shell("ip -o addr show dev dummy0")
            .contains("172.23.105.177"),
        "{links}"
    );
}

fn three_sessions_come_up(mut world: World) {
    world.router.start_agent();
    world.wait_established();
    for neighbour in &world.neighbours {
        // Extended next hop: an IPv4 route by way of a link-local IPv6 address.
        neighbour.wait_route(PREFIX4, "fe80::998:1", 15);
        neighbour.wait_route(PREFIX6, "4242420998", 15);
    }
    let [first, second, _] = &world.neighbours[..] else {
        panic!("three neighbours")
    };
    second.wait_route(&first.prefix4, &format!("4242420998 {}", first.asn), 15);
    second.wait_route(&first.prefix6, &format!("4242420998 {}", first.asn), 15);
    for number in 1..=3 {
        world.wait_reported(&uuid(number), 1, "");
    }
    if std::env::var_os("MOENET_VM").is_some() {
        assert_kernel_path(&world);
    }
}

#[test]
fn three_sessions_come_up_with_routes_both_ways() {
    three_sessions_come_up(World::new(3));
}

#[test]
fn three_sessions_come_up_on_bird_2_0_12() {
    three_sessions_come_up(World::with_bird("2.0.12", 3));
}

#[test]
fn three_sessions_come_up_on_bird_3_4() {
    three_sessions_come_up(World::with_bird("3.4", 3));
}
