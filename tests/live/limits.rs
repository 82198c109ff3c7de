//! Limits hold, show in the status, and kill no session.

use crate::lab::control_plane::Answer;
use crate::lab::router::policy_with;
use crate::lab::watch::session_ages;
use crate::lab::world::{Speaker, World, interface};
use crate::lab::{bird, wait_until};
use serde_json::{Value, json};

/// So many IPv4 prefixes of DN42, beside the neighbour's own.
fn says(count: u32) -> Speaker {
    let prefix = |i: u32| std::net::Ipv4Addr::from(u32::from_be_bytes([172, 21, 0, 0]) + 8 * i);
    let routes: String = (0..count)
        .map(|i| format!("route {}/29 blackhole;\n", prefix(i)))
        .collect();
    Speaker::Bird(format!("protocol static says4 {{ ipv4;\n{routes}}}"))
}

fn count(text: &str) -> Result<usize, String> {
    let line = text
        .lines()
        .find(|line| line.contains(" of "))
        .ok_or(text)?;
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(line.to_owned())
}

/// How many IPv4 routes the router took from the first neighbour.
fn taken(world: &World) -> Result<usize, String> {
    let request = "show route table master4 protocol ebgp_wg_4242421001 count";
    count(&world.router.bird.try_ask(&world.router.inside, request)?)
}

#[track_caller]
fn wait_taken(world: &World, wanted: usize) {
    wait_until(&format!("{wanted} routes are taken"), 60, || {
        match taken(world)? {
            found if found == wanted => Ok(()),
            found => Err(format!("{found}")),
        }
    });
}

/// How many of them the second neighbour has.
fn passed_on(world: &World) -> Result<usize, String> {
    Ok(world.neighbours[1]
        .heard(4)?
        .iter()
        .filter(|prefix| prefix.ends_with("/29"))
        .count())
}

#[test]
fn import_limit_blocks_and_export_limit_only_warns() {
    // With the neighbour's own prefix that makes 10 001.
    let mut world = World::with_speakers(
        &bird::version(),
        vec![says(10_000), Speaker::Bird(String::new())],
    );
    world.router.start_agent();
    world.wait_established();
    wait_taken(&world, 10_000);
    let why = world.wait_condition(
        "sessions/wg_4242421001",
        "WithinLimits",
        "False",
        "LimitExceeded",
    );
    assert!(
        why.contains("ebgp_wg_4242421001 ipv4: import limit of 10000 exceeded"),
        "{why}"
    );
    // The second neighbour is told of everything, a hundred times the limit.
    wait_until("the transit session carries all", 60, || {
        match passed_on(&world)? {
            found if found >= 9_999 => Ok(()),
            found => Err(format!("{found}")),
        }
    });
    let why = world.wait_condition(
        "sessions/wg_4242421002",
        "WithinLimits",
        "False",
        "LimitExceeded",
    );
    assert!(
        why.contains("ebgp_wg_4242421002 ipv4: export limit of 100 exceeded"),
        "{why}"
    );
    let ages = session_ages(&world.router);
    world.wait_polls("sessions", 5);
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
    assert_eq!(ages.established(), 2, "{ages:?}");
    assert_eq!(taken(&world), Ok(10_000));
    for number in [1_u32, 2] {
        let status = world.status(&format!("sessions/{}", interface(number)));
        assert_eq!(status["bgp"]["state"], "established", "{status}");
    }
}

fn a_low_limit_holds(version: &str) {
    let mut world = World::with_speakers(version, vec![says(8), Speaker::Bird(String::new())]);
    let limits = json!({"ebgpImportLimit": 5, "ebgpExportLimit": 3});
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy_with(&limits)));
    world.router.start_agent();
    world.wait_established();
    wait_taken(&world, 5);
    world.wait_condition(
        "sessions/wg_4242421001",
        "WithinLimits",
        "False",
        "LimitExceeded",
    );
    let why = world.wait_condition(
        "sessions/wg_4242421002",
        "WithinLimits",
        "False",
        "LimitExceeded",
    );
    assert!(why.contains("export limit of 3"), "{why}");
    let ages = session_ages(&world.router);
    // An operator who knows the neighbour raises its limit, which is in force without a reset.
    let raised = "apiVersion: moenet.work/v1\nkind: Override\nmetadata: {name: wg_4242421001}\n\
                  spec: {reason: they grow, set: {bgp: {importLimit: 100}}}\n";
    std::fs::write(
        world
            .router
            .path("state/overrides/sessions/wg_4242421001.yaml"),
        raised,
    )
    .unwrap();
    wait_taken(&world, 9);
    world.wait_condition(
        "sessions/wg_4242421001",
        "WithinLimits",
        "True",
        "BelowLimits",
    );
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
}

