//! What somebody changes by hand in the kernel is put right, and nothing else is touched.

use crate::lab::watch::{ifindex, session_ages};
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};

#[test]
fn a_deleted_link_is_made_again() {
    let world = World::converged(2);
    let untouched = ifindex(&world.router, &interface(2));
    world
        .router
        .inside
        .shell(&format!("ip link del {}", interface(1)));
    wait_until("the link is back", 20, || {
        contains(&world.router.inside.try_shell("ip -o link")?, &interface(1))
    });
    world.wait_established();
    assert_eq!(ifindex(&world.router, &interface(2)), untouched);
}

#[test]
fn a_removed_address_returns() {
    let world = World::converged(1);
    let device = interface(1);
    world
        .router
        .inside
        .shell(&format!("ip addr del fe80::998:1/64 dev {device}"));
    wait_until("the address is back", 20, || {
        contains(
            &world
                .router
                .inside
                .try_shell(&format!("ip -6 addr show dev {device}"))?,
            "fe80::998:1/64",
        )
    });
    world.wait_established();
}

#[test]
fn foreign_interface_is_refused_and_unchanged() {
    let mut world = World::new(2);
    let device = interface(1);
    world.router.inside.shell(&format!(
        "ip link add {device} type bridge && ip addr add 198.51.100.9/32 dev {device}"
    ));
    let before = world
        .router
        .inside
        .shell(&format!("ip -d addr show dev {device}"));
    world.router.start_agent();
    world.neighbours[1].wait_established(40);
    world.wait_reported(&uuid(1), 2, &device);
    assert_eq!(
        world
            .router
            .inside
            .shell(&format!("ip -d addr show dev {device}")),
        before
    );
}

#[test]
fn reassigned_link_is_left_unchanged_and_logged_once() {
    let world = World::converged(1);
    let device = interface(1);
    let alias = |alias: &str| {
        world
            .router
            .inside
            .shell(&format!("ip link set {device} alias {alias:?}"))
    };
    alias("somebody's");
    world.wait_reported(&uuid(1), 2, "belongs to another program");
    let before = world.router.inside.shell(&format!(
        "ip -d addr show dev {device}; ip route show dev {device}"
    ));
    let refused = "tunnel cannot be configured";
    world.wait_log(refused);
    std::thread::sleep(std::time::Duration::from_secs(15));
    assert_eq!(world.log().matches(refused).count(), 1, "{}", world.log());
    assert_eq!(
        world.router.inside.shell(&format!(
            "ip -d addr show dev {device}; ip route show dev {device}"
        )),
        before
    );
    alias(&format!("moenet-agent:{}", uuid(1)));
    world.wait_reported(&uuid(1), 1, "");
    world.wait_log("tunnel configured again");
}

#[test]
fn a_session_that_claims_the_uplink_does_not_touch_it() {
    let mut world = World::new(2);
    let before = world.router.inside.shell("ip -d addr show dev u2");
    let mut bad = session(1, &world.neighbours[0]);
    bad["interface"] = "u2".into();
    world
        .control_plane
        .sessions(&[bad, session(2, &world.neighbours[1])]);
    world.router.start_agent();
    world.neighbours[1].wait_established(40);
    world.wait_reported(&uuid(1), 2, "u2");
    assert_eq!(world.router.inside.shell("ip -d addr show dev u2"), before);
    session_ages(&world.router).named("ebgp_");
}
