//! Sessions over GRE.

use super::*;

/// Whether GRE can be tested here. The guest of `tests/run.sh vm` has it.
fn has_gre() -> bool {
    let probe = World::new(0)
        .router
        .inside
        .try_shell("ip link add g9 type gre local 192.0.2.1 remote 192.0.2.2");
    if let Err(why) = &probe {
        let must = ["CI", "MOENET_VM"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        assert!(!must, "this kernel has no GRE: {why}");
        eprintln!("NOT TESTED: this kernel has no GRE; the guest of `tests/run.sh vm` has");
    }
    probe.is_ok()
}

/// A neighbour at the far end of a GRE tunnel that its operator made between these outer addresses.
fn over_gre(kind: &str, ours: &str, theirs: &[&str]) -> World {
    let mut world = World::new(0);
    let neighbour = Neighbour::new(1);
    let options = format!("{} {}", family(4, "extended next hop on;"), family(6, ""));
    let bgp = bgp(
        "moe_router",
        neighbour.asn,
        &neighbour.address,
        "fe80::998:1%'t0'",
        &options,
    );
    let bird = config(&neighbour, &bgp);
    let outer: Vec<_> = theirs
        .iter()
        .map(|address| format!("ip addr replace {address} dev u0 nodad"))
        .collect();
    let end = |address: &str| address.split('/').next().unwrap().to_owned();
    let setup = format!(
        "ip addr add 172.20.1.9/32 dev lo && ip addr add fd42:1::9/128 dev lo nodad && {} && \
         ip link add t0 type {kind} local {} remote {} ttl 64 && ip link set t0 addrgenmode none mtu 1400 && \
         ip addr add {}/64 dev t0 && ip link set t0 up",
        outer
            .join(" && ")
            .replace(" nodad", if kind == "gre" { "" } else { " nodad" }),
        end(theirs[0]),
        end(ours),
        neighbour.address
    );
    world.join(neighbour, 1, |neighbour, _| {
        neighbour.start_daemon(&bird::version(), &setup, &bird)
    });
    if kind == "ip6gre" {
        world
            .router
            .inside
            .shell(&format!("ip addr add {ours} dev u1 nodad"));
    }
    start(&mut world, &[gre(kind, &end(theirs[0]))]);
    // The emulated guest, beside other work, takes the agent a minute to get so far.
    world.neighbours[0].wait_established(150);
    world
}

fn gre(kind: &str, endpoint: &str) -> Value {
    json!({"type": kind, "interface": "gre_1", "endpoint": endpoint, "credential": null, "mtu": 1400})
}

fn both_families_pass(world: &World) {
    reaches(world, PREFIX4, "fe80::998:1");
    reaches(world, PREFIX6, "fe80::998:1");
    // GRE hides nothing (31), and is a tunnel (83).
    for prefix in [PREFIX4, PREFIX6] {
        let route = world.neighbours[0]
            .route(prefix)
            .unwrap()
            .replace(", ", ",");
        assert!(
            route.contains("(64511,31)") && route.contains("(64511,83)"),
            "{route}"
        );
        assert!(
            (32..=36).all(|class| !route.contains(&format!("(64511,{class})"))),
            "{route}"
        );
    }
}

/// The far end moves to its second address: the tunnel stays, and its end moves.
fn moves_its_end(kind: &str, ours: &str, theirs: [&str; 2]) {
    if !has_gre() {
        return;
    }
    let world = over_gre(kind, ours, &theirs);
    both_families_pass(&world);
    let index = ifindex(&world.router, "gre_1");
    let new = theirs[1].split('/').next().unwrap();
    let ours = ours.split('/').next().unwrap();
    world.neighbours[0].inside.shell(&format!(
        "ip link set t0 type {kind} local {new} remote {ours} ttl 64"
    ));
    let mut moved = session(1, &world.neighbours[0]);
    json_patch::merge(&mut moved, &gre(kind, new));
    world.control_plane.sessions(&[moved]);
    wait_until("the end has moved", 60, || {
        contains(
            &world.router.inside.try_shell("ip -d link show gre_1")?,
            &format!("remote {new} "),
        )
    });
    assert_eq!(
        ifindex(&world.router, "gre_1"),
        index,
        "the interface was made anew"
    );
    both_families_pass(&world);
    let link = world.router.inside.shell("ip -d link show gre_1");
    contains(&link, "mtu 1400").unwrap();
    contains(
        &link,
        if kind == "gre" {
            "ttl 64"
        } else {
            "hoplimit 64"
        },
    )
    .unwrap();
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    contains(&log, "set ends of gre_1 to").unwrap();
}

#[test]
fn a_session_over_gre_moves_its_end_in_place() {
    moves_its_end("gre", "192.0.2.9/29", ["192.0.2.10/29", "192.0.2.11/29"]);
}

#[test]
fn a_session_over_ip6gre_moves_its_end_in_place() {
    moves_its_end(
        "ip6gre",
        "2001:db8::1/64",
        ["2001:db8::2/64", "2001:db8::3/64"],
    );
}
