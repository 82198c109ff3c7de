//! What the Control Plane says of the routing policy and cannot be meant.

use crate::lab::control_plane::Answer;
use crate::lab::router::{PREFIX4, policy, policy_with};
use crate::lab::watch::session_ages;
use crate::lab::world::{World, interface};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// An error of the policy, that names the field and what was said; nothing else notices.
#[track_caller]
fn refused(world: &World, policy: Value, field: &str, what: &str) {
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy));
    let mut why = String::new();
    wait_until(&format!("{field} is refused"), 40, || {
        why = world.wait_condition("policy", "Accepted", "False", "Invalid");
        contains(&why, field).and_then(|()| contains(&why, what))
    });
    assert_eq!(world.status("policy")["phase"], "Error");
    let (_, status) = world.router.api("", "/status");
    assert!(status.contains(field), "{status}");
    for number in 1..=2_u32 {
        let session = world.status(&format!("sessions/{}", interface(number)));
        assert_eq!(
            (&session["phase"], &session["lastError"]),
            (&json!("Established"), &Value::Null),
            "{session}"
        );
    }
    // The last good policy: region (East Asia), prefix and transit.
    let own = world.neighbours[0].route(PREFIX4).unwrap();
    assert!(own.contains("(64511,52)"), "{own}");
    assert!(
        world.neighbours[1]
            .route("172.20.1.0/24")
            .unwrap()
            .contains("4242421001")
    );
}

fn named(key: &str, value: &str) -> Value {
    let mut policy = policy();
    policy["node"][key] = json!(value);
    policy
}

#[test]
fn policy_warnings_are_logged_and_harmless() {
    let mut world = World::with_bird(&crate::lab::bird::version(), 1);
    let odd = json!({"dn42As": "4242420999", "dn42Ipv4Prefix": "172.23.105.176/30", "asPathMaxLen": 4_294_967_295_u32,
        "ebgpImportLimit": 4_294_967_295_u32, "ebgpExportLimit": "4294967295"});
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy_with(&odd)));
    world.router.start_agent();
    world.wait_established();
    wait_until("the policy's status says what is odd", 30, || {
        let why = world.wait_condition("policy", "Accepted", "True", "Valid");
        contains(
            &why,
            "policy.dn42As: AS4242420999 is another network's; using AS4242420998",
        )?;
        contains(&why, "172.23.105.176/30 is not announced")
    });
    let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
    assert_eq!(log.matches("routing policy warning").count(), 2, "{log}");
    // Who we are comes from the node, and the other family is announced.
    world.neighbours[0].wait_route(crate::lab::router::PREFIX6, "4242420998", 20);
    let route = world.neighbours[0]
        .route(crate::lab::router::PREFIX6)
        .unwrap();
    assert!(!route.contains("4242420999"), "{route}");
}

#[test]
fn unknown_policy_name_keeps_the_last_good_policy() {
    let mut world = World::converged(2);
    world.wait_condition("policy", "Accepted", "True", "Valid");
    world.neighbours[0].wait_route(PREFIX4, "(64511,52)", 20);
    wait_until("both sessions' statuses say so", 30, || {
        let phase = |n: u32| {
            Ok::<_, String>(world.status(&format!("sessions/{}", interface(n)))["phase"].clone())
        };
        let phases = [phase(1)?, phase(2)?];
        if phases == ["Established", "Established"] {
            Ok(())
        } else {
            Err(format!("{phases:?}"))
        }
    });
    let ages = session_ages(&world.router);
    refused(
        &world,
        named("regionCommunity", "DN42_REGION_MARS"),
        "node.regionCommunity",
        "DN42_REGION_MARS",
    );
    refused(
        &world,
        named("continentLc", "LC_ORIGIN_ATLANTIS"),
        "node.continentLc",
        "LC_ORIGIN_",
    );
    refused(
        &world,
        policy_with(&json!({"dn42Ipv4Prefix": "172.23.105.177/28"})),
        "dn42Ipv4Prefix",
        "/28",
    );
    refused(
        &world,
        policy_with(&json!({"dn42Ipv4Prefix": "0.0.0.0/0"})),
        "dn42Ipv4Prefix",
        "every address",
    );
    refused(
        &world,
        policy_with(&json!({"asPathMaxLen": -1})),
        "asPathMaxLen",
        "-1",
    );
    refused(
        &world,
        policy_with(&json!({"dn42Ipv4Prefix": "172.20.0.0/14"})),
        "prefixes.ipv4",
        "wider than /21",
    );
    refused(
        &world,
        policy_with(&json!({"ebgpImportLimit": "many"})),
        "ebgpImportLimit",
        "many",
    );
    refused(
        &world,
        policy_with(&json!({"dn42Ipv6Prefix": ""})),
        "dn42Ipv6Prefix",
        "invalid address range",
    );
    refused(
        &world,
        policy_with(&json!({"rpkiServers": [{"host": "a b", "port": 1}]})),
        "rpkiServers[0].host",
        "a b",
    );
    // It outlives the agent, for the last good policy is a document.
    world.control_plane.answer(
        "bird-config",
        Answer::Json(named("regionCommunity", "DN42_REGION_MARS")),
    );
    world.router.kill_agent();
    world.router.start_agent();
    refused(
        &world,
        named("regionCommunity", "DN42_REGION_MARS"),
        "node.regionCommunity",
        "DN42_REGION_MARS",
    );
    // Another region, with a name, is in force without a reset.
    world.control_plane.answer(
        "bird-config",
        Answer::Json(named("regionCommunity", "DN42_REGION_EU")),
    );
    world.wait_condition("policy", "Accepted", "True", "Valid");
    world.neighbours[0].wait_route(PREFIX4, "(64511,41)", 40);
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}
