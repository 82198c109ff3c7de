//! Probing: time and loss, as the router measures them and the Control Plane hears of them.

use crate::lab::world::{World, interface, uuid};
use crate::lab::{contains, wait_until};
use serde_json::{Value, json};

/// The newest report of a session.
fn report(world: &World, number: u32) -> Result<Value, String> {
    let post = world
        .control_plane
        .posts("report")
        .pop()
        .ok_or("no report yet")?;
    let sessions = post["sessions"].as_array().cloned().unwrap_or_default();
    sessions
        .into_iter()
        .find(|session| session["uuid"] == uuid(number))
        .ok_or_else(|| post.to_string())
}

fn metric(world: &World, name: &str, number: u32) -> Option<f64> {
    world.router.metric(&format!(
        "moenet_agent_session_{name}{{session=\"{}\"}}",
        interface(number)
    ))
}

/// Waits until the newest probe of the first session found this loss, wherever one can read it.
#[track_caller]
fn wait_loss(world: &World, loss: f64) {
    wait_until(
        &format!("a loss of {loss} is measured and told"),
        60,
        || {
            let session = report(world, 1)?;
            let told = session["loss"].as_f64() == Some(loss);
            if told && metric(world, "loss_ratio", 1) == Some(loss) {
                Ok(())
            } else {
                Err(session.to_string())
            }
        },
    );
}

#[test]
fn the_round_trip_time_is_measured_and_loss_is_counted() {
    let mut world = World::new(2);
    world
        .router
        .reconfigure(|config| config["probe"] = json!({"interval": 5, "count": 4, "timeout": 1}));
    world.router.start_agent();
    world.wait_established();
    let input = |rule: &str| {
        let chain =
            "add table inet lab; add chain inet lab in { type filter hook input priority 0; }";
        let text = format!("flush ruleset; {chain}; add rule inet lab in {rule}");
        world.neighbours[0].inside.shell(&format!("nft '{text}'"));
    };
    wait_loss(&world, 0.0);
    let rtt = report(&world, 1).unwrap()["rtt_ms"].as_f64();
    assert!(rtt.is_some_and(|ms| ms < 1000.0), "{rtt:?}");
    assert!(metric(&world, "rtt_seconds", 1).is_some_and(|seconds| seconds < 1.0));
    let status = world
        .router
        .path(&format!("state/status/sessions/{}.yaml", interface(1)));
    wait_until("the status has the time", 30, || {
        contains(&std::fs::read_to_string(&status).unwrap(), "rttMs")
    });
    // One echo of two is lost, and the time of the other still counts.
    input("icmpv6 type echo-request numgen inc mod 2 0 drop");
    wait_loss(&world, 0.5);
    assert!(
        report(&world, 1).unwrap()["rtt_ms"].is_number(),
        "{:?}",
        report(&world, 1)
    );
    // Nothing comes back: no time at all, and not a time of zero.
    input("icmpv6 type echo-request drop");
    wait_loss(&world, 1.0);
    let session = report(&world, 1).unwrap();
    assert!(
        session["rtt_ms"].is_null() && session.as_object().unwrap().contains_key("rtt_ms"),
        "{session}"
    );
    assert_eq!(metric(&world, "rtt_seconds", 1), None);
    assert_eq!(
        report(&world, 2).unwrap()["loss"].as_f64(),
        Some(0.0),
        "the other session's loss is its own"
    );
    assert_eq!(
        session["state"], "established",
        "a peer that drops echoes is no dead peer"
    );
}
