//! The interface of a running session gets another name or another type: the new link is made before the old one
//! goes, and a kernel that refuses the new one leaves the working tunnel up.

use serde_json::{Value, json};

use crate::lab::watch::{NetlinkEvents, ifindex};
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};

/// A router with one established session. The emulated guest, beside other work, takes minutes to get so far.
fn converged() -> World {
    let mut world = World::new(1);
    world.router.start_agent();
    world.neighbours[0].wait_established(150);
    world.wait_measured();
    world
}

/// The session of the first neighbour, with other fields.
fn changed(world: &World, fields: &Value) -> Value {
    let mut session = session(1, &world.neighbours[0]);
    json_patch::merge(&mut session, fields);
    session
}

/// GRE to the outer address of the first neighbour.
fn gre() -> Value {
    json!({"type": "gre", "endpoint": "192.0.2.10", "mtu": 1400})
}

fn link(world: &World, name: &str) -> Result<String, String> {
    world
        .router
        .inside
        .try_shell(&format!("ip -d link show {name}"))
}

/// Waits long enough for a guest that is emulated, beside other work.
fn wait_link(world: &World, name: &str, words: &str) {
    wait_until(&format!("{name} is {words}"), 90, || {
        contains(&link(world, name)?, words)
    });
}

/// Whether the kernel makes such a link.
fn kernel_has(kind: &str) -> bool {
    let line = match kind {
        "gre" => "ip link add g9 type gre local 192.0.2.1 remote 192.0.2.2",
        _ => "ip link add w9 type wireguard",
    };
    let made = World::new(0).router.inside.try_shell(line);
    let must = std::env::var_os("MOENET_VM").is_some();
    assert!(made.is_ok() || !must, "the guest has no {kind}: {made:?}");
    made.is_ok()
}

#[test]
fn rename_keeps_the_tunnel_until_the_name_is_free() {
    let world = converged();
    let (ages, index) = (world.ages(), ifindex(&world.router, &interface(1)));
    world
        .router
        .inside
        .shell("ip link add wg_taken type bridge");
    let wanted = changed(&world, &json!({"interface": "wg_taken"}));
    world.control_plane.sessions(&[wanted]);
    world.wait_reported(&uuid(1), 2, "wg_taken");
    assert_eq!(ifindex(&world.router, &interface(1)), index);
    assert_eq!(world.ages(), ages, "the neighbour's session was reset");

    let events = NetlinkEvents::record(&world.router);
    world.router.inside.shell("ip link del wg_taken");
    world.neighbours[0].wait_established(90);
    wait_until("the interface has its new name", 90, || {
        let peers = world.router.inside.try_shell("wg show wg_taken peers")?;
        contains(&peers, &world.neighbours[0].keys.public)
    });
    world.wait_reported(&uuid(1), 1, "");
    world.neighbours[0].wait_established(90);
    world.has_no_link(1).unwrap();
    if kernel_has("wireguard") {
        assert_eq!(
            ifindex(&world.router, "wg_taken"),
            index,
            "the link was made again"
        );
        let deleted = format!("{}:", interface(1));
        let deleted = |line: &&String| line.starts_with("Deleted") && line.contains(&deleted);
        let seen = events.seen();
        assert_eq!(seen.iter().find(deleted), None, "the link was deleted");
    }
}

#[test]
fn refused_type_leaves_the_working_tunnel_up() {
    let world = converged();
    let (ages, index) = (world.ages(), ifindex(&world.router, &interface(1)));
    let refuses = if kernel_has("gre") {
        // The kernel has one link for each pair of ends, and this one is the operator's.
        let inside = &world.router.inside;
        inside.shell("ip link add g8 type gre remote 192.0.2.10");
        inside.shell("ip link add g9 type gre local 192.0.2.9 remote 192.0.2.10");
        "exists"
    } else {
        "the kernel has no such links"
    };
    world.control_plane.sessions(&[changed(&world, &gre())]);
    world.wait_reported(&uuid(1), 2, refuses);
    world.wait_polls("sessions", 3);
    assert_eq!(
        ifindex(&world.router, &interface(1)),
        index,
        "the tunnel was deleted"
    );
    assert_eq!(world.ages(), ages, "the neighbour's session was reset");
    // Nothing is left of the attempts.
    let links = world.router.inside.shell("ip -o link");
    let marked = links.lines().filter(|line| line.contains(&uuid(1))).count();
    assert_eq!(marked, 1, "{links}");
    world.control_plane.sessions(&world.sessions());
    world.wait_reported(&uuid(1), 1, "");
    assert_eq!(world.ages(), ages, "the neighbour's session was reset");
}

/// The place of the first event that contains all of these words.
fn place(events: &[String], words: &[&str]) -> Option<usize> {
    let has = |line: &String| words.iter().all(|word| line.contains(word));
    events.iter().position(has)
}

#[test]
fn type_change_creates_new_link_before_deleting_old() {
    if !kernel_has("gre") {
        eprintln!("NOT TESTED: this kernel has no GRE; the guest of `tests/run.sh vm` has");
        return;
    }
    let world = converged();
    let name = interface(1);
    let events = NetlinkEvents::record(&world.router);
    world.control_plane.sessions(&[changed(&world, &gre())]);
    wait_link(&world, &name, "gre remote 192.0.2.10");
    world.wait_reported(&uuid(1), 1, "");
    let seen = events.seen();
    let (made, gone) = (
        place(&seen, &["link/gre"]),
        place(&seen, &["Deleted", &name]),
    );
    assert!(made.is_some() && gone.is_some() && made < gone, "{seen:#?}");

    let events = NetlinkEvents::record(&world.router);
    world.control_plane.sessions(&world.sessions());
    wait_link(&world, &name, "wireguard");
    // The neighbour's operator changed nothing, so its session is back.
    world.neighbours[0].wait_established(150);
    world.wait_reported(&uuid(1), 1, "");
    let seen = events.seen();
    let (made, gone) = (
        place(&seen, &["link/none"]),
        place(&seen, &["Deleted", &name]),
    );
    assert!(made.is_some() && gone.is_some() && made < gone, "{seen:#?}");
}