#[test]
fn import_limit_is_raised_in_place_bird_2_0_12() {
    a_low_limit_holds("2.0.12");
}

#[test]
fn import_limit_is_raised_in_place_bird_3_4() {
    a_low_limit_holds("3.4");
}

/// Sixty-one prefixes where five are taken and fifty heard: what is not heard costs no memory, and no session is
/// reset for it. The flood comes once the link has its class, for BIRD 2 forgets at a reload that the limit is hit.
fn a_flood_is_not_even_heard(version: &str) {
    let mut world = World::with_speakers(version, vec![says(2), Speaker::Bird(String::new())]);
    let limits = json!({"ebgpImportLimit": 5});
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy_with(&limits)));
    world.router.start_agent();
    world.wait_established();
    world.wait_measured();
    let ages = session_ages(&world.router);
    let (Speaker::Bird(few), Speaker::Bird(many)) = (says(2), says(60)) else {
        unreachable!("both are BIRD")
    };
    let file = world.neighbours[0].bird().folder.join("bird.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&few), "{text}");
    std::fs::write(&file, text.replace(&few, &many)).unwrap();
    world.neighbours[0].ask_bird("configure");
    wait_until("the receive limit holds", 30, || {
        let protocol = "show protocols all \"ebgp_wg_4242421001\"";
        let found = world.router.bird.try_ask(&world.router.inside, protocol)?;
        if found.contains("50 [HIT]") {
            Ok(())
        } else {
            Err(found)
        }
    });
    wait_taken(&world, 5);
    wait_until("the status says so", 40, || {
        let why = world.wait_condition(
            "sessions/wg_4242421001",
            "WithinLimits",
            "False",
            "LimitExceeded",
        );
        crate::lab::contains(&why, "receive limit of 50 exceeded")
    });
    wait_until("the log says so", 30, || {
        let log = std::fs::read_to_string(world.router.path("agent.log")).unwrap();
        crate::lab::contains(&log, "route limit exceeded")
    });
    assert_eq!(session_ages(&world.router), ages, "a session was reset");
    assert_eq!(taken(&world), Ok(5));
}

#[test]
fn route_flood_resets_no_session_bird_2_0_12() {
    a_flood_is_not_even_heard("2.0.12");
}

#[test]
fn route_flood_resets_no_session_bird_3_4() {
    a_flood_is_not_even_heard("3.4");
}

#[test]
fn zero_or_absent_limits_mean_the_defaults() {
    let mut world = World::with_speakers(
        &bird::version(),
        vec![says(3), Speaker::Bird(String::new())],
    );
    let fields = [
        "ebgpImportLimit",
        "ebgpExportLimit",
        "ibgpImportLimit",
        "asPathMaxLen",
    ];
    let all = |value: Value| {
        fields
            .iter()
            .map(|field| ((*field).to_owned(), value.clone()))
            .collect::<Value>()
    };
    world
        .control_plane
        .answer("bird-config", Answer::Json(policy_with(&all(json!(0)))));
    world.router.start_agent();
    world.wait_established();
    let defaults = |world: &World| {
        let filters = world
            .router
            .bird
            .try_ask(&world.router.inside, "eval MOE_MAX_PATH")?;
        let limits = world.router.bird.try_ask(
            &world.router.inside,
            "show protocols all \"ebgp_wg_4242421002\"",
        )?;
        if filters.trim().ends_with("10")
            && limits.contains("9000")
            && !limits.contains("Export limit")
        {
            return Ok(());
        }
        Err(format!("{filters}{limits}"))
    };
    for (what, value) in [("zero", json!(0)), ("null", Value::Null)] {
        world
            .control_plane
            .answer("bird-config", Answer::Json(policy_with(&all(value))));
        world.wait_polls("bird-config", 2);
        wait_until(&format!("{what}: the defaults are in force"), 30, || {
            defaults(&world)
        });
        wait_until(&format!("{what}: routes pass"), 30, || {
            match passed_on(&world)? {
                3 => Ok(()),
                found => Err(format!("{found}")),
            }
        });
    }
    // Not even who we are in DN42 is said: what is in transit goes on, and nothing else is let in.
    let bare = json!({"policy": {}, "node": {}});
    world
        .control_plane
        .answer("bird-config", Answer::Json(bare));
    wait_until("our own prefix is not announced any more", 40, || {
        let heard = world.neighbours[1].heard(4)?;
        if heard
            .iter()
            .any(|prefix| prefix == crate::lab::router::PREFIX4)
        {
            Err(format!("{heard:?}"))
        } else {
            Ok(())
        }
    });
    assert_eq!(passed_on(&world), Ok(3));
    defaults(&world).unwrap();
}
