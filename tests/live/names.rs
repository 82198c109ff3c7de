//! Endpoint names: apart from everything else, followed when the peer is silent, and left alone when it roams.

use crate::lab::dns::{Dns, Record};
use crate::lab::hands::{mtu_exception, override_of};
use crate::lab::watch::NetlinkEvents;
use crate::lab::world::{World, interface, session, uuid};
use crate::lab::{contains, wait_until};
use serde_json::Value;

/// The sessions, the first ones with these names as their endpoints.
fn named(world: &World, names: &[&str]) -> Vec<Value> {
    let mut sessions = world.sessions();
    for (session, name) in sessions.iter_mut().zip(names) {
        session["endpoint"] = format!("{name}:51820").into();
    }
    sessions
}

fn endpoint(world: &World, number: u32) -> Result<String, String> {
    world
        .router
        .inside
        .try_shell(&format!("wg show {} endpoints", interface(number)))
}

fn wait_endpoint(world: &World, number: u32, wanted: &str, seconds: u64) {
    wait_until(&format!("the endpoint is {wanted}"), seconds, || {
        contains(&endpoint(world, number)?, wanted)
    });
}

/// The message of a condition in a session's status file.
fn condition(world: &World, number: u32, about: &str) -> Result<Value, String> {
    let file = world
        .router
        .path(&format!("state/status/sessions/{}.yaml", interface(number)));
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let status: Value =
        moenet_agent::document::parse_value(&text).map_err(|error| error.to_string())?;
    let conditions = status["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|c| c["type"] == about)
        .ok_or_else(|| format!("no {about} in {status}"))
}

#[test]
fn slow_dns_does_not_delay_other_sessions() {
    let mut world = World::new(3);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    dns.set("silent.example", Record::Silence);
    world
        .control_plane
        .sessions(&named(&world, &["silent.example", "missing.example"]));
    for neighbour in &world.neighbours[..2] {
        neighbour.stop_calling();
    }
    world.router.start_agent();
    world.neighbours[2].wait_established(40);
    for number in [1, 2] {
        world.wait_reported(&uuid(number), 1, "");
        let link = world
            .router
            .inside
            .shell(&format!("ip addr show {}", interface(number)));
        assert!(
            link.contains("fe80::998:1") && link.contains("mtu 1420"),
            "{link}"
        );
        let asked = world
            .router
            .bird
            .ask(&world.router.inside, "show protocols");
        assert!(
            asked.contains(&format!("{}", 4_242_421_000 + number)),
            "{asked}"
        );
        wait_until(
            "a condition says that the name does not resolve",
            30,
            || {
                let found = condition(&world, number, "EndpointResolved")?;
                let name = if number == 1 {
                    "silent.example"
                } else {
                    "missing.example"
                };
                let told = found["message"].as_str().unwrap_or_default();
                if found["status"] == "False" {
                    contains(told, name)
                } else {
                    Err(found.to_string())
                }
            },
        );
        assert!(
            endpoint(&world, number).unwrap().contains("(none)"),
            "an endpoint out of nowhere"
        );
    }
    assert!(
        dns.asked("silent.example") > 0,
        "the name server was not asked at all"
    );
    // An address that the name gets at last is used without any other event.
    dns.addresses("missing.example", &["192.0.2.18"]);
    wait_endpoint(&world, 2, "192.0.2.18:51820", 90);
    world.neighbours[1].wait_established(40);
}

#[test]
fn unreachable_family_falls_back_to_the_other() {
    let mut world = World::new(1);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    // The IPv6 address is on the link and goes first by RFC 6724; nobody has it.
    world
        .router
        .inside
        .shell("ip addr add 2001:db8:1::1/64 dev u1 nodad");
    dns.addresses("both.example", &["2001:db8:1::2", "192.0.2.10"]);
    world
        .control_plane
        .sessions(&named(&world, &["both.example"]));
    world.neighbours[0].stop_calling();
    world.router.start_agent();
    wait_endpoint(&world, 1, "[2001:db8:1::2]:51820", 30);
    wait_endpoint(&world, 1, "192.0.2.10:51820", 90);
    world.wait_established();
    wait_until("the name is resolved", 30, || {
        let found = condition(&world, 1, "EndpointResolved")?;
        if found["status"] == "True" {
            Ok(())
        } else {
            Err(found.to_string())
        }
    });
}

#[test]
fn moved_peer_is_followed_before_its_first_handshake() {
    let mut world = World::new(1);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    dns.addresses("moved.example", &["192.0.2.12"]);
    world
        .control_plane
        .sessions(&named(&world, &["moved.example"]));
    world.neighbours[0].stop_calling();
    world.router.start_agent();
    wait_endpoint(&world, 1, "192.0.2.12:51820", 30);
    dns.addresses("moved.example", &["192.0.2.10"]);
    wait_endpoint(&world, 1, "192.0.2.10:51820", 90);
    world.wait_established();
}

#[test]
fn name_resolving_into_an_applied_tunnel_is_a_clash() {
    let mut world = World::new(2);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    dns.addresses("moves.example", &["192.0.2.18"]);
    let mut sessions = world.sessions();
    sessions[0]["ipv4"] = "172.20.1.9".into();
    sessions[1]["endpoint"] = "moves.example:51820".into();
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    world.wait_established();
    wait_endpoint(&world, 2, "192.0.2.18:51820", 30);
    dns.addresses("moves.example", &["172.20.1.9"]);
    let clash = "172.20.1.9 is the applied peer address of sessions/";
    wait_until("the clash is shown", 150, || {
        let found = condition(&world, 2, "Accepted")?;
        let is_clash = found["status"] == "True" && found["reason"] == "AddressClash";
        match is_clash && contains(&found["message"].to_string(), clash).is_ok() {
            true => Ok(()),
            false => Err(found.to_string()),
        }
    });
    world.wait_log("applied address clashes");
    contains(&world.router.api("", "/status").1, clash).unwrap();
    contains(&endpoint(&world, 2).unwrap(), "192.0.2.18:51820").unwrap();
    world
        .neighbours
        .iter()
        .for_each(|neighbour| neighbour.wait_established(10));
    dns.addresses("moves.example", &["192.0.2.18"]);
    wait_until("the clash is over", 150, || {
        let found = condition(&world, 2, "Accepted")?;
        match found["reason"] == "Valid" {
            true => Ok(()),
            false => Err(found.to_string()),
        }
    });
}

#[test]
fn endpoint_drift_of_a_silent_one_is_after_three_minutes() {
    let mut world = World::new(2);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    dns.addresses("roams.example", &["192.0.2.10"]);
    dns.addresses("moves.example", &["192.0.2.18"]);
    world
        .control_plane
        .sessions(&named(&world, &["roams.example", "moves.example"]));
    world.router.start_agent();
    world.wait_established();
    for number in [1, 2] {
        world.wait_reported(&uuid(number), 1, "");
    }
    // The first neighbour sends from another address of its own; WireGuard follows it.
    world.neighbours[0].readdress("192.0.2.10/29", "192.0.2.11/29");
    wait_endpoint(&world, 1, "192.0.2.11:51820", 90);
    // The second falls silent and is at another address; its name says so at once.
    world.neighbours[1].stop_calling();
    world.neighbours[1].readdress("192.0.2.18/29", "192.0.2.19/29");
    dns.addresses("moves.example", &["192.0.2.19"]);
    world.wait_polls("sessions", 3);
    let writes = || {
        world
            .router
            .metric("moenet_agent_netlink_writes_total")
            .unwrap()
    };
    let (events, before) = (NetlinkEvents::record(&world.router), writes());
    world.wait_polls("sessions", 15);
    wait_endpoint(&world, 1, "192.0.2.11:51820", 1);
    wait_endpoint(&world, 2, "192.0.2.18:51820", 1);
    assert_eq!(
        writes(),
        before,
        "something was written because an endpoint roamed"
    );
    assert_eq!(events.seen(), Vec::<String>::new());
    // Three minutes after its last handshake the second is called where its name leads now.
    wait_endpoint(&world, 2, "192.0.2.19:51820", 270);
    world.neighbours[1].wait_established(60);
    wait_endpoint(&world, 1, "192.0.2.11:51820", 1);
}

#[test]
fn late_name_replaces_a_working_old_endpoint() {
    let mut world = World::new(1);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    world.router.start_agent();
    world.wait_established();
    world.wait_reported(&uuid(1), 1, "");
    let mut renamed = session(1, &world.neighbours[0]);
    renamed["endpoint"] = "later.example:51820".into();
    world.control_plane.sessions(&[renamed]);
    wait_until("the name is known not to resolve", 30, || {
        let found = condition(&world, 1, "EndpointResolved")?;
        if found["status"] == "False" {
            Ok(())
        } else {
            Err(found.to_string())
        }
    });
    let applied = || {
        let file = world
            .router
            .path(&format!("state/applied/sessions/{}.yaml", interface(1)));
        std::fs::read_to_string(file).unwrap()
    };
    assert!(
        applied().contains("endpoint: 192.0.2.10:51820"),
        "not in force, and said to be: {}",
        applied()
    );
    world.neighbours[0].wait_established(5);
    dns.addresses("later.example", &["192.0.2.11"]);
    wait_until("the new endpoint is in force", 90, || {
        contains(&applied(), "endpoint: later.example:51820")
    });
    world.wait_established();
}

#[test]
fn session_refused_for_its_address_recovers_when_name_moves() {
    let mut world = World::new(2);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    dns.addresses("moves.example", &["172.20.1.9"]);
    let mut sessions = world.sessions();
    sessions[0]["ipv4"] = "172.20.1.9".into();
    sessions[1]["endpoint"] = "moves.example:51820".into();
    world.neighbours[1].stop_calling();
    world.control_plane.sessions(&sessions[..1]);
    world.router.start_agent();
    world.neighbours[0].wait_established(40);
    world.wait_reported(&uuid(1), 1, "");
    world.control_plane.sessions(&sessions);
    let clash = "172.20.1.9 is the applied peer address of sessions/";
    world.wait_reported(&uuid(2), 2, clash);

    // The refusal lasts as long as its cause, whatever else changes, and is logged once.
    for mtu in [1380, 1390, 1400] {
        world.write(&override_of(1), &mtu_exception(1, mtu));
        world.wait_mtu(1, mtu);
        world.wait_polls("sessions", 2);
        world.wait_refused(2, &[clash]);
        let endpoint = endpoint(&world, 2).unwrap_or_default();
        assert!(!endpoint.contains("172.20.1.9"), "{endpoint}");
    }
    assert_eq!(
        world.control_plane.reported(&uuid(2)).map(|(code, _)| code),
        Some(2)
    );
    world.wait_log("configuration rejected");
    let log = world.log();
    let refused = log
        .lines()
        .filter(|line| line.contains("configuration rejected") && line.contains(&interface(2)));
    assert_eq!(refused.count(), 1, "{log}");

    dns.addresses("moves.example", &["192.0.2.18"]);
    wait_endpoint(&world, 2, "192.0.2.18:51820", 120);
    world.wait_established();
    world.wait_reported(&uuid(2), 1, "");
}

#[test]
fn clashing_new_endpoint_keeps_the_applied_one_until_it_moves() {
    let mut world = World::new(2);
    let dns = Dns::new(&world.router, &world.control_plane.url);
    dns.addresses("moves.example", &["172.20.1.9"]);
    let mut sessions = world.sessions();
    sessions[0]["ipv4"] = "172.20.1.9".into();
    world.control_plane.sessions(&sessions);
    world.router.start_agent();
    world.wait_established();
    world.wait_reported(&uuid(2), 1, "");
    let ages = world.ages();
    sessions[1]["endpoint"] = "moves.example:51820".into();
    world.control_plane.sessions(&sessions);
    let clash = "172.20.1.9 is the applied peer address of sessions/";
    world.wait_reported(&uuid(2), 2, clash);
    for mtu in [1380, 1390] {
        world.write(&override_of(1), &mtu_exception(1, mtu));
        world.wait_mtu(1, mtu);
        world.wait_polls("sessions", 2);
        world.wait_refused(2, &[clash]);
        wait_endpoint(&world, 2, "192.0.2.18:51820", 1);
    }
    dns.addresses("moves.example", &["192.0.2.18"]);
    wait_until("the name is in effect", 120, || {
        contains(
            &world.read(&format!("applied/sessions/{}.yaml", interface(2))),
            "endpoint: moves.example:51820",
        )
    });
    world.wait_reported(&uuid(2), 1, "");
    assert_eq!(world.ages(), ages, "a session was reset");
}
