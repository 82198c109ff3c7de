//! `describe`, where BIRD or the neighbour's BGP says why a session is not up.

use crate::describe::{delete_override, described_by, expect, expect_up, object, save_override};
use crate::lab::contains;
use crate::lab::world::World;

/// The neighbour's operator edits BIRD's configuration and loads it.
fn edit(world: &mut World, number: u32, from: &str, to: &str) {
    let neighbour = &mut world.neighbours[number as usize - 1];
    let file = neighbour.bird().folder.join("bird.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "no {from:?} in {text}");
    std::fs::write(&file, text.replace(from, to)).unwrap();
    ask(world, number, "configure");
}

fn ask(world: &mut World, number: u32, request: &str) {
    let neighbour = &mut world.neighbours[number as usize - 1];
    neighbour.ask_bird(request);
}

#[test]
fn bgp_errors_name_the_rejecting_side() {
    let mut world = World::converged(5);
    edit(&mut world, 1, "as 4242420998;", "as 4242420997;");
    edit(&mut world, 2, "as 4242421002;", "as 4242421999;");
    world.neighbours[2].bird().kill();
    ask(
        &mut world,
        4,
        "disable moe_router \"until the new router is in\"",
    );
    edit(
        &mut world,
        5,
        "neighbor fe80::998:1%",
        "neighbor fe80::998:7%",
    );
    let told = |world: &World, number: u32, reason: &str, words: &str| {
        expect(world, &object(number), false, &[(reason, words)]);
    };
    told(
        &world,
        1,
        "RefusedByNeighbour",
        "the neighbour rejects this router's AS number, AS4242420998 (BIRD: “Received: Bad peer AS”)",
    );
    told(
        &world,
        2,
        "RefusedByUs",
        "this router rejects the neighbour, whose AS number is not AS4242421002 (BIRD: “BGP Error: Bad peer AS”)",
    );
    told(
        &world,
        3,
        "RefusedByNeighbour",
        "fe80::1:3 refuses the connection on TCP port 179 (BIRD: “Socket: Connection refused”)",
    );
    told(
        &world,
        4,
        "RefusedByNeighbour",
        "until the new router is in",
    );
    told(
        &world,
        5,
        "RefusedByNeighbour",
        // BIRD's word is "closed" or "reset by peer", as the neighbour's kernel was faster or slower.
        "the neighbour closed the connection (BIRD: “Socket: Connection ",
    );
    // The daemon is not needed to tell.
    world.router.kill_agent();
    told(
        &world,
        4,
        "RefusedByNeighbour",
        "until the new router is in",
    );
    world.router.start_agent();
    edit(&mut world, 1, "as 4242420997;", "as 4242420998;");
    edit(&mut world, 2, "as 4242421999;", "as 4242421002;");
    world.neighbours[2].start_bird_again();
    ask(&mut world, 4, "enable moe_router");
    edit(
        &mut world,
        5,
        "neighbor fe80::998:7%",
        "neighbor fe80::998:1%",
    );
    (1..=5).for_each(|number| expect_up(&world, number));
}

#[test]
fn password_limit_and_missing_bird_are_distinguished() {
    let mut world = World::new(1);
    // The neighbour wants a password that nobody told us.
    edit(
        &mut world,
        1,
        "graceful restart on;",
        "graceful restart on; password \"theirs\";",
    );
    world.router.start_agent();
    let silent = (
        "NotEstablished",
        "BIRD reports no error → ping fe80::1:1; if it answers, compare the session's password",
    );
    expect(&world, &object(1), false, &[silent]);
    let probes = described_by(&world, "", &object(1)).unwrap()["probes"].clone();
    contains(&probes.to_string(), "fe80::1:1 answers").unwrap();
    edit(&mut world, 1, "password \"theirs\";", "");
    expect_up(&world, 1);
    edit(
        &mut world,
        1,
        "route 172.20.1.0/24 blackhole;",
        "route 172.20.1.0/24 blackhole; route 172.20.77.0/24 blackhole;",
    );
    save_override(&world, 1, "set: {bgp: {importLimit: 1}}");
    expect(
        &world,
        &object(1),
        true,
        &[(
            "LimitExceeded",
            "ipv4: import limit of 1 exceeded (block) → BIRD ignores routes above the limit; if they are correct, \
             raise bgp.importLimit; an override sets spec.bgp.importLimit",
        )],
    );
    delete_override(&world, 1);
    expect_up(&world, 1);
    world.router.bird.kill();
    expect(
        &world,
        &object(1),
        false,
        &[("NotRunning", "BIRD is not running (")],
    );
    world.router.start_bird();
    expect_up(&world, 1);
}
