//! A router without a routing policy exchanges no routes (RFC 8212), and a bad field costs no filter.

use crate::lab::control_plane::Answer;
use crate::lab::neighbour::Neighbour;
use crate::lab::router::{PREFIX4, policy, policy_with};
use crate::lab::watch::session_ages;
use crate::lab::world::{Speaker, World};
use crate::lab::{contains, wait_until};
use serde_json::json;

/// Asserts on both sides that the sessions are up and that no route has passed.
#[track_caller]
fn nothing_passes(world: &World) {
    let announced = |neighbour: &Neighbour, family| neighbour.heard(family).unwrap();
    for neighbour in &world.neighbours {
        neighbour.wait_established(1);
        assert_eq!(announced(neighbour, 4), Vec::<String>::new());
        assert_eq!(announced(neighbour, 6), Vec::<String>::new());
    }
    let request = "show route where source = RTS_BGP";
    let table = world.router.bird.ask(&world.router.inside, request);
    assert!(!table.contains("via") && !table.contains("AS42"), "{table}");
    let kernel = world
        .router
        .inside
        .shell("ip route show 172.20.0.0/14; ip route; ip -6 route");
    assert!(!kernel.contains(&world.neighbours[0].prefix4), "{kernel}");
}

#[test]
fn without_policy_no_route_passes_until_there_is_one() {
    let mut world = World::new(1);
    let broken = policy_with(&json!({"dn42Ipv4Prefix": "0.0.0.0"}));
    world
        .control_plane
        .answer("bird-config", Answer::Json(broken));
    world.router.start_agent();
    world.wait_established();
    let why = world.wait_condition("node", "PolicyInEffect", "False", "NoPolicy");
    assert!(why.contains("RFC 8212"), "{why}");
    world.wait_polls("bird-config", 2);
    nothing_passes(&world);
    let (_, status) = world.router.api("", "/status");
    assert!(
        status.contains("never had a valid routing policy"),
        "{status}"
    );
    assert!(status.contains("dn42Ipv4Prefix"), "{status}");
    let shown = world
        .router
        .inside
        .try_shell(&world.router.command("get policy"));
    assert!(format!("{shown:?}").contains("policy"), "{shown:?}");
    world.wait_log("no routing policy");
    let log = world.router.log();
    assert_eq!(log.matches("no routing policy").count(), 1, "{log}");

    let ages = session_ages(&world.router);
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy()));
    world.neighbours[0].wait_route(PREFIX4, "(64511,52)", 30);
    world.wait_condition("node", "PolicyInEffect", "True", "Known");
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
    world.wait_condition("policy", "Accepted", "True", "Valid");

    // The last good policy survives: no Control Plane, no document, only what was applied.
    world.control_plane.answer(
        "bird-config",
        Answer::Refusal {
            status: 500,
            code: "INTERNAL",
            retry_after: None,
        },
    );
    world.router.kill_agent();
    for file in ["state/policy.yaml", "state/.synced/policy.yaml"] {
        let _ = std::fs::remove_file(world.router.path(file));
    }
    world.router.start_agent();
    world.wait_polls("bird-config", 2);
    world.neighbours[0].wait_route(PREFIX4, "(64511,52)", 5);
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
    world.wait_condition("node", "PolicyInEffect", "True", "Known");
}

#[test]
fn hand_written_policy_counts_without_control_plane() {
    let mut world = World::new(1);
    world.control_plane.answer(
        "bird-config",
        Answer::Refusal {
            status: 404,
            code: "ROUTER_NOT_FOUND",
            retry_after: None,
        },
    );
    world.router.start_agent();
    world.wait_established();
    world.wait_condition("node", "PolicyInEffect", "False", "NoPolicy");
    nothing_passes(&world);
    let text = format!(
        "apiVersion: moenet.work/v1\nkind: RoutingPolicy\nmetadata: {{name: policy}}\n\
         spec: {{prefixes: {{ipv4: {PREFIX4}}}, rpki: {{rejectUnknown: false}}}}\n"
    );
    std::fs::write(world.router.path("state/policy.yaml"), text).unwrap();
    world.neighbours[0].wait_route(PREFIX4, "4242420998", 20);
    let prefix = world.neighbours[0].prefix4.clone();
    wait_until("the neighbour's route is imported", 20, || {
        let request = format!("show route {prefix}");
        contains(
            &world.router.bird.try_ask(&world.router.inside, &request)?,
            "AS4242421001",
        )
    });
}

#[test]
fn bad_fields_cost_no_filter_at_first_contact() {
    let body = include_str!("../cases/no-policy-fails-open/bird-config.json");
    // The second neighbour announces a prefix of ours, which the filters refuse.
    let hijack = "protocol static says4 { ipv4; route 172.23.105.184/29 blackhole; }";
    let speakers = ["", hijack].map(|says| Speaker::Bird(says.to_owned()));
    let mut world = World::with_speakers(&crate::lab::bird::version(), speakers.into());
    world.control_plane.answer(
        "bird-config",
        Answer::Json(serde_json::from_str(body).unwrap()),
    );
    world.router.start_agent();
    world.wait_established();
    let why = world.wait_condition("policy", "Accepted", "False", "Invalid");
    for field in [
        "node.bandwidth: ",
        "node.regionCode: ",
        "node.regionCommunity: ",
        "policy.dn42As: ",
        "policy.extraRanges[0]: ",
    ] {
        assert!(why.contains(field), "{field} in {why}");
    }
    world.wait_condition("node", "PolicyInEffect", "True", "Known");
    world.neighbours[0].wait_route(PREFIX4, "4242420998", 30);
    world.neighbours[0].wait_route("172.20.2.0/24", "4242421002", 30);
    let heard = world.neighbours[0].heard(4).unwrap();
    assert!(
        !heard.contains(&"172.23.105.184/29".to_owned()),
        "{heard:?}"
    );
}
