//! MTU, key and endpoint change under a running session.

use crate::lab::watch::{ifindex, session_ages};
use crate::lab::wireguard::KeyPair;
use crate::lab::world::{World, interface, session};
use crate::lab::{contains, wait_until};
use serde_json::Value;

/// Serves the changed session, waits for `wanted` in the output of `command`, and proves that nothing was reset.
fn change(
    world: &mut World,
    edit: impl FnOnce(&mut World, &mut Value),
    command: &str,
    wanted: &str,
) {
    let (index, ages) = (
        ifindex(&world.router, &interface(1)),
        session_ages(&world.router),
    );
    let found = world.router.inside.shell(command);
    assert!(
        !found.contains(wanted),
        "already there before the change: {found}"
    );
    let mut changed = session(1, &world.neighbours[0]);
    edit(world, &mut changed);
    world.control_plane.sessions(&[changed]);
    wait_until(wanted, 20, || {
        contains(&world.router.inside.try_shell(command)?, wanted)
    });
    world.wait_polls("sessions", 2);
    assert_eq!(
        ifindex(&world.router, &interface(1)),
        index,
        "the interface was made anew"
    );
    assert_eq!(
        session_ages(&world.router),
        ages,
        "the BGP session was reset"
    );
    world.wait_established();
}

#[test]
fn an_mtu_changes_in_place() {
    let mut world = World::converged(1);
    let command = format!("ip link show {}", interface(1));
    change(
        &mut world,
        |_, session| session["mtu"] = 1400.into(),
        &command,
        "mtu 1400",
    );
}

#[test]
fn a_peers_key_changes_in_place() {
    let mut world = World::converged(1);
    let keys = KeyPair::new();
    let command = format!("wg show {} peers", interface(1));
    let old = world.neighbours[0].keys.public.clone();
    let new = keys.public.clone();
    let rotate = |world: &mut World, session: &mut Value| {
        session["credential"]["publicKey"] = keys.public.clone().into();
        world.neighbours[0].set_private_key(keys);
    };
    change(&mut world, rotate, &command, &new);
    assert!(
        !world.router.inside.shell(&command).contains(&old),
        "the old peer stayed"
    );
}

#[test]
fn an_endpoint_changes_in_place_once_the_handshake_is_old() {
    let world = World::converged(1);
    // The neighbour moves to its second address and no longer calls; an endpoint with a young handshake is
    // left alone, so the peer is told a new address only after its old one has gone quiet.
    world.neighbours[0].move_to("192.0.2.10/29", "192.0.2.11/29");
    let command = format!("wg show {} endpoints", interface(1));
    let index = ifindex(&world.router, &interface(1));
    let mut changed = session(1, &world.neighbours[0]);
    changed["endpoint"] = "192.0.2.11:51820".into();
    world.control_plane.sessions(&[changed]);
    wait_until("the new endpoint is set", 230, || {
        contains(
            &world.router.inside.try_shell(&command)?,
            "192.0.2.11:51820",
        )
    });
    assert_eq!(
        ifindex(&world.router, &interface(1)),
        index,
        "the interface was made anew"
    );
    world.wait_established();
}
